//! What the daemon and its trainer say to each other.
//!
//! Both are the same program, started together, so there is no other version to understand; [`VERSION`] is in the first
//! message of each all the same, because the program's file may be replaced between two starts.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Of these messages. It goes up with every change of what they mean.
pub(super) const VERSION: u32 = 3;

/// How often the daemon says [`Asked::GoOn`].
pub(super) const GO_ON_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// A message to the trainer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ToTrainer {
    #[prost(oneof = "Asked", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub(super) asked: Option<Asked>,
}

/// What the trainer is asked for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Asked {
    /// The first message: what it works with.
    #[prost(message, tag = "1")]
    Setup(Setup),
    /// To read the base, and to say what it is.
    #[prost(message, tag = "2")]
    Describe(Describe),
    /// How much memory a training takes.
    #[prost(message, tag = "3")]
    Measure(Measure),
    /// To train; the parts follow.
    #[prost(message, tag = "4")]
    Train(Train),
    /// A part of what belongs to the training.
    #[prost(message, tag = "5")]
    Part(Part),
    /// To send what it has and to go.
    #[prost(message, tag = "6")]
    Leave(Leave),
    /// To try what it must not be able to do.
    #[prost(message, tag = "7")]
    Probe(Probe),
    /// To go on: said all the time, because a daemon that says nothing does not see that the user is back.
    #[prost(message, tag = "8")]
    GoOn(GoOn),
    /// To read the user's text, and to say whether anything of it can be used.
    #[prost(message, tag = "9")]
    ReadText(ReadText),
}

/// What a trainer works with.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Setup {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// The base's folder or file.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) base: Vec<u8>,
    /// Where the user's text is; none where none is to be read.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) data: Vec<Vec<u8>>,
    #[prost(bool, tag = "4")]
    pub(super) keep_secret_looking_lines: bool,
    #[prost(uint64, tag = "5")]
    pub(super) threads: u64,
    #[prost(string, tag = "6")]
    pub(super) device: String,
    #[prost(string, tag = "7")]
    pub(super) dtype: String,
    #[prost(bool, tag = "8")]
    pub(super) recompute: bool,
    /// The most memory that it may have; none where a control group limits it, or nothing can.
    #[prost(uint64, optional, tag = "9")]
    pub(super) most_memory_bytes: Option<u64>,
    #[prost(bool, tag = "10")]
    pub(super) read_control_tokens: bool,
}

/// Asks for [`Described`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Describe {}

/// Asks for [`Measured`]: the memory of a training of so many parameters in batches of sequences of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub(super) struct Measure {
    #[prost(uint64, tag = "1")]
    pub(super) trained: u64,
    #[prost(uint64, tag = "2")]
    pub(super) batch: u64,
    #[prost(uint64, tag = "3")]
    pub(super) length: u64,
}

/// What is trained, but for its vectors, which follow in parts.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Train {
    /// The plan's bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) plan: Vec<u8>,
    /// What was published, as JSON.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) published: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub(super) class: Option<DeviceClass>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) seed: Vec<u8>,
    /// Milliseconds since the training was begun.
    #[prost(uint64, tag = "5")]
    pub(super) elapsed_millis: u64,
    #[prost(uint32, tag = "6")]
    pub(super) longest_training_minutes: u32,
    #[prost(uint64, optional, tag = "7")]
    pub(super) largest_memory_mib: Option<u64>,
    /// Numbers of each vector that follows, in the order of [`Kind`].
    #[prost(uint64, tag = "8")]
    pub(super) frozen: u64,
    #[prost(uint64, tag = "9")]
    pub(super) folded: u64,
    #[prost(uint64, tag = "10")]
    pub(super) trained: u64,
    /// Bytes of the checkpoint that follows last; none where there is none.
    #[prost(uint64, optional, tag = "11")]
    pub(super) checkpoint: Option<u64>,
    /// The version before, which follows the parameters; none where nothing is measured against it.
    #[prost(message, optional, tag = "12")]
    pub(super) before: Option<VersionBefore>,
}

/// A version before another one; its vectors follow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct VersionBefore {
    /// Which half of an adapter that is trained in turns was trained from it: 0 or 1.
    #[prost(uint32, tag = "1")]
    pub(super) turn: u32,
    /// Numbers of each vector that follows, in the order of [`Kind`].
    #[prost(uint64, tag = "2")]
    pub(super) frozen: u64,
    #[prost(uint64, tag = "3")]
    pub(super) folded: u64,
    #[prost(uint64, tag = "4")]
    pub(super) trained: u64,
}

/// How much of an adapter a device trains.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct DeviceClass {
    #[prost(uint32, tag = "1")]
    pub(super) rank: u32,
    #[prost(uint32, tag = "2")]
    pub(super) layers: u32,
}

/// What a part is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    /// Of nothing.
    None = 0,
    /// The frozen factors.
    Frozen = 1,
    /// What earlier epochs left.
    Folded = 2,
    /// The trained parameters: to begin with, or after the last step.
    Parameters = 3,
    /// What an interrupted training had come to, or what is to be kept.
    Checkpoint = 4,
    /// What a training has come to that leaves.
    Newest = 5,
    /// The frozen factors of the version before.
    FrozenBefore = 6,
    /// What the epochs before that left.
    FoldedBefore = 7,
    /// Its trained parameters.
    ParametersBefore = 8,
}

/// A part of what is larger than a frame. Its bytes are wiped, and its `Debug` does not show them.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Part {
    #[prost(enumeration = "Kind", tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) bytes: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub(super) is_last: bool,
}

/// See [`Asked::GoOn`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub(super) struct GoOn {}

/// See [`Asked::Leave`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Leave {}

/// Asks for [`Probed`]: whether this file can be read, among other things.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Probe {
    /// A file that is none of the base and none of the text.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) outside: Vec<u8>,
}

