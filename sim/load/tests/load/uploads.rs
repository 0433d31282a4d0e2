//! What masked inputs cost a coordinator that is in this process, on loopback, and how long whole rounds take: the devices are in
//! another process.
//!
//! ```text
//! cargo test --release -p nightshift-load --test load uploads -- --ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::env::VarError;
use std::fs;
use std::time::{Duration, Instant};

use proto::plan::{Mode, Plan};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::stage::{Stage, succeeded};

const DEVICES: u32 = 12;

/// Numbers of an update.
const NUMBERS: u32 = 4_000_000;

/// How often it is looked at what came.
const TICK: Duration = Duration::from_millis(50);

/// A tick in which more came is one of masked inputs: nothing else is as long.
const MANY_BYTES: u64 = 2 << 20;

/// Seconds that this process has had of a processor.
fn processor_secs() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<f64> = rest.split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
    ticks.iter().sum::<f64>() / 100.0
}

/// A task without noise, of all of so many devices with so many numbers each.
fn plan(devices: u32, numbers: u32, versions: u32) -> Plan {
    let mut plan = Plan::example();
    (plan.privacy.mode, plan.privacy.participations) = (Mode::Off, 1000);
    plan.adapter.modules[0].outputs = numbers;
    plan.privacy.scale = 16_384.0;
    (plan.round.versions, plan.round.cohort, plan.round.report_goal) = (versions, devices, devices);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, 60_000);
    plan
}

/// Prints how many bytes of masked inputs come in a second, and in a second of this process's processor time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn masked_inputs_over_tls() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", DEVICES as usize).await;
    let plan = plan(DEVICES, NUMBERS, 2);
    stage.driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap();

    let mut command = stage.command("--devices 12 --shape herd --secs 100 --versions 2", "report.json");
    let child = command.arg("--token-file").arg(&tokens).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (Instant::now(), processor_secs(), stage.received().await);
    let (mut wall, mut processor, mut bytes) = (0.0, 0.0, 0);
    let (mut in_all, began) = (0, (before.1, before.2));
    while !ended.is_finished() {
        ticks.tick().await;
        let now = (Instant::now(), processor_secs(), stage.received().await);
        let came = now.2 - before.2;
        if came > MANY_BYTES {
            wall += (now.0 - before.0).as_secs_f64();
            processor += now.1 - before.1;
            bytes += came;
        }
        in_all = now.2 - began.1;
        before = now;
    }
    println!("{}", succeeded(&ended.await.unwrap()));
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{:.0} MB of {:.0} came in {wall:.2} s: {:.0} MB/s; {:.0} MB a second of this process's processor time",
        mb(bytes),
        mb(in_all),
        mb(bytes) / wall,
        mb(bytes) / processor
    );
    println!("{:.2} s of processor time in all", before.1 - began.0);
    assert!(bytes > u64::from(NUMBERS) * u64::from(DEVICES), "{bytes}");
}

/// A number that the environment says, or this one.
fn number(variable: &str, usual: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")),
        Err(VarError::NotPresent) => usual,
        Err(error) => panic!("{variable}: {error}"),
    }
}

/// Prints, as one line of JSON, how long whole rounds take over TLS, by the steps that the coordinator measures, and how long from
/// one version to the next: with the assignment, its model and its plan, and without any training.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn rounds_over_tls() {
    let (devices, numbers) = (number("NIGHTSHIFT_DEVICES", 10), number("NIGHTSHIFT_COORDINATES", 1_000_000));
    let versions = number("NIGHTSHIFT_ROUNDS", 7);
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", devices as usize).await;
    let plan = plan(devices, numbers, versions);
    let task = stage.driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task;
    let options = format!("--devices {devices} --shape herd --secs 300 --versions {versions}");
    let (output, _) = stage.load(&options, Some(&tokens)).await;
    succeeded(&output);
    let status = stage.until_complete(task).await;
    let times: Vec<u64> = status.versions.iter().map(|version| version.committed_unix_millis).collect();
    let mut between: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1000.0).collect();
    between.sort_by(f64::total_cmp);
    let steps = stage.steps().await;
    let round: f64 = steps.values().sum::<f64>() / f64::from(versions);
    let steps: BTreeMap<_, _> =
        steps.into_iter().map(|(step, secs)| (step, secs / f64::from(versions))).collect();
    let found = json!({
        "devices": devices,
        "coordinates": numbers,
        "rounds": versions,
        "mean_round_secs": round,
        "mean_step_secs": steps,
        "median_secs_between_versions": between[between.len() / 2],
    });
    println!("{found}");
    assert!(round > 0.0 && between.len() + 1 == versions as usize, "{found}");
}
