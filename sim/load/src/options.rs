//! What a load is asked for, and what is refused of it before anything is done.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use proto::ids::Timestamp;

use crate::report::Load;
use crate::shape::{MOST_DEVICES, MOST_PER_SEC, Shape};
use crate::shard::Shard;
use crate::tokens::{Tokens, TokensError};

/// How a load comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShapeName {
    /// One after another in --ramp-secs; then they stay, and ask again when the coordinator tells them to
    Ramp,
    /// All at once, and they stay
    Herd,
    /// --rate of them begin each second, whatever becomes of those before: each connects anew, asks, does what it is given, and
    /// goes
    Rate,
}

/// A load.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where the coordinator is: this system is loaded, wherever tokens say that their coordinator is
    #[arg(long, value_name = "HOST:PORT", required = true)]
    coordinator: Option<String>,
    /// A file of bootstrap tokens, one a line, as `nightshift device token --count N` prints them: line N is the token of
    /// device N. Only devices that --dir does not hold yet need one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// One token, for a load of one device, or `-` for lines of tokens from standard input. An argument is seen by other users
    /// of this machine and stays in the shell's history
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// The folder in which the devices are kept, with their keys: a second run uses them again and enrolls nobody. Its owner's
    /// alone; several shards may share it
    #[arg(long, value_name = "DIR", default_value = "nightshift-load")]
    dir: PathBuf,
    /// Devices, in all shards together
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DEVICES)))]
    devices: u32,
    /// How they come
    #[arg(long, value_enum, default_value_t = ShapeName::Ramp)]
    shape: ShapeName,
    /// Seconds of a ramp until the last device has begun
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    ramp_secs: u32,
    /// Of the shape `rate`: devices that begin in a second, in all shards together
    #[arg(long, value_name = "N", default_value_t = 1.0, allow_negative_numbers = true)]
    rate: f64,
    /// Seconds until the load ends; earlier where there is no more work
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// End after so many new versions too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    versions: Option<u32>,
    /// Seconds that a device takes for what would be a training
    #[arg(long, value_name = "SECS", default_value_t = 0.0, allow_negative_numbers = true)]
    train_secs: f64,
    /// By how much each device moves each number of an adapter; with 0 it changes nothing. What a version comes to is then
    /// known: without noise, and where nothing is clipped, each of its numbers is higher by this
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    step: f32,
    /// Devices that enroll at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    enroll_at_once: u32,
    /// This process is one of several that make the load together, such as 3/10; counted from 0. Each plays the devices whose
    /// number divided by the count leaves its index
    #[arg(long, value_name = "INDEX/COUNT", conflicts_with = "shards")]
    shard: Option<Shard>,
    /// The same, of so many, where `JOB_COMPLETION_INDEX` says which: in the pods of an Indexed Job of Kubernetes
    #[arg(long, value_name = "COUNT")]
    shards: Option<u32>,
    /// When the load begins, in seconds since 1970, so that shards begin together; at once where left out. At most a day ahead
    #[arg(long, value_name = "UNIX-SECS")]
    begin_at: Option<u64>,
    /// Write the report to this file too, as JSON; `{index}` in it stands for the shard's
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

/// What is left of options that can be a load.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) load: Load,
    pub(crate) shard: Shard,
    pub(crate) dir: PathBuf,
    pub(crate) enroll_at_once: u32,
    pub(crate) begin_at: Option<Timestamp>,
}

/// The longest that is waited for the beginning, in seconds.
const LONGEST_WAIT_SECS: u64 = 86_400;

impl Options {
    /// The load that is asked for; fails with what is wrong. `completion_index` is what the environment says.
    pub(crate) fn wanted(&self, completion_index: Option<&str>, now: Timestamp) -> Result<Wanted, String> {
        let coordinator = self.coordinator.clone().ok_or("say --coordinator HOST:PORT")?;
        let has_port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
        if !coordinator.rsplit_once(':').is_some_and(has_port) {
            return Err(format!("--coordinator is HOST:PORT, got {coordinator:?}"));
        }
        let shape = match self.shape {
            ShapeName::Herd => Shape::Herd,
            ShapeName::Ramp => Shape::Ramp { secs: self.ramp_secs },
            ShapeName::Rate => {
                if !(self.rate > 0.0 && self.rate <= MOST_PER_SEC) {
                    return Err(format!("--rate is above 0 and at most {MOST_PER_SEC}, got {}", self.rate));
                }
                Shape::Rate { per_sec: self.rate }
            }
        };
        if !(0.0..=86_400.0).contains(&self.train_secs) {
            return Err(format!("--train-secs is 0 to 86400, got {}", self.train_secs));
        }
        if !self.step.is_finite() {
            return Err(format!("--step is a number, got {}", self.step));
        }
        let shard = match (self.shard, self.shards) {
            (Some(shard), _) => shard,
            (None, Some(count)) => Shard::of_job(completion_index, count)?,
            (None, None) => Shard::WHOLE,
        };
        let begin_at = match self.begin_at {
            None => None,
            Some(secs) => {
                let ahead = secs.saturating_sub(now.as_secs());
                if secs < now.as_secs() || ahead > LONGEST_WAIT_SECS {
                    return Err(format!(
                        "--begin-at is now, which is {}, or at most {LONGEST_WAIT_SECS} seconds later; got {secs}",
                        now.as_secs()
                    ));
                }
                Some(Timestamp(secs.saturating_mul(1000)))
            }
        };
        let load = Load {
            coordinator,
            devices: self.devices,
            shape,
            secs: self.secs,
            versions: self.versions,
            train_secs: self.train_secs,
            step: self.step,
        };
        let (dir, enroll_at_once) = (self.dir.clone(), self.enroll_at_once);
        Ok(Wanted { load, shard, dir, enroll_at_once, begin_at })
    }

    /// Where the report of a shard goes, if anywhere.
    pub(crate) fn report(&self, shard: Shard) -> Option<PathBuf> {
        let named = |path: &PathBuf| match path.to_str() {
            Some(text) => PathBuf::from(text.replace("{index}", &shard.index.to_string())),
            None => path.clone(),
        };
        self.report.as_ref().map(named)
    }

    /// The tokens that were given. Reads standard input where that is asked for.
    pub(crate) fn tokens(&self) -> Result<Tokens, TokensError> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => Tokens::of_file(path),
            (None, Some(token)) if token == "-" => Tokens::of_reader(std::io::stdin()),
            (None, Some(token)) => Tokens::of_text(token, "--token"),
            (None, None) => Ok(Tokens::default()),
        }
    }
}
