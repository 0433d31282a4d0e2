//! What the commands share that work on this machine alone: a base, a text, and whether they fit in memory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::shown::shown;
use shell::cli::note;

use super::adapter::ComputeArgs;
use crate::config::Config;
use engine::process::available_bytes;
use engine::{Base, BaseOptions, Compute, Engine, Fetching, Hub, Source};
use text::{ControlTokens, Corpus, ReadOptions, UserText};

/// How the user's text is read, where it is not as the configuration says.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Text")]
pub(super) struct TextArgs {
    /// Read control tokens that are spelled in text without turns as tokens and not as letters: for text to which a
    /// chat template was applied before (`read_control_tokens` in the configuration)
    #[arg(long)]
    control_tokens: bool,
}

impl TextArgs {
    /// With these over what the configuration says.
    pub(super) fn reading(self, config: &Config) -> ReadOptions {
        let reading = config.reading();
        if self.control_tokens {
            ReadOptions { control_tokens: ControlTokens::AsTokens, ..reading }
        } else {
            reading
        }
    }
}

/// Opens a base where it is to be computed, fetching it first where it is a hub's; fails before its weights are read
/// when there is no such device, and when they and `beside` more bytes do not fit in memory.
pub(super) fn open(
    name: &Path,
    args: ComputeArgs,
    beside: impl FnOnce(&Base, Compute) -> u64,
) -> anyhow::Result<Engine> {
    let compute = args.compute()?;
    let source: Source = name.to_string_lossy().parse()?;
    let path = fetch(&source)?;
    let base = read(&path, args.dtype.options(), compute, beside)?;
    let engine = Engine::new(Arc::new(base)).with_compute(compute);
    engine.prepare()?;
    Ok(engine)
}

/// Reads a base; fails before its weights are read when they do not fit in memory, and after that when what takes memory
/// `beside` them, or they once more, does not.
pub(super) fn read(
    path: &Path,
    options: BaseOptions,
    compute: Compute,
    beside: impl FnOnce(&Base, Compute) -> u64,
) -> anyhow::Result<Base> {
    fits(Base::needed_bytes(path, options)?, 0)?;
    let base = Base::open_with(path, options)?;
    let copied = compute.copied_bytes(base.config());
    fits(0, beside(&base, compute).saturating_add(copied)).map_err(|error| match copied {
        0 => error,
        _ => anyhow::anyhow!("{error}, or the device cpu, which needs the weights only once"),
    })?;
    Ok(base)
}

/// Fails when so much memory is not there, and says how much is needed.
fn fits(weights: u64, beside: u64) -> anyhow::Result<()> {
    let Some(available) = available_bytes() else { return Ok(()) };
    let needed = weights.saturating_add(beside);
    if needed <= available {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if beside == 0 {
        anyhow::bail!(
            "the base needs {} MiB of memory and {} MiB are free; use a smaller or a quantised base, or another dtype than f32",
            mib(weights),
            mib(available)
        );
    }
    anyhow::bail!(
        "beside the base this needs {} MiB of memory and {} MiB are free; use --recompute, or a smaller --batch or --seq-len",
        mib(beside),
        mib(available)
    )
}

/// Where a base is on this machine; one of a hub's is fetched first.
pub(super) fn fetch(source: &Source) -> anyhow::Result<PathBuf> {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    let path = Base::fetch(source, &Hub::from_env()?, &mut |fetching: Fetching| {
        bar.set_length(fetching.of_bytes);
        bar.set_position(fetching.bytes);
        bar.set_message(shown(&fetching.file).to_string());
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(path?)
}

/// Reads the user's text and says on stderr what was left out of it.
pub(super) fn corpus(base: &Base, data: &[PathBuf], options: ReadOptions) -> anyhow::Result<Corpus> {
    if data.is_empty() {
        anyhow::bail!("no text was named; use --data with a file or a folder");
    }
    let text = UserText::read(data, &options)?;
    note(&text.reading().to_string());
    let corpus = Corpus::new(base, &text)?;
    corpus.notes().lines().iter().for_each(|line| note(line));
    Ok(corpus)
}
