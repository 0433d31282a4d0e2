//! What a device must be shown before it reveals anything.

use thiserror::Error;

use crate::{
    identity::Signature,
    index::{DeviceIndex, IndexSet},
};

/// One signature of every survivor, in order of their places: over the
/// transcript where the survivor is in `agreed`, over the sharers
/// ([`Sharing`](crate::Sharing)) where it is not.
///
/// Either says that the survivor masked its input with these sharers, in this
/// roster and no other. In this form no signer can be repeated or unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The survivors whose signature is over the transcript: a quorum at least.
    pub agreed: IndexSet,
    /// A signature of every survivor.
    pub signatures: Vec<Signature>,
}

/// Why signatures are not evidence of the survivors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// The set of those who signed the transcript is over another roster.
    #[error("a set of signers over {got} places, the roster has {expected}")]
    Places {
        /// The places of the set.
        got: usize,
        /// The places of the roster.
        expected: usize,
    },
    /// A signer is not a survivor, so it cannot have signed honestly.
    #[error("a signature of device {index}, which is not a survivor")]
    NotASurvivor {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// A signer is not a sharer, so it cannot have signed honestly.
    #[error("a signature of device {index}, which is not among the sharers")]
    NotASharer {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// Too few signed the transcript.
    #[error("{got} signed the transcript, expected at least {need}")]
    TooFew {
        /// Those who did.
        got: usize,
        /// The quorum.
        need: usize,
    },
    /// There is not exactly one signature of every survivor.
    #[error("{got} signatures, expected one of each of {survivors} survivors")]
    NotEverySurvivor {
        /// The signatures there are.
        got: usize,
        /// The survivors.
        survivors: usize,
    },
    /// A signature is not the signer's over the transcript.
    #[error("device {index} did not sign this transcript")]
    Transcript {
        /// The place of the signer.
        index: DeviceIndex,
    },
    /// A signature is not the signer's over the sharers in this roster.
    #[error("device {index} did not sign that it masked with these sharers in this roster")]
    Sharing {
        /// The place of the signer.
        index: DeviceIndex,
    },
}
