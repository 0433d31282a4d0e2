//! What people type: `nightshift-sim load`. Data goes to stdout, everything else to stderr.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use proto::dumps;
use proto::files::{self, Audience, read_regular};
use shell::cli::{Format, block_on, failed, note, print, usage};
use shell::logs::{self, LogFormat};
use shell::stop;

use crate::clock::now;
use crate::enrolling::EnrollingError;
use crate::options::Options;
use crate::report::{Ended, MergeError, Report};
use crate::run::{LoadError, Made, load};
use crate::tokens::TokensError;

/// The exit code of what its user ended, as shells have it: 128 and the signal's number. What there is is reported.
const INTERRUPTED: u8 = 130;

/// The longest report that is read.
const MOST_BYTES: u64 = 256 << 20;

/// What `--help` says of exit codes.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal failure; 2 wrong usage; 3 unusable tokens, folder or reports, or too few \
descriptors; 4 cannot write; 5 the coordinator does not answer, or takes no device; 130 its user ended it, and what there is is \
reported.";

/// Plays many real devices against a running coordinator, and says what it took.
///
/// They have keys and certificates of their own, talk by the code of the agent over TLS, and are in real secure sums; they
/// train nothing. A load is bounded: by itself it is of 10 devices and a minute. It changes what it loads: devices are enrolled
/// for good, versions are made, and privacy is charged to devices that have none. Do not point it at a federation of people.
#[derive(Debug, Parser)]
#[command(
    name = "nightshift-sim-load",
    bin_name = "nightshift-sim load",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
    /// What is printed on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one report of those that shards of one load wrote with --report
    Merge {
        /// The reports
        #[arg(value_name = "FILE.json", required = true)]
        reports: Vec<PathBuf>,
        /// Write the report to this file too, as JSON
        #[arg(long, value_name = "FILE.json")]
        report: Option<PathBuf>,
        /// What is printed on stdout
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// What went wrong, by exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Internal(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Input(String),
    #[error("{0}")]
    Output(String),
    #[error("{0}")]
    Coordinator(String),
    #[error("{0}")]
    Interrupted(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::Usage(_) => 2,
            Self::Input(_) => 3,
            Self::Output(_) => 4,
            Self::Coordinator(_) => 5,
            Self::Interrupted(_) => INTERRUPTED,
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let words = error.to_string();
        match error {
            LoadError::Descriptors(_) | LoadError::Place(_) | LoadError::Enrollment(_) => Self::Input(words),
            LoadError::NoDevice { .. } => Self::Usage(words),
            LoadError::Coordinator { .. } => Self::Coordinator(words),
            LoadError::Stopped => Self::Interrupted(words),
            LoadError::Enrolling(error) => match error {
                EnrollingError::NoToken { .. }
                | EnrollingError::Tokens(_)
                | EnrollingError::Place(_)
                | EnrollingError::Gone { .. } => Self::Input(words),
                EnrollingError::Broken { .. } => Self::Internal(words),
                EnrollingError::Refused { .. } | EnrollingError::Failed { .. } => Self::Coordinator(words),
                EnrollingError::Stopped { .. } => Self::Interrupted(words),
            },
        }
    }
}

impl From<TokensError> for Failure {
    fn from(error: TokensError) -> Self {
        Self::Input(error.to_string())
    }
}

/// All that can be typed, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with these arguments, its name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match perform(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed("nightshift-sim load", &failure, failure.code()),
    }
}

fn perform(Cli { command, options, format }: Cli) -> Result<(), Failure> {
    logs::start_as("RUST_LOG", "warn", LogFormat::Text);
    if let Some(Command::Merge { reports, report, format }) = command {
        let merged = merge(&reports)?;
        return all_written(&tell(&merged, report.as_deref(), format));
    }
    dumps::forbid().map_err(|error| Failure::Internal(error.to_string()))?;
    let index = std::env::var("JOB_COMPLETION_INDEX").ok();
    let wanted = options.wanted(index.as_deref(), now()).map_err(Failure::Usage)?;
    let tokens = options.tokens()?;
    let path = options.report(wanted.shard);
    // What cannot be written in the end is said before anything is done.
    if let Some(folder) =
        path.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty())
        && !folder.is_dir()
    {
        let words = format!("--report: there is no folder {}", folder.display());
        return Err(Failure::Output(words));
    }
    let made = block_on(None, async move {
        let stop = stop::on_signal().map_err(|error| Failure::Internal(format!("no signals: {error}")))?;
        Ok::<Made, Failure>(load(wanted, tokens, stop).await?)
    });
    let made = made.map_err(|error| Failure::Internal(format!("no threads: {error}")))??;
    let Made { report, not_kept } = made;
    let mut unwritten = tell(&report, path.as_deref(), format);
    unwritten.extend(not_kept);
    let is_interrupted = report.processes.iter().any(|process| process.ended == Ended::Interrupted);
    let interrupted = || "interrupted: the report is of what there was until then".to_owned();
    if is_interrupted && !unwritten.is_empty() {
        note(&interrupted());
    }
    all_written(&unwritten)?;
    if is_interrupted {
        return Err(Failure::Interrupted(interrupted()));
    }
    if report.processes.iter().any(|process| process.ended == Ended::NoDevice) {
        return Err(Failure::Input("none of the devices could be played: the report says why".to_owned()));
    }
    Ok(())
}

