//! What a command prints, and how it ends: data goes to stdout, everything else to stderr, the exit code to whoever
//! started it.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use proto::shown::{message, page};
use serde::Serialize;
use tokio::runtime::Builder;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Why data could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// It has no place in JSON.
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Nobody takes it.
    #[error("cannot print: {0}")]
    Write(#[from] io::Error),
}

/// Prints a document, or the text that stands for it.
pub fn print<T: Serialize>(
    format: Format,
    document: &T,
    text: impl FnOnce() -> String,
) -> Result<(), PrintError> {
    match format {
        Format::Text => line(&text()),
        Format::Json => written(&serde_json::to_string_pretty(document)?),
    }
}

/// Prints a line of data.
pub fn line(text: &str) -> Result<(), PrintError> {
    written(&page(text).to_string())
}

fn written(text: &str) -> Result<(), PrintError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever reads has what they wanted, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Tells a person something that is not data.
pub fn note(text: &str) {
    // Where stderr is closed there is nobody to tell.
    drop(writeln!(io::stderr().lock(), "{}", page(text)));
}

/// Tells a person, behind `prefix`, why the program ends, and gives the code that it exits with.
pub fn failed(prefix: &str, error: &impl Display, code: u8) -> ExitCode {
    note(&format!("{prefix}: {}", message(&error.to_string())));
    ExitCode::from(code)
}

/// Prints what clap says of arguments, a mistake or a help text, and gives the code that the program exits with.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Where stdout is closed there is nobody to tell.
    drop(error.print());
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Runs a program to its end on so many threads, or on one for each core. Fails when the system gives no threads.
pub fn block_on<F: Future>(threads: Option<usize>, main: F) -> io::Result<F::Output> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build()?;
    let outcome = runtime.block_on(main);
    // Connections that do not close must not keep the process.
    runtime.shutdown_background();
    Ok(outcome)
}
