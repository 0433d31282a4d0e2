//! `nightshift eval`: what versions of a task are worth on text of the operator's own, by the engine and the reader of devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use coordinator::cli::CliError;
use engine::process::available_bytes;
use engine::{Base, BaseOptions, Compute, Engine, Loss};
use proto::adapter::AdapterSpec;
use proto::admin::TaskStatus;
use proto::ids::{Digest, TaskId};
use proto::shown::shown;
use serde::Serialize;
use shell::cli::note;
use task::gain::{best, content};
use text::{Corpus, ReadOptions, TextError, UserText};

use super::model::fetch;
use crate::client::AdminClient;
use crate::connection::{connect, find_task};
use crate::evals::{self, Measured, Own};
use crate::output::{Output, print, table};
use crate::{base_source, bases};

#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Arguments {
    /// The task: its id, the beginning of it, or its label.
    task: String,
    /// The text, as a device would read it; by default what `task create --eval` or an earlier measurement named.
    #[arg(long = "eval", value_name = "DIR|FILE")]
    text: Option<PathBuf>,
    /// The base; by default the one of which this operator made the task.
    #[arg(long, value_name = "DIR|FILE.gguf|hf:OWNER/NAME")]
    base: Option<String>,
    /// A version; may be repeated. By default the newest, and the best by what devices measured.
    #[arg(long = "version", value_name = "N")]
    versions: Vec<u32>,
    /// Tokens of one sequence.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    seq_len: u32,
    /// Threads to compute with; all cores where left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    output: Output,
}

/// What one model came to.
#[derive(Debug, Serialize)]
struct Row {
    /// None for the base.
    version: Option<u32>,
    nats_per_token: f64,
    perplexity: f64,
    /// Its loss less than the base's.
    gain: f64,
}

#[derive(Debug, Serialize)]
struct Document {
    task: TaskId,
    tokens: u64,
    rows: Vec<Row>,
}

/// A version as `model pull` writes it.
struct Shipped {
    version: u32,
    spec: AdapterSpec,
    trained: Vec<f32>,
}

/// What is to be measured.
struct Work {
    base: PathBuf,
    digest: Digest,
    text: PathBuf,
    seq_len: u32,
    threads: usize,
    versions: Vec<Shipped>,
}

pub(super) async fn run(dir: &Path, arguments: Arguments) -> Result<(), CliError> {
    let Arguments { task, text, base, versions, seq_len, threads, output } = arguments;
    let mut client = connect(dir).await?;
    let task = find_task(&mut client, &task).await?;
    let own = evals::of(dir, task.task);
    let text = text.or_else(|| own.text.clone()).ok_or_else(|| {
        CliError::Input(format!(
            "no text of yours is known for {}; name one with --eval DIR|FILE",
            shown(&task.name)
        ))
    })?;
    let text = std::path::absolute(text).map_err(CliError::input)?;
    let (digest, shipped) = shipped(&mut client, &task, &versions).await?;
    let base = base.or_else(|| bases::name(dir, digest).map(|name| base_source::remembered(&name)));
    let base = base.ok_or_else(|| {
        CliError::Input(format!(
            "where the base {digest} of this task lies is not known here; name it with --base"
        ))
    })?;
    let base = base_source::resolve(&base).await?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or_else(cores, usize::from);
    let work = Work { base, digest, text: text.clone(), seq_len, threads, versions: shipped };
    let measured =
        tokio::task::spawn_blocking(move || measure(&work)).await.map_err(CliError::internal)??;
    let asked: Vec<u32> = measured.versions.keys().copied().collect();
    let measured = measured.and(own.measured);
    let document = document(task.task, &measured, &asked);
    // That it is not remembered costs its place in `task show`, and no figure.
    if let Err(error) = evals::remember(dir, task.task, Own { text: Some(text), measured: Some(measured) }) {
        note(&format!("what was measured is not remembered: {error}"));
    }
    print(output.format, "nightshift.eval/1", &document, words)
}