fn merge(paths: &[PathBuf]) -> Result<Report, Failure> {
    let mut reports = Vec::new();
    for path in paths {
        let unread = |why: &dyn std::fmt::Display| {
            Failure::Input(format!("cannot read the report {}: {why}", path.display()))
        };
        let bytes = read_regular(path, MOST_BYTES).map_err(|error| unread(&error))?;
        reports.push(serde_json::from_slice::<Report>(&bytes).map_err(|error| unread(&error))?);
    }
    Report::merge(reports).map_err(|error: MergeError| Failure::Input(error.to_string()))
}

/// Prints the report and writes it, and says what of both did not work: neither waits for the other.
fn tell(report: &Report, path: Option<&Path>, format: Format) -> Vec<String> {
    let printed = print(format, report, || report.to_text()).map_err(|error| error.to_string());
    let written = path.map_or(Ok(()), |path| {
        let bytes = serde_json::to_vec_pretty(report).map_err(|error| error.to_string())?;
        files::write(path, &bytes, Audience::Anyone).map_err(|error| error.to_string())?;
        note(&format!("the report is in {}", path.display()));
        Ok(())
    });
    [printed, written].into_iter().filter_map(Result::err).collect()
}

/// Fails with what could not be written.
fn all_written(unwritten: &[String]) -> Result<(), Failure> {
    if unwritten.is_empty() { Ok(()) } else { Err(Failure::Output(unwritten.join("; "))) }
}

#[cfg(test)]
mod tests {
    use proto::ids::Timestamp;

    use super::*;
    use crate::options::Wanted;
    use crate::shape::Shape;
    use crate::shard::Shard;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn wanted(more: &[&str], index: Option<&str>) -> Result<Wanted, String> {
        let fixed = ["load", "--coordinator", "here:7443"];
        let cli = Cli::try_parse_from(fixed.iter().chain(more)).map_err(|error| error.to_string())?;
        cli.options.wanted(index, NOW)
    }

    #[test]
    fn a_load_that_nobody_describes_is_a_small_one() {
        let Wanted { load, shard, begin_at, .. } = wanted(&[], None).unwrap();
        assert_eq!((load.devices, load.secs, load.shape), (10, 60, Shape::Ramp { secs: 10 }));
        assert_eq!((shard, begin_at), (Shard::WHOLE, None));
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_a_load_is_refused_with_the_value() {
        for (more, words) in [
            (&["--devices", "20001"][..], "20001"),
            (&["--devices", "0"][..], "0 is not in 1..=20000"),
            (&["--secs", "86401"][..], "86401"),
            (&["--shape", "rate", "--rate", "0"][..], "--rate is above 0 and at most 10000, got 0"),
            (&["--shape", "rate", "--rate", "inf"][..], "got inf"),
            (&["--shape", "flood"][..], "[possible values: ramp, herd, rate]"),
            (&["--train-secs", "-1"][..], "--train-secs"),
            (&["--step", "NaN"][..], "--step is a number, got NaN"),
            (&["--shard", "3/3"][..], "the last is 2, got 3"),
            (&["--shards", "3"][..], "JOB_COMPLETION_INDEX"),
            (&["--begin-at", "999"][..], "which is 1000"),
            (&["--begin-at", "90000"][..], "got 90000"),
            (&["--coordinator", "there"][..], "cannot be used multiple times"),
        ] {
            let said = wanted(more, None).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let bad = Cli::try_parse_from(["load", "--coordinator", "there"]).unwrap();
        assert!(bad.options.wanted(None, NOW).unwrap_err().contains("HOST:PORT, got \"there\""));
        assert!(Cli::try_parse_from(["load"]).unwrap_err().to_string().contains("--coordinator"));
    }

    #[test]
    fn a_fault_of_the_program_and_a_stop_of_its_user_have_codes_of_their_own() {
        let code = |error: EnrollingError| Failure::from(LoadError::from(error)).code();
        assert_eq!(code(EnrollingError::Broken { why: "no keys".to_owned(), done: 3 }), 1);
        assert_eq!(code(EnrollingError::Stopped { done: 3 }), INTERRUPTED);
        assert_eq!(code(EnrollingError::Gone { device: 3 }), 3);
    }

    #[test]
    fn a_pod_and_a_person_say_which_shard_it_is() {
        let by_job = wanted(&["--shards", "4"], Some("2")).unwrap().shard;
        assert_eq!(by_job, wanted(&["--shard", "2/4"], None).unwrap().shard);
        let cli =
            Cli::try_parse_from(["load", "--coordinator", "here:1", "--report", "out/{index}.json"]).unwrap();
        assert_eq!(cli.options.report("2/4".parse().unwrap()), Some(PathBuf::from("out/2.json")));
        // Outside a job with shards the index of some other job means nothing.
        assert_eq!(wanted(&[], Some("2")).unwrap().shard, Shard::WHOLE);
        let at = wanted(&["--begin-at", "1060"], None).unwrap().begin_at;
        assert_eq!(at, Some(Timestamp(1_060_000)));
    }
}
