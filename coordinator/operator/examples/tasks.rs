//! An operator's script: which tasks there are and how far each has come, in a form of its own.
//!
//! ```text
//! cargo run --release -p nightshift-operator --example tasks -- STATE-DIR
//! ```
//!
//! STATE-DIR is the coordinator's, with the operator's certificate and the address in it.
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::error::Error;
use std::path::Path;

use nightshift_operator::client::{AdminClient, CallError};
use nightshift_operator::coordinator::pki::Identity;
use nightshift_operator::coordinator::server::{ADMIN_ADDRESS_FILE, OPERATOR};
use nightshift_operator::words::admin::{AdminReply, AdminRequest, TaskStatus};

/// All tasks, asked for as the operator of a coordinator on this machine.
pub async fn tasks(state_dir: &Path) -> Result<Vec<TaskStatus>, Box<dyn Error>> {
    let address = std::fs::read_to_string(state_dir.join(ADMIN_ADDRESS_FILE))?;
    let identity = Identity::load(state_dir, OPERATOR)?;
    let mut coordinator = AdminClient::connect(address.trim(), &identity).await?;
    let AdminReply::Tasks(tasks) = coordinator.call(AdminRequest::ListTasks).await? else {
        return Err(CallError::Unexpected.into());
    };
    Ok(tasks)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state_dir = std::env::args().nth(1).ok_or("usage: tasks STATE-DIR")?;
    for task in tasks(state_dir.as_ref()).await? {
        println!("{}: version {} of {}", task.name, task.version, task.versions_wanted);
    }
    Ok(())
}
