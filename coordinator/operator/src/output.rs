//! Data to stdout, in two forms; words for what a task is.

use std::fmt::Display;

use clap::Args;
use comfy_table::{Table, presets};
use coordinator::cli::CliError;
use proto::admin::TaskState;
use proto::plan::Mode;
use proto::shown::shown;
use serde::Serialize;
use serde_json::json;
use shell::cli::{self, Format};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) mod ago;

/// The option that every command has that prints.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// A document for programs: an object that says first what it is. Within one number fields are added, and none is taken away or
/// means something else.
#[derive(Debug, Serialize)]
struct Document<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    document: &'a T,
}

/// Prints a document, which is an object, as one of this schema, or what `text` makes of it.
pub(crate) fn print<T: Serialize>(
    format: Format,
    schema: &'static str,
    document: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    cli::print(format, &Document { schema, document }, || text(document)).map_err(CliError::internal)
}

/// Prints a document of this schema as one line, where there are many of them.
pub(crate) fn json_line<T: Serialize>(schema: &'static str, document: &T) -> Result<(), CliError> {
    let text = serde_json::to_string(&Document { schema, document }).map_err(CliError::internal)?;
    line(&text)
}

/// Says that something is worthless for ever, and whether it was before.
pub(crate) fn revoked<T: Serialize + Display>(
    format: Format,
    what: &T,
    already: bool,
) -> Result<(), CliError> {
    let document = json!({ "revoked": what, "already": already });
    print(format, "nightshift.revoked/1", &document, |_| {
        if already { format!("{what} was revoked already") } else { format!("revoked {what}") }
    })
}

/// Prints a line of data.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    cli::line(text).map_err(CliError::internal)
}

/// Rows under a head, each column as wide on a terminal as its widest cell; a cell may hold what a device or a plan says of
/// itself.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| shown(cell).to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Against whom ε holds, by who adds the noise.
pub(crate) fn adversary(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "privacy off: the coordinator learns the exact sum of every round",
        Mode::Central => {
            "privacy central: the coordinator learns the exact sum of every round, and adds noise to it; ε holds \
             against whoever sees the versions"
        }
        Mode::Distributed => {
            "privacy distributed: nobody learns a sum without noise; ε holds against the coordinator too"
        }
    }
}

/// ε for people.
pub(crate) fn epsilon(epsilon: f64) -> String {
    if epsilon.is_finite() { format!("{epsilon:.3}") } else { "unbounded".to_owned() }
}

/// A time in seconds since 1970, for people.
pub(crate) fn at(unix_secs: u64) -> String {
    // As an older coordinator says nothing of it.
    if unix_secs == 0 {
        return "unknown".to_owned();
    }
    let at = i64::try_from(unix_secs).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "never".to_owned())
}

/// Where a task stands, for people.
pub(crate) fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Active => "active",
        TaskState::Complete => "complete",
        TaskState::BudgetSpent => "budget spent",
        TaskState::Stopped => "stopped",
        TaskState::Paused => "paused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_orders_no_terminal_and_makes_no_row_of_its_own() {
        let label = "a\x1b[2J\r\u{202e}b\nc".to_owned();
        let rows = [vec![label, "active".to_owned()], vec!["d".to_owned(), "active".to_owned()]];
        let expected = [
            r"NAME                      STATE",
            r"a\u{1b}[2J\r\u{202e}b\nc  active",
            r"d                         active",
        ];
        assert_eq!(table(&["NAME", "STATE"], &rows), expected.join("\n"));
        // Two columns of a terminal each.
        let rows =
            [vec!["夜班".to_owned(), "active".to_owned()], vec!["night".to_owned(), "active".to_owned()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME   STATE\n夜班   active\nnight  active");
    }
}
