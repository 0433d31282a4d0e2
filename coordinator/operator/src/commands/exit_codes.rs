//! `nightshift exit-codes`: what each exit code means, and how to mend what it is for.

use clap::Args;
use coordinator::cli::CliError;
use serde::Serialize;
use serde_json::json;

use crate::output::{Output, print};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// A code.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Meaning {
    code: u8,
    means: &'static str,
    mend: &'static str,
}

/// All of them, as `CliError::code` gives them; 0 and 2 have no error of ours.
const CODES: [Meaning; 8] = [
    Meaning { code: 0, means: "done", mend: "nothing is to be done" },
    Meaning {
        code: 1,
        means: "an internal failure: something that should not happen did, or what was asked for came damaged",
        mend: "try again; where it stays, run `nightshift doctor` and `nightshift store check`, and report it with the message",
    },
    Meaning {
        code: 2,
        means: "wrong usage: an option or a word that the command does not know, or a value of the wrong form",
        mend: "read the message; `nightshift help COMMAND` has the options",
    },
    Meaning {
        code: 3,
        means: "a configuration or an input cannot be used: a value out of its range, a name that nothing has, a file that is \
                not there, a folder that holds something else, a `doctor` that found a fault",
        mend: "change what the message names; nothing was changed or sent",
    },
    Meaning {
        code: 4,
        means: "the store or a disk fails: no room, a folder of another user's, a store that is in use or damaged, a \
                coordinator that writes nothing",
        mend: "make room or mend the disk that the message names; for a store in use stop the coordinator; for a damaged one \
               run `nightshift store check`, and put back a copy of the state folder",
    },
    Meaning {
        code: 5,
        means: "a port is in use, or the coordinator cannot be reached",
        mend: "start it with `nightshift up` or `nightshift-coordinator`, look at `nightshift doctor`, give it another port, \
               or name the right folder with `--dir`",
    },
    Meaning {
        code: 6,
        means: "the coordinator refused: the operator's certificate was revoked, replaced or has ended, its role does not \
                suffice, or what was asked cannot be done now",
        mend: "do what the message says; for the certificate use the folder that `operator rotate` wrote to, have an admin \
               make one by `nightshift operator add`, or copy operator.pem and operator.key from the coordinator's folder",
    },
    Meaning {
        code: 7,
        means: "the task that was watched ended before all versions were there, or waits for its operator",
        mend: "`nightshift task show` says why; `task resume`, `model rollback` or a new task go on",
    },
];

pub(super) fn run(Arguments { output }: Arguments) -> Result<(), CliError> {
    print(output.format, "nightshift.exit-codes/1", &json!({ "codes": CODES }), |_| text())
}

fn text() -> String {
    let line = |Meaning { code, means, mend }: &Meaning| format!("{code}  {means}\n   {mend}");
    CODES.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use coordinator::cli::EXIT_CODES;

    use super::*;

    #[test]
    fn every_code_that_a_command_ends_with_is_on_the_page_and_in_the_help() {
        let errors = [
            CliError::Internal(String::new()),
            CliError::Input(String::new()),
            CliError::Store(String::new()),
            CliError::Network(String::new()),
            CliError::Refused(String::new()),
            CliError::Ended(String::new()),
        ];
        let mut codes: Vec<u8> = errors.iter().map(CliError::code).collect();
        codes.extend([0, 2]);
        codes.sort_unstable();
        assert_eq!(CODES.iter().map(|code| code.code).collect::<Vec<_>>(), codes);
        for code in codes {
            assert!(EXIT_CODES.contains(&format!(" {code} ")), "{code}");
        }
    }

    #[test]
    fn the_guide_has_the_same_page() {
        let guide = include_str!("../../../../deploy/walk-through.md");
        for Meaning { code, means, mend } in &CODES {
            let row = format!("| {code} | {means} | {mend} |");
            assert!(guide.contains(&row), "deploy/walk-through.md lacks: {row}");
        }
    }
}
