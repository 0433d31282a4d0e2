//! `nightshift up`: a coordinator for trying things out, with everything in one folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use coordinator::address;
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
    /// Where devices connect; 127.0.0.1:7001 in a new folder. With port 0 the system chooses one, which the folder keeps.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address::listening)]
    listen: Option<SocketAddr>,
    /// Where operators connect; 127.0.0.1:7002 in a new folder. With port 0 the system chooses one, which the folder keeps.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address::listening)]
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
    let is_new = !path.exists();
    let mut config = if is_new {
        // The state folder to be: nothing is written where it cannot be.
        if let Some(closed) = files::own_folder(&dir, &OURS).map_err(disk)? {
            note(&format!("warning: {closed}"));
        }
        let listen = arguments.listen.unwrap_or(LISTEN);
        let admin_listen = arguments.admin_listen.unwrap_or(ADMIN_LISTEN);
        Config::parse(&new_config(&dir, (listen, admin_listen))?, &path).map_err(CliError::input)?
    } else {
        Config::load(&path).map_err(CliError::input)?
    };
    for base in &arguments.serve_base {
        config.bases.push(base_source::resolve(base).await?);
    }
    for (flag, key, wanted, found) in [
        ("--listen", "listen", arguments.listen, config.listen),
        ("--admin-listen", "admin_listen", arguments.admin_listen, config.admin_listen),
    ] {
        // Any port is the one that is kept.
        let is_any = |wanted: &SocketAddr| wanted.port() == 0 && wanted.ip() == found.ip();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found && !is_any(wanted)) {
            let path = path.display();
            return Err(CliError::Input(format!(
                "{flag} {wanted} is not what {path} says: `{key} = \"{found}\"`; change the file, or leave \
                 {flag} out"
            )));
        }
    }
    let (coordinator, stop) = start(config, &path).map_err(|error| match error {
        // There is no file to change.
        CliError::Network(why) if is_new => CliError::Network(format!(
            "{why}; nothing was kept: say another one with --listen or --admin-listen"
        )),
        other @ (CliError::Network(_)
        | CliError::Internal(_)
        | CliError::Input(_)
        | CliError::Store(_)
        | CliError::Refused(_)
        | CliError::Ended(_)) => other,
    })?;
    let (device_address, admin_address) = coordinator.addresses();
    if is_new {
        // Once it listens: what cannot be used is not kept for the next time.
        let text = new_config(&dir, (device_address, admin_address))?;
        files::write(&path, text.as_bytes(), Audience::Anyone).map_err(disk)?;
        note(&format!("wrote {}", path.display()));
    }
    let running = Running { dir, config: path, device_address, admin_address };
    print(arguments.output.format, "nightshift.up/1", &running, next_steps)?;
    until_stopped(coordinator, stop).await
}

fn new_config(dir: &Path, (listen, admin_listen): (SocketAddr, SocketAddr)) -> Result<String, CliError> {
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
