//! From the operator's folder to a connection, and from a word to a task.

use std::path::Path;

use coordinator::cli::CliError;
use coordinator::pki::Identity;
use coordinator::server::{ADMIN_ADDRESS_FILE, OPERATOR};
use proto::admin::{AdminReply, AdminRequest, TaskStatus};
use proto::files;
use proto::ids::{Digest, Serial};
use proto::shown::shown;
use tonic::transport::Channel;

use crate::admin_channel;
use crate::client::{AdminClient, CallError};

/// Whom an operator's folder says to connect to, and as whom.
pub(crate) struct Folder {
    address: String,
    identity: Identity,
}

impl Folder {
    /// Reads what is in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, CliError> {
        let absent = |error: &dyn std::fmt::Display| {
            let dir = dir.display();
            CliError::Input(format!(
                "{error}; the folder {dir} must hold {OPERATOR}.pem, {OPERATOR}.key and {ADMIN_ADDRESS_FILE} of a \
                 coordinator: run `nightshift up --dir {dir}` or name the right folder with `--dir`"
            ))
        };
        let address = files::read(&dir.join(ADMIN_ADDRESS_FILE)).map_err(|error| absent(&error))?;
        let identity = Identity::load(dir, OPERATOR).map_err(|error| absent(&error))?;
        if !identity.is_operators() {
            return Err(CliError::Input(format!(
                "{} is no operator's certificate: an admin makes one by `nightshift operator add`, and the coordinator's folder \
                 has one",
                dir.join(format!("{OPERATOR}.pem")).display()
            )));
        }
        let address = String::from_utf8_lossy(&address).trim().to_owned();
        if !is_dialed(&address) {
            return Err(CliError::Input(format!(
                "{}: `{}` is not HOST:PORT, such as coordinator.example:7444",
                dir.join(ADMIN_ADDRESS_FILE).display(),
                shown(&address)
            )));
        }
        Ok(Self { address, identity })
    }

    /// What makes it another one: the address and the certificate.
    pub(crate) fn digest(&self) -> Digest {
        let certificate: &[u8] = self.identity.chain().first().map_or(&[], |first| first);
        Digest::of(&[self.address.as_bytes(), b"\0", certificate].concat())
    }

    /// The number of the certificate.
    pub(crate) fn serial(&self) -> Option<Serial> {
        self.identity.serial()
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Channel, CliError> {
        Ok(admin_channel::connect(&self.address, &self.identity).await.map_err(CallError::from)?)
    }
}

/// Connects with the certificate and the address in `dir`.
pub(crate) async fn connect(dir: &Path) -> Result<AdminClient, CliError> {
    Ok(AdminClient::new(Folder::read(dir)?.connect().await?))
}

/// Whether it is a host and a port.
fn is_dialed(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        let is_plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && is_plain && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// All tasks.
pub(crate) async fn tasks(client: &mut AdminClient) -> Result<Vec<TaskStatus>, CliError> {
    let AdminReply::Tasks(tasks) = client.call(AdminRequest::ListTasks).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(tasks)
}

/// The task that a word means: its name in hex, the beginning of that, or its label. Of several with one label it is the one
/// that goes on: no two of these have the same.
pub(crate) async fn find_task(client: &mut AdminClient, word: &str) -> Result<TaskStatus, CliError> {
    let tasks = tasks(client).await?;
    let is_meant =
        |task: &TaskStatus| task.name == word || (word.len() >= 4 && task.task.to_string().starts_with(word));
    let mut found: Vec<TaskStatus> = tasks.into_iter().filter(is_meant).collect();
    let by_label = found.iter().all(|task| task.name == word);
    if by_label && found.iter().any(|task| !task.state.is_over()) {
        found.retain(|task| !task.state.is_over());
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(task), None) => Ok(task),
        (None, _) => {
            Err(CliError::Input(format!("no task is called `{word}`; `nightshift task ls` lists them")))
        }
        (Some(_), Some(_)) => Err(CliError::Input(format!(
            "more than one task is called `{word}`, and not just one of them goes on; use an id that `nightshift task ls` prints, or \
             the beginning of one"
        ))),
    }
}

/// The task in an answer.
pub(crate) fn task_in(reply: AdminReply) -> Result<TaskStatus, CliError> {
    let AdminReply::Task(task) = reply else { return Err(CallError::Unexpected.into()) };
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialed_has_a_host_and_a_port() {
        for address in ["localhost:7444", "[::1]:7444", "10.0.0.1:1"] {
            assert!(is_dialed(address), "{address}");
        }
        for address in ["", "localhost", "10.0.0.1", "::1", ":7444", "h:0", "h:70000", "::1:7444"] {
            assert!(!is_dialed(address), "{address}");
        }
    }
}
