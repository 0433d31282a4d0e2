//! Loads that end before there is no more work.

use std::time::{Duration, Instant};

use nightshift_load::report::Ended;

use super::stage::{LONG, Stage, ended, stderr, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_load_with_the_report_of_what_there_is() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 4).await;
    // A version needs more devices than there are.
    let task = stage.task(6, 1).await;
    let mut command = stage.command("--devices 4 --shape herd --secs 3600", "report.json");
    let running = command.arg("--token-file").arg(&tokens).spawn().unwrap();
    let asked = Instant::now();
    while stage.show(task).await.round.is_none() {
        assert!(asked.elapsed() < LONG, "no device joined");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let told = Instant::now();
    let output = ended(running).await;
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted: the report is of what there was"), "{}", stderr(&output));
    let report = stage.report("report.json").unwrap();
    assert_eq!(report.processes[0].ended, Ended::Interrupted);
    assert!(report.counted.count_of("check-in") >= 4);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("until it was interrupted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_ends_when_its_time_is_over_or_there_are_enough_versions() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 4).await;
    let (output, report) = stage.load("--devices 4 --shape herd --secs 2", Some(&tokens)).await;
    succeeded(&output);
    let process = report.unwrap().processes.remove(0);
    assert_eq!(process.ended, Ended::Time);
    assert!((2_000..5_000).contains(&process.lasted_millis), "{}", process.lasted_millis);

    let task = stage.task(4, 50).await;
    let (output, report) = stage.load("--devices 4 --shape herd --secs 100 --versions 2", None).await;
    succeeded(&output);
    let report = report.unwrap();
    assert_eq!(report.processes[0].ended, Ended::Versions);
    assert!((2..50).contains(&report.counted.published()));
    assert!(stage.show(task).await.version >= 2);
}
