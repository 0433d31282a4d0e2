//! What a coordinator takes that is in this process, on loopback.

use super::stage::{Stage, succeeded};

/// Prints what came of 200 devices at once, and of the same at a rate.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of some minutes"]
async fn two_hundred_devices_at_once_and_at_a_rate() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 200).await;
    stage.task(200, 2).await;
    let (output, report) = stage.load("--devices 200 --shape herd --secs 100", Some(&tokens)).await;
    println!("{}\n", succeeded(&output));
    let asked = report.unwrap().counted.count_of("check-in");
    assert!(asked >= 200, "{asked}");
    // Without work, check-ins are held.
    let (output, _) = stage.load("--devices 200 --shape rate --rate 8 --secs 40", None).await;
    println!("{}\n", succeeded(&output));
    // A task whose cohort is all of the devices that come in some seconds.
    stage.task(40, 50).await;
    let (output, _) = stage.load("--devices 200 --shape rate --rate 8 --secs 60", None).await;
    println!("{}", succeeded(&output));
}
