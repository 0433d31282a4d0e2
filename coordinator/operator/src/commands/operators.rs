//! `nightshift operator`: who may operate, and until when.

use std::path::Path;

use clap::Subcommand;
use coordinator::cli::CliError;
use coordinator::pki::Identity;
use coordinator::server::OPERATOR;
use proto::admin::{AdminReply, AdminRequest, OperatorStatus};
use proto::ids::Serial;
use serde_json::json;

use crate::client::{AdminClient, CallError};
use crate::connection::connect;
use crate::output::{Output, at, print, revoked, table};

mod add;
mod rotate;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the certificates of operators, the newest first.
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Make somebody an operator: a key and a certificate in a folder of its own, which is theirs to take with them.
    Add(add::Arguments),
    /// Make a certificate worthless, for ever; its connections can do nothing from then on.
    Revoke {
        /// The certificate's serial number, as `operator ls` prints it.
        serial: Serial,
        #[command(flatten)]
        output: Output,
    },
    /// Make a new key and a new certificate in the folder, in the same role, and make the old one worthless.
    Rotate {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(dir: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Ls { output } => {
            let operators = operators(&mut connect(dir).await?).await?;
            let own = own_serial(dir);
            print(output.format, "nightshift.operators/1", &json!({ "operators": operators }), |_| {
                let rows: Vec<_> = operators.iter().map(|operator| row(operator, own)).collect();
                table(&["SERIAL", "NAME", "ROLE", "EXPIRES", "STATE"], &rows)
            })
        }
        Command::Add(arguments) => add::run(dir, arguments).await,
        Command::Revoke { serial, output } => {
            let mut client = connect(dir).await?;
            let all = operators(&mut client).await?;
            let already = all.iter().any(|one| one.serial == serial && one.revoked);
            if !already {
                revoke(&mut client, serial).await?;
            }
            revoked(output.format, &serial, already)
        }
        Command::Rotate { output } => rotate::run(dir, output.format).await,
    }
}

async fn operators(client: &mut AdminClient) -> Result<Vec<OperatorStatus>, CliError> {
    let AdminReply::Operators(operators) = client.call(AdminRequest::ListOperators).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(operators)
}

async fn revoke(client: &mut AdminClient, serial: Serial) -> Result<(), CliError> {
    let reply = client.call(AdminRequest::RevokeOperator(serial)).await?;
    let AdminReply::Done = reply else { return Err(CallError::Unexpected.into()) };
    Ok(())
}

/// The number of the certificate in the folder.
fn own_serial(dir: &Path) -> Option<Serial> {
    Identity::load(dir, OPERATOR).ok()?.serial()
}

fn row(operator: &OperatorStatus, own: Option<Serial>) -> Vec<String> {
    let state = match (operator.revoked, own == Some(operator.serial)) {
        (true, _) => "revoked",
        (false, true) => "good, in this folder",
        (false, false) => "good",
    };
    let expires = at(operator.expires_unix_secs);
    let role = operator.role.to_string();
    vec![operator.serial.to_string(), operator.name.clone(), role, expires, state.to_owned()]
}
