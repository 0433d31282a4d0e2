//! `nightshift operator rotate`: another key and certificate in the folder.

use std::path::Path;
use std::time::Duration;

use coordinator::cli::CliError;
use coordinator::pki::{Identity, IdentityLock};
use coordinator::server::OPERATOR;
use proto::admin::{AdminReply, AdminRequest};
use serde_json::json;
use shell::cli::Format;
use tokio::time::{Instant, sleep};

use super::revoke;
use crate::client::{AdminClient, CallError};
use crate::connection::Folder;
use crate::output::print;

/// How long another rotation in the same folder is waited for: it is a few calls.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(dir: &Path, format: Format) -> Result<(), CliError> {
    // So that a folder that is none is told before anything is written into it.
    Folder::read(dir)?;
    let _lock = lock(dir).await?;
    // What another rotation has left.
    let folder = Folder::read(dir)?;
    let old = folder.serial();
    let mut client = AdminClient::new(folder.connect().await?);
    let (key, certificate_request_pem) = Identity::request().map_err(CliError::internal)?;
    let reply = client.call(AdminRequest::SignOperator { certificate_request_pem }).await?;
    let AdminReply::Certificate(pem) = reply else { return Err(CallError::Unexpected.into()) };
    let identity = key.with_chain(&pem).map_err(CliError::input)?;
    identity.save(dir, OPERATOR).map_err(|error| CliError::Store(error.to_string()))?;
    // By the new certificate: a revocation that cannot be asked for leaves one that works in the folder.
    let mut client = AdminClient::new(Folder::read(dir)?.connect().await?);
    if let Some(old) = old {
        revoke(&mut client, old).await?;
    }
    let new = identity.serial();
    print(format, "nightshift.rotated/1", &json!({ "serial": new, "revoked": old }), |_| {
        format!("{} holds a new key and certificate; the old one is worthless", dir.display())
    })
}

/// Keeps everybody else from exchanging the folder's certificate.
async fn lock(dir: &Path) -> Result<IdentityLock, CliError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let taken = IdentityLock::take(dir, OPERATOR).map_err(|error| CliError::Store(error.to_string()))?;
        match taken {
            Some(lock) => return Ok(lock),
            None if Instant::now() < until => sleep(LOOK).await,
            None => {
                return Err(CliError::Store(format!(
                    "another `nightshift operator rotate` has been under way in {} for {} s; wait for it to end, or end it",
                    dir.display(),
                    PATIENCE.as_secs()
                )));
            }
        }
    }
}
