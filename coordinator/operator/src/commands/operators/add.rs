//! `nightshift operator add`: a folder with which somebody else operates.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coordinator::cli::CliError;
use coordinator::pki::Identity;
use coordinator::server::{ADMIN_ADDRESS_FILE, OPERATOR};
use proto::admin::{AdminReply, AdminRequest};
use proto::files::{self, Audience};
use proto::role::Role;
use serde_json::json;

use crate::client::CallError;
use crate::connection::connect;
use crate::output::{Output, print};

/// A role, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleOption {
    /// Reads: tasks, versions, devices, health
    Viewer,
    /// That, and runs tasks, lets devices in and shuts them out
    Operator,
    /// That, and makes and revokes operators, and reads the audit log
    Admin,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct Arguments {
    /// Their name: 1 to 64 of a-z, 0-9, '.', '_', '-'; nobody else's.
    name: String,
    /// What they may do.
    #[arg(long, value_enum)]
    role: RoleOption,
    /// The folder that is made for them: the key, the certificate, and where the coordinator is. They name it with `--dir`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(dir: &Path, arguments: Arguments) -> Result<(), CliError> {
    let mut client = connect(dir).await?;
    let Arguments { name, role, out, output } = arguments;
    let role = match role {
        RoleOption::Viewer => Role::Viewer,
        RoleOption::Operator => Role::Operator,
        RoleOption::Admin => Role::Admin,
    };
    let file = |error: files::FileError| CliError::Store(error.to_string());
    // Before anything is asked for: a key that is written over is a certificate that nobody has.
    if Identity::load(&out, OPERATOR).is_ok() || out.join(format!("{OPERATOR}.key")).exists() {
        let out = out.display();
        return Err(CliError::Input(format!(
            "{out} holds an operator's key already; name another folder with `--out`"
        )));
    }
    let address = files::read(&dir.join(ADMIN_ADDRESS_FILE)).map_err(file)?;
    // Made before, so that a place that cannot be written to makes nobody an operator.
    let made = Made::folder(&out).map_err(file)?;
    let (key, certificate_request_pem) = Identity::request().map_err(CliError::internal)?;
    let request = AdminRequest::AddOperator { name: name.clone(), role, certificate_request_pem };
    let AdminReply::Certificate(pem) = client.call(request).await? else {
        return Err(CallError::Unexpected.into());
    };
    made.keep();
    let identity = key.with_chain(&pem).map_err(CliError::input)?;
    let serial = identity.serial();
    let unsaved = |error: &dyn std::fmt::Display| {
        let serial = serial.map(|serial| serial.to_string()).unwrap_or_default();
        CliError::Store(format!(
            "{error}; `{name}` operates already, by a key that is lost: run `nightshift operator revoke {serial}`, then again"
        ))
    };
    identity.save(&out, OPERATOR).map_err(|error| unsaved(&error))?;
    files::write(&out.join(ADMIN_ADDRESS_FILE), &address, Audience::Anyone)
        .map_err(|error| unsaved(&error))?;
    print(
        output.format,
        "nightshift.operator-added/1",
        &json!({ "name": name, "role": role, "serial": serial, "folder": out }),
        |_| {
            format!(
                "{} holds the key and the certificate of `{name}`, who is {role}; hand it over by a way that nobody else reads",
                out.display()
            )
        },
    )
}

/// Folders that were made, and are removed again where nothing comes into them.
struct Made(Vec<PathBuf>);

impl Made {
    fn folder(path: &Path) -> Result<Self, files::FileError> {
        // The innermost first, as they are removed.
        let is_new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let new = path.ancestors().take_while(is_new).map(Path::to_owned).collect();
        files::create_folder(path)?;
        Ok(Self(new))
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that somebody has put something into stays.
            drop(fs::remove_dir(folder));
        }
    }
}