/// The base's digest, and the versions that are asked for: by default the newest and the best.
async fn shipped(
    client: &mut AdminClient,
    task: &TaskStatus,
    asked: &[u32],
) -> Result<(Digest, Vec<Shipped>), CliError> {
    let mut wanted: Vec<u32> = if asked.is_empty() {
        vec![best(&task.versions).version, content(&task.versions, task.version)]
    } else {
        asked.to_vec()
    };
    wanted.sort_unstable();
    wanted.dedup();
    let mut shipped = Vec::new();
    let mut digest = None;
    for version in wanted {
        let (plan, state, _) = fetch(client, task, version).await?;
        digest = Some(plan.base);
        // Which is the base itself.
        if version > 0 {
            let (spec, trained) = state.shipped(plan.shipped_rank()).map_err(CliError::internal)?;
            shipped.push(Shipped { version, spec, trained });
        }
    }
    let digest = digest.ok_or_else(|| CliError::Internal("no version was asked for".to_owned()))?;
    Ok((digest, shipped))
}

/// Reads the text, and says on stderr what was left out of it, as the agent does.
pub(super) fn read(path: &Path) -> Result<UserText, CliError> {
    let text = UserText::read(std::slice::from_ref(&path.to_owned()), &ReadOptions::default());
    let text = text.map_err(|error| unusable(&error))?;
    note(&text.reading().to_string());
    Ok(text)
}

fn unusable(error: &TextError) -> CliError {
    CliError::Input(format!("--eval: {error}"))
}

fn measure(work: &Work) -> Result<Measured, CliError> {
    let text = read(&work.text)?;
    let options = BaseOptions::default();
    let needed = Base::needed_bytes(&work.base, options).map_err(CliError::input)?;
    if let Some(free) = available_bytes().filter(|free| *free < needed) {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(CliError::Input(format!(
            "the base needs {} MiB of memory and {} MiB are free; measure on a machine with more",
            mib(needed),
            mib(free)
        )));
    }
    let base = Base::open_with(&work.base, options).map_err(CliError::input)?;
    if base.digest() != work.digest {
        return Err(CliError::Input(format!(
            "{} is the base {}, and the task is of {}; name that one with --base",
            work.base.display(),
            base.digest(),
            work.digest
        )));
    }
    let corpus = Corpus::new(&base, &text).map_err(|error| unusable(&error))?;
    corpus.notes().lines().iter().for_each(|line| note(line));
    // Nothing of it was trained on here, so all of it counts.
    let blocks = corpus.train(work.seq_len).and(corpus.held_out(work.seq_len));
    let compute = Compute { threads: work.threads, ..Compute::default() };
    let engine = Engine::new(Arc::new(base)).with_compute(compute);
    let Loss { nats_per_token, tokens } = engine.base_loss(&blocks).map_err(CliError::input)?;
    let mut versions = BTreeMap::new();
    for Shipped { version, spec, trained } in &work.versions {
        let loss = engine.loss(spec, &[], trained, &blocks).map_err(CliError::input)?;
        versions.insert(*version, loss.nats_per_token);
    }
    let text = Digest::of(&blocks.to_bytes());
    Ok(Measured { text, tokens, base: nats_per_token, versions })
}

fn document(task: TaskId, measured: &Measured, asked: &[u32]) -> Document {
    let row = |version: Option<u32>, loss: f64| Row {
        version,
        nats_per_token: loss,
        perplexity: loss.exp(),
        gain: measured.base - loss,
    };
    let versions = measured.versions.iter().filter(|(version, _)| asked.contains(version));
    let versions = versions.map(|(version, loss)| row(Some(*version), *loss));
    Document {
        task,
        tokens: measured.tokens,
        rows: std::iter::once(row(None, measured.base)).chain(versions).collect(),
    }
}

fn words(document: &Document) -> String {
    let rows: Vec<Vec<String>> = document
        .rows
        .iter()
        .map(|row| {
            let (model, gain) = match row.version {
                None => ("base".to_owned(), String::new()),
                Some(version) => (format!("version {version}"), format!("{:+.3}", row.gain)),
            };
            vec![model, format!("{:.3}", row.nats_per_token), format!("{:.2}", row.perplexity), gain]
        })
        .collect();
    let head = ["ON YOUR TEXT", "NATS A TOKEN", "PERPLEXITY", "GAIN OVER THE BASE"];
    format!(
        "{}\n{} tokens of your own text, measured here; nobody else saw it",
        table(&head, &rows),
        document.tokens
    )
}
