//! Loads that are refused, and coordinators that refuse.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::stage::{Stage, ended, stderr, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_named_by_its_line_and_no_load_is_made() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 3).await;
    let text = fs::read_to_string(&tokens).unwrap();

    // One that is cut: nothing is asked of anybody.
    let (kept, cut) = text.trim_end().split_at(text.trim_end().len() - 5);
    let path = stage.path("cut");
    fs::write(&path, kept).unwrap();
    let (output, report) = stage.load("--devices 3", Some(&path)).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("cut, line 4: the bootstrap token is cut or mistyped"),
        "{}",
        stderr(&output)
    );
    assert!(report.is_none() && !stage.path("load").exists() && !cut.is_empty());

    // One that another device used.
    let used: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let twice = stage.path("twice");
    fs::write(&twice, format!("{}\n{}\n", used[0], used[0])).unwrap();
    let (output, report) = stage.load("--devices 2 --enroll-at-once 1", Some(&twice)).await;
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(words.contains("is not enrolled (") && words.contains("1 are enrolled and kept"), "{words}");
    assert!(words.contains("twice, line ") && !words.contains(used[0]), "{words}");
    assert!(report.is_none());

    // Fewer than there are devices.
    let (output, _) = stage.load("--devices 4", Some(&tokens)).await;
    assert_eq!(output.status.code(), Some(3));
    let words = stderr(&output);
    assert!(words.contains("device 3 is not enrolled and there is no token for it"), "{words}");
    assert!(words.contains("tokens holds 3 tokens") && words.contains("nobody enrolled"), "{words}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
    command.args(["--coordinator", &stage.device.to_string(), "--devices", "2", "--token", used[2], "--dir"]);
    let output = command.arg(stage.path("another")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("device 1 is not enrolled"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--token holds 1 token"), "{}", stderr(&output));
    // And nobody at all.
    let output = ended(stage.command("--devices 0", "none.json").spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("0 is not in 1..=20000"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_of_another_authority_is_named_as_another() {
    let (stage, other) = (Stage::new().await, Stage::new().await);
    let at_stage = |dir: &str, tokens: Option<&Path>| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
        command.args(["--coordinator", &stage.device.to_string(), "--devices", "9", "--secs", "1", "--dir"]);
        command.arg(other.path(dir));
        if let Some(tokens) = tokens {
            command.arg("--token-file").arg(tokens);
        }
        command.output().unwrap()
    };
    // Tokens of another coordinator than the one that is there.
    let tokens = other.tokens("tokens", 9).await;
    let output = at_stage("load", Some(&tokens));
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(words.contains("cannot enroll") && words.contains("0 are enrolled"), "{words}");
    assert!(words.contains("it is not the coordinator that the token is for"), "{words}");
    // Devices of another.
    succeeded(&other.load("--devices 9 --secs 1", Some(&tokens)).await.0);
    let output = at_stage("load", None);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(words.contains("it is not the coordinator with which this device enrolled"), "{words}");
    assert!(words.contains("with another --dir than "), "{words}");
    assert_eq!(stage.answered().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_not_there_is_said_before_any_load() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 1).await;
    succeeded(&stage.load("--devices 1 --secs 1", Some(&tokens)).await.0);
    // Nobody listens at that port: the coordinator of this test is elsewhere.
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
    command.args(["--coordinator", "127.0.0.1:1", "--devices", "1", "--dir"]).arg(stage.path("load"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("does not take the first device, and no load was made"),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains("--dir"), "{}", stderr(&output));
    // Devices that are to enroll first do not all try it, nor again and again.
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
    command.args(["--coordinator", "127.0.0.1:1", "--devices", "9", "--token-file"]);
    let tokens = stage.tokens("more", 9).await;
    let asked = Instant::now();
    let output = command.arg(tokens).arg("--dir").arg(stage.path("new")).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("the coordinator at 127.0.0.1:1 cannot be reached"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("0 are enrolled and kept"), "{}", stderr(&output));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_devices_than_descriptors_are_refused_with_the_numbers() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 1).await;
    let mut command = Command::new("sh");
    let limited = "ulimit -n 200; exec \"$0\" \"$@\"";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_nightshift-sim-load")]);
    command.args(["--coordinator", &stage.device.to_string(), "--devices", "300", "--dir"]);
    command.arg(stage.path("load")).arg("--token-file").arg(tokens);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(words.contains("300 devices of this process need 410 descriptors"), "{words}");
    assert!(words.contains("lets it have 200") && words.contains("devices would fit"), "{words}");
    assert!(!stage.path("load").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_full_shows_in_the_report() {
    let stage = Stage::of(|config| config.limits.connections = 6).await;
    let tokens = stage.tokens("tokens", 12).await;
    let options = "--devices 12 --shape herd --secs 6 --enroll-at-once 1";
    let (output, report) = stage.load(options, Some(&tokens)).await;
    let text = succeeded(&output);
    let report = report.unwrap();
    let counted = &report.counted;
    // Those for whom there is room ask, and are held.
    assert!(counted.count_of("check-in") + counted.unanswered_at_end >= 6, "{text}");
    // Those for whom there is no room are not lost from the count.
    assert!(counted.failed_in_all() >= 6, "{text}");
    assert!(text.contains("without an answer\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_play_the_same_devices() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 2).await;
    succeeded(&stage.load("--devices 2 --secs 1", Some(&tokens)).await.0);
    let first = stage.command("--devices 2 --secs 20", "first.json").spawn().unwrap();
    // Questions of the load before are counted late where their devices hung up.
    let answered = || async {
        let of_all = stage.answered().await;
        of_all.into_iter().filter(|((_, answer), _)| answer != "hung_up").collect::<Vec<_>>()
    };
    let before = answered().await;
    // It plays as soon as it asks.
    while answered().await == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (output, _) = stage.load("--devices 2 --secs 1", None).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("are played by another process"), "{}", stderr(&output));
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(ended(first).await.status.code(), Some(130));
}
