//! `nightshift model pull --as merged`: the base with a version in its weights, by the engine's own merge.

use std::path::{Path, PathBuf};

use coordinator::cli::CliError;
use engine::lora::merge::MOST_SHARD_BYTES;
use engine::process::available_bytes;
use engine::{Base, BaseOptions, MergeError, write_merged};
use proto::adapter::AdapterSpec;
use proto::ids::Digest;

/// What is merged.
pub(super) struct Merge {
    /// Where the base lies.
    pub(super) base: PathBuf,
    /// What names it in the plan.
    pub(super) digest: Digest,
    pub(super) spec: AdapterSpec,
    pub(super) trained: Vec<f32>,
    /// Where it is written: a folder that is new or empty.
    pub(super) out: PathBuf,
}

impl Merge {
    /// Reads the base and writes it with the adapter in it. Blocks. Gives each file's name and hash.
    pub(super) fn write(&self) -> Result<Vec<(String, Digest)>, CliError> {
        let options = BaseOptions::default();
        let needed = Base::needed_bytes(&self.base, options).map_err(CliError::input)?;
        if let Some(free) = available_bytes().filter(|free| *free < needed) {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(CliError::Input(format!(
                "the base needs {} MiB of memory and {} MiB are free; merge on a machine with more",
                mib(needed),
                mib(free)
            )));
        }
        let base = Base::open_with(&self.base, options).map_err(CliError::input)?;
        check(&self.base, base.digest(), self.digest)?;
        let adapter = (&self.spec, &[][..], self.trained.as_slice());
        write_merged(&self.out, &base, &self.base, adapter, MOST_SHARD_BYTES).map_err(|error| match error {
            MergeError::File(error) => CliError::Store(error.to_string()),
            other @ (MergeError::Module(_)
            | MergeError::Adapter(_)
            | MergeError::NotEmpty(_)
            | MergeError::Overflow { .. }
            | MergeError::NoPlace { .. }
            | MergeError::Text { .. }
            | MergeError::Shape(_)) => CliError::input(other),
        })
    }
}

/// Fails where a base is another than the plan's.
pub(super) fn check(path: &Path, found: Digest, wanted: Digest) -> Result<(), CliError> {
    if found == wanted {
        return Ok(());
    }
    Err(CliError::Input(format!(
        "{} is the base {found}, and the task is of {wanted}; name that one with --base",
        path.display()
    )))
}
