//! A host program that lends its idle time: a notebook whose notes an adapter learns from.
//!
//! ```text
//! cargo run --release -p nightshift-client --example lend_idle_time -- FOLDER BASE NOTES [TOKEN-FILE]
//! ```
//!
//! FOLDER is the device's own, BASE a Hugging Face folder or a GGUF file, NOTES what the user wrote. With a token the
//! device enrolls first. It takes part in one round and ends.
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nightshift_client::engine::{Base, Engine};
use nightshift_client::session::conditions::{Condition, Conditions, Power, Reading, Snapshot};
use nightshift_client::session::policy::Policy;
use nightshift_client::text::ReadOptions;
use nightshift_client::{Device, DeviceMonitor, Finished, InProcess, Settings};
use tokio_util::sync::CancellationToken;

/// Says that the machine is free while the host program is.
#[derive(Debug)]
pub struct HostIsIdle;

impl DeviceMonitor for HostIsIdle {
    fn look(&self) -> Snapshot {
        // A real host asks its system. What it leaves out is unknown, and counts as a no.
        Snapshot {
            power: Reading::of(Power { external: true, battery_percent: Some(100.0) }, "the host"),
            idle: Reading::of(Duration::from_secs(600), "the host"),
            cool_celsius: Reading::of(40.0, "the host"),
            busy_percent: Reading::of(3.0, "the host"),
            power_saver: Reading::of(false, "the host"),
            ..Snapshot::default()
        }
    }
}

/// Takes part in one round, and says how it ended.
pub async fn lend(
    folder: &Path,
    base: &Path,
    notes: PathBuf,
    token: Option<&str>,
    policy: Policy,
) -> Result<Finished, Box<dyn Error>> {
    let device = Device::open(folder)?;
    if let Some(token) = token {
        device.enroll(&token.parse()?, None).await?;
    }
    let engine = Engine::new(Arc::new(Base::open(base)?));
    let trainer = InProcess::new(engine, vec![notes], ReadOptions::default())?;
    let settings = Settings {
        coordinator: None,
        policy,
        // Nobody can tell this host whether its network costs by volume: it takes it for free. It is idle when it says
        // so, and need not say it for a minute.
        conditions: Conditions { assume: HostIsIdle::assumed(), dwell_secs: 0, ..Conditions::default() },
        override_conditions: false,
        once: true,
    };
    Ok(device.run(trainer, HostIsIdle, settings, CancellationToken::new()).await?)
}

impl HostIsIdle {
    /// What this host takes for granted where it has nothing to ask.
    fn assumed() -> BTreeSet<Condition> {
        [Condition::Unmetered].into()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, base, notes, token @ ..] = arguments.as_slice() else {
        return Err("usage: lend_idle_time FOLDER BASE NOTES [TOKEN-FILE]".into());
    };
    let token = token.first().map(std::fs::read_to_string).transpose()?;
    let finished =
        lend(folder.as_ref(), base.as_ref(), notes.into(), token.as_deref(), Policy::default()).await?;
    println!("{finished}");
    Ok(())
}