/// See [`Asked::ReadText`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ReadText {}

/// A message of the trainer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FromTrainer {
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub(super) said: Option<Said>,
}

/// What the trainer says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Said {
    /// The first message: it has shut itself in.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// It is alive.
    #[prost(message, tag = "2")]
    Alive(Alive),
    #[prost(message, tag = "3")]
    Described(Described),
    #[prost(message, tag = "4")]
    Measured(Measured),
    #[prost(message, tag = "5")]
    Read(Read),
    #[prost(message, tag = "6")]
    Part(Part),
    /// What is kept of this training is of no use any more.
    #[prost(message, tag = "7")]
    Forget(Forget),
    /// All steps are done; the parameters came before.
    #[prost(message, tag = "8")]
    Trained(Trained),
    /// Nothing came of it, for this reason.
    #[prost(string, tag = "9")]
    NotTrained(String),
    /// The user's limits forbid it.
    #[prost(message, tag = "10")]
    Refused(Refused),
    /// The user's text cannot be used, for this reason, in which paths are quoted and no text.
    #[prost(string, tag = "11")]
    NoText(String),
    /// It goes because it was told to; what it had came before.
    #[prost(message, tag = "12")]
    Left(Left),
    /// The base or the device cannot be used, for this reason.
    #[prost(string, tag = "13")]
    Unusable(String),
    #[prost(message, tag = "14")]
    Probed(Probed),
    /// It does not train without a protection that cannot be had.
    #[prost(string, tag = "15")]
    Unprotected(String),
}

/// What a trainer has done to itself, before it reads anything of the user or of others.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Each protection that holds.
    #[prost(string, repeated, tag = "2")]
    pub(super) protections: Vec<String>,
    /// Each that does not, and why.
    #[prost(string, repeated, tag = "3")]
    pub(super) missing: Vec<String>,
}

/// See [`Said::Alive`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Alive {
    /// The step that is under way; 0 before the first.
    #[prost(uint32, tag = "1")]
    pub(super) step: u32,
}

/// What a base is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Described {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) digest: Vec<u8>,
    #[prost(string, repeated, tag = "2")]
    pub(super) layers: Vec<String>,
    /// Bytes that the weights take in memory, with the copy of a backend that has its own.
    #[prost(uint64, tag = "3")]
    pub(super) weights_bytes: u64,
    /// Where it is trained.
    #[prost(string, tag = "4")]
    pub(super) device: String,
}

/// See [`Measure`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Measured {
    #[prost(uint64, tag = "1")]
    pub(super) bytes: u64,
}

/// How much of the user's text was read: numbers only.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Read {
    #[prost(uint64, tag = "1")]
    pub(super) files: u64,
    #[prost(uint64, tag = "2")]
    pub(super) documents: u64,
    #[prost(uint64, tag = "3")]
    pub(super) with_roles: u64,
    #[prost(uint64, tag = "4")]
    pub(super) duplicates: u64,
    #[prost(uint64, tag = "5")]
    pub(super) surplus: u64,
    #[prost(uint64, tag = "6")]
    pub(super) secret_looking: u64,
    #[prost(uint64, tag = "7")]
    pub(super) skipped_lines: u64,
    #[prost(uint64, tag = "8")]
    pub(super) unread_files: u64,
    #[prost(uint64, tag = "9")]
    pub(super) refused: u64,
    #[prost(uint64, tag = "10")]
    pub(super) as_letters: u64,
    #[prost(uint64, tag = "11")]
    pub(super) without_thoughts: u64,
}

/// See [`Said::Forget`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Forget {}

/// How a training went; it is as much the user's as the parameters are, so `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Trained {
    #[prost(double, tag = "1")]
    pub(super) loss: f64,
    #[prost(uint32, tag = "2")]
    pub(super) examples: u32,
    /// What the version gained over the one before, and over the base; none where that was not measured.
    #[prost(double, optional, tag = "3")]
    pub(super) over_before: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub(super) over_base: Option<f64>,
}

/// Which of the user's limits forbids a training.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Refused {
    #[prost(enumeration = "Limit", tag = "1")]
    pub(super) limit: i32,
    #[prost(uint64, tag = "2")]
    pub(super) found: u64,
    #[prost(uint64, tag = "3")]
    pub(super) most: u64,
}

/// See [`Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Limit {
    /// None.
    None = 0,
    /// The policy's minutes.
    Time = 1,
    /// The policy's mebibytes.
    Memory = 2,
    /// What the system has free, in mebibytes.
    FreeMemory = 3,
}

/// See [`Said::Left`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Left {
    /// Steps that are done in all; none before the first of this run.
    #[prost(uint32, optional, tag = "1")]
    pub(super) steps: Option<u32>,
}

/// What a trainer could do that it must not be able to do.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct Probed {
    /// Each thing that it tried and could do.
    #[prost(string, repeated, tag = "1")]
    pub(super) could: Vec<String>,
    /// Each that it could not do.
    #[prost(string, repeated, tag = "2")]
    pub(super) could_not: Vec<String>,
}

impl Part {
    /// Its bytes, which are wiped when they are dropped.
    pub(super) fn take(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut self.bytes))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes)", self.bytes.len())
    }
}

impl Drop for Train {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl fmt::Debug for Train {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Train")
    }
}

impl fmt::Debug for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trained")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_user_s_is_not_shown() {
        let part = Part { kind: 3, bytes: vec![77; 3], is_last: true };
        assert_eq!(format!("{:?}", Said::Part(part)), "Part(Part(3 bytes))");
        let trained = Trained { loss: 1.25, examples: 3, over_before: Some(0.5), over_base: None };
        assert!(!format!("{trained:?}").contains('2'));
    }
}
