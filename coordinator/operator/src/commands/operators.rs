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
use crate::output::{Output, at, print, table};

mod add;

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
    let mut client = connect(dir).await?;
    match command {
        Command::Ls { output } => {
            let reply = client.call(AdminRequest::ListOperators).await?;
            let AdminReply::Operators(operators) = reply else { return Err(CallError::Unexpected.into()) };
            let own = own_serial(dir);
            print(output.format, "nightshift.operators/1", &json!({ "operators": operators }), |_| {
                let rows: Vec<_> = operators.iter().map(|operator| row(operator, own)).collect();
                table(&["SERIAL", "NAME", "ROLE", "EXPIRES", "STATE"], &rows)
            })
        }
        Command::Add(arguments) => add::run(dir, &mut client, arguments).await,
        Command::Revoke { serial, output } => {
            revoke(&mut client, serial).await?;
            print(output.format, "nightshift.revoked/1", &json!({ "revoked": serial }), |_| {
                format!("revoked {serial}")
            })
        }
        Command::Rotate { output } => {
            let old = own_serial(dir);
            let (key, certificate_request_pem) = Identity::request().map_err(CliError::internal)?;
            let reply = client.call(AdminRequest::SignOperator { certificate_request_pem }).await?;
            let AdminReply::Certificate(pem) = reply else { return Err(CallError::Unexpected.into()) };
            let identity = key.with_chain(&pem).map_err(CliError::input)?;
            identity.save(dir, OPERATOR).map_err(|error| CliError::Store(error.to_string()))?;
            // By the new certificate: a revocation that cannot be asked for leaves one that works in the folder.
            let mut client = connect(dir).await?;
            if let Some(old) = old {
                revoke(&mut client, old).await?;
            }
            let new = own_serial(dir);
            print(output.format, "nightshift.rotated/1", &json!({ "serial": new, "revoked": old }), |_| {
                format!("{} holds a new key and certificate; the old one is worthless", dir.display())
            })
        }
    }
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
