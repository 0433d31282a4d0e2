//! `nightshift up`: a coordinator for trying things out, with everything in one folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use coordinator::cli::{CliError, start, until_stopped};
use coordinator::config::Config;
use coordinator::server::OURS;
use proto::files::{self, Audience, FileError};
use serde::Serialize;
use shell::cli::note;

use crate::base_source;
use crate::output::{Output, print};

pub(super) const CONFIG_FILE: &str = "coordinator.toml";
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7001);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7002);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where devices connect; 127.0.0.1:7001 in a new folder.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where operators connect; 127.0.0.1:7002 in a new folder.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// A base that devices which lack it may fetch from here, beside those of the configuration; may be repeated.
    #[arg(long, value_name = "DIR|FILE.gguf|hf:OWNER/NAME")]
    serve_base: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// What the running coordinator says of itself.
#[derive(Debug, Serialize)]
struct Running {
    dir: PathBuf,
    config: PathBuf,
    device_address: SocketAddr,
    admin_address: SocketAddr,
}

pub(super) async fn up(dir: &Path, arguments: Arguments) -> Result<(), CliError> {
    let disk = |error: FileError| CliError::Store(error.to_string());
    let dir = std::path::absolute(dir).map_err(|error| CliError::Store(error.to_string()))?;
    let path = dir.join(CONFIG_FILE);
    if !path.exists() {
        // The state folder to be: nothing is written where it cannot be.
        if let Some(closed) = files::own_folder(&dir, &OURS).map_err(disk)? {
            note(&format!("warning: {closed}"));
        }
        let listen = arguments.listen.unwrap_or(LISTEN);
        let admin_listen = arguments.admin_listen.unwrap_or(ADMIN_LISTEN);
        let text = new_config(&dir, listen, admin_listen)?;
        files::write(&path, text.as_bytes(), Audience::Anyone).map_err(disk)?;
        note(&format!("wrote {}", path.display()));
    }
    let mut config = Config::load(&path).map_err(CliError::input)?;
    for base in &arguments.serve_base {
        config.bases.push(base_source::resolve(base).await?);
    }
    for (flag, key, wanted, found) in [
        ("--listen", "listen", arguments.listen, config.listen),
        ("--admin-listen", "admin_listen", arguments.admin_listen, config.admin_listen),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let path = path.display();
            return Err(CliError::Input(format!(
                "{flag} {wanted} is not what {path} says: `{key} = \"{found}\"`; change the file, or leave \
                 {flag} out"
            )));
        }
    }
    let (coordinator, stop) = start(config, &path)?;
    let (device_address, admin_address) = coordinator.addresses();
    let running = Running { dir, config: path, device_address, admin_address };
    print(arguments.output.format, "nightshift.up/1", &running, next_steps)?;
    until_stopped(coordinator, stop).await
}

fn new_config(dir: &Path, listen: SocketAddr, admin_listen: SocketAddr) -> Result<String, CliError> {
    let dir = dir.to_str().ok_or_else(|| {
        CliError::Input(format!("{} is not UTF-8; use another folder with `--dir`", dir.display()))
    })?;
    let quoted = toml::Value::String(dir.to_owned());
    Ok(format!(
        "# A development coordinator: every key is explained in deploy/coordinator.toml.\n\
         listen = \"{listen}\"\nadmin_listen = \"{admin_listen}\"\nstate_dir = {quoted}\n"
    ))
}

fn next_steps(running: &Running) -> String {
    let dir = running.dir.display();
    format!(
        "the coordinator runs; stop it with ctrl-c. In another terminal:\n  \
         nightshift --dir {dir} device token --label my-laptop      a token for one device\n  \
         nightshift --dir {dir} task create --base <model folder>   a task for the devices\n  \
         nightshift --dir {dir} task watch <task>                   its versions as they come"
    )
}
