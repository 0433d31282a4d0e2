//! From the operator's folder to a connection, and from a word to a task.

use std::path::Path;

use coordinator::cli::CliError;
use coordinator::pki::Identity;
use coordinator::server::{ADMIN_ADDRESS_FILE, OPERATOR};
use proto::admin::{AdminReply, AdminRequest, TaskStatus};
use proto::files;

use tonic::transport::Channel;

use crate::admin_channel;
use crate::client::{AdminClient, CallError};

/// Connects with the certificate and the address in `dir`.
pub(crate) async fn connect(dir: &Path) -> Result<AdminClient, CliError> {
    Ok(AdminClient::new(channel(dir).await?))
}

/// The connection alone.
pub(crate) async fn channel(dir: &Path) -> Result<Channel, CliError> {
    let absent = |error: &dyn std::fmt::Display| {
        let dir = dir.display();
        CliError::Input(format!(
            "{error}; the folder {dir} must hold {OPERATOR}.pem, {OPERATOR}.key and {ADMIN_ADDRESS_FILE} of a \
             coordinator: run `nightshift up --dir {dir}` or name the right folder with `--dir`"
        ))
    };
    let address = files::read(&dir.join(ADMIN_ADDRESS_FILE)).map_err(|error| absent(&error))?;
    let identity = Identity::load(dir, OPERATOR).map_err(|error| absent(&error))?;
    let address = String::from_utf8_lossy(&address);
    Ok(admin_channel::connect(address.trim(), &identity).await.map_err(CallError::from)?)
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
