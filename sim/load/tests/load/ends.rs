//! Loads that end before there is no more work.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    assert!((2..50).contains(&report.counted.versions()));
    assert!(stage.show(task).await.version >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_in_the_end_costs_no_report() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 2).await;
    succeeded(&stage.load("--devices 2 --secs 1", Some(&tokens)).await.0);

    // The report has no place: it is printed all the same.
    fs::create_dir(stage.path("taken.json")).unwrap();
    let output = ended(stage.command("--devices 2 --secs 1", "taken.json").spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("taken.json"), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("requests ") && text.contains("until its time was over"), "{text}");

    // What a device remembers has none.
    let before = stage.answered().await;
    let running = stage.command("--devices 2 --secs 4 --ramp-secs 1", "kept.json").spawn().unwrap();
    let asked = Instant::now();
    while stage.answered().await == before {
        assert!(asked.elapsed() < LONG, "no load begins");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let memory = stage.path("load/devices/000001/memory.json");
    fs::remove_file(&memory).unwrap();
    fs::create_dir(&memory).unwrap();
    let output = ended(running).await;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("what 1 of 2 devices remember is not kept") && said.contains("memory.json"),
        "{said}"
    );
    assert_eq!(stage.report("kept.json").unwrap().processes[0].ended, Ended::Time);
    assert!(String::from_utf8(output.stdout).unwrap().contains("requests "));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_cannot_be_played_and_a_beginning_that_was_missed_are_in_the_report() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 2).await;
    let begins = |ahead: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        format!("--devices 2 --shape herd --secs 1 --begin-at {}", now + ahead)
    };
    // Whole seconds are over when it comes to begin: it says so.
    let (output, report) = stage.load(&begins(0), Some(&tokens)).await;
    succeeded(&output);
    let generator = report.unwrap().processes.remove(0).generator;
    assert!(generator.begun_late_millis > 0, "{generator:?}");
    assert!(stderr(&output).contains("the load was to begin "), "{}", stderr(&output));

    // Their keys are gone when the load begins.
    let before = stage.answered().await;
    let running = stage.command(&begins(4), "broken.json").spawn().unwrap();
    let asked = Instant::now();
    while stage.answered().await == before {
        assert!(asked.elapsed() < LONG, "nobody looks at the coordinator");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for device in ["000000", "000001"] {
        let key = stage.path(&format!("load/devices/{device}/keys/tls.key"));
        fs::remove_file(&key).unwrap();
        fs::create_dir(&key).unwrap();
    }
    let output = ended(running).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("none of the devices could be played"), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let report = stage.report("broken.json").unwrap();
    assert_eq!((report.counted.broken.count, report.processes[0].generator.broken), (2, 2));
    assert_eq!(report.processes[0].ended, Ended::NoDevice);
    for words in [
        "devices that could not be played",
        "tls.key",
        "THE GENERATOR WAS THE LIMIT",
        "it could not play 2 devices",
        "until none of its devices could be played",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
