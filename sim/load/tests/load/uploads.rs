//! What masked inputs cost a coordinator that is in this process, on loopback: the devices are in another.
//!
//! ```text
//! cargo test --release -p nightshift-load --test load uploads -- --ignored --nocapture
//! ```

use std::fs;
use std::time::{Duration, Instant};

use proto::plan::{Mode, Plan};
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

/// Prints how many bytes of masked inputs come in a second, and in a second of this process's processor time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn masked_inputs_over_tls() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", DEVICES as usize).await;
    let mut plan = Plan::example();
    (plan.privacy.mode, plan.privacy.participations) = (Mode::Off, 1000);
    plan.adapter.modules[0].outputs = NUMBERS;
    plan.privacy.scale = 16_384.0;
    (plan.round.versions, plan.round.cohort, plan.round.report_goal) = (2, DEVICES, DEVICES);
    (plan.round.join_millis, plan.round.step_millis) = (60_000, 60_000);
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
