//! Logs, on stderr.

use std::io::{self, IsTerminal};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// How a line of the logs is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `fields` with the `message` among them.
    Json,
}

/// Starts the logs of this process, filtered as the environment's `variable` says, or else by `filter`. Where they are
/// started already, they stay as they are: a program that wraps this one may log.
pub fn start(variable: &str, filter: &str) {
    start_as(variable, filter, LogFormat::Text);
}

/// The same in a format.
pub fn start_as(variable: &str, filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env(variable).unwrap_or_else(|_| EnvFilter::new(filter));
    let logs = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Whoever reads stderr may go away: to say so there would be a panic.
        .log_internal_errors(false)
        .with_env_filter(filter);
    match format {
        LogFormat::Text => drop(logs.try_init()),
        LogFormat::Json => drop(logs.json().try_init()),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const LOGS: &str = "NIGHTSHIFT_TEST_LOGS";

    /// This very test is run again as a process of its own, which then logs to nobody.
    #[test]
    fn who_logs_lives_on_when_the_reader_of_stderr_goes_away() {
        if std::env::var_os(LOGS).is_some() {
            start(LOGS, "info");
            let mut line = String::new();
            io::stdin().read_line(&mut line).unwrap();
            tracing::warn!("nobody reads this");
            return;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("logs::tests::who_logs_lives_on_when_the_reader_of_stderr_goes_away")
            .env(LOGS, "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stderr.take());
        // It logs only now, when its reader is gone.
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
