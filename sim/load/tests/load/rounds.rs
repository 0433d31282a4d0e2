//! Loads that make versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use coordinator::offline::ARTIFACTS;
use nightshift_load::latency::Latency;
use nightshift_load::report::{Ended, Report};
use nightshift_load::shape::Shape;
use proto::plan::vector_from_bytes;

use super::stage::{Stage, agree, ended, stderr, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_devices_make_two_versions_and_the_report_counts_what_the_coordinator_counted() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 50).await;
    let task = stage.task(50, 2).await;
    let options = "--devices 50 --ramp-secs 1 --secs 100 --step 0.0009765625";
    let (output, report) = stage.load(options, Some(&tokens)).await;
    let (text, report) = (succeeded(&output), report.unwrap());

    let status = stage.until_complete(task).await;
    assert_eq!(status.versions.len(), 2);
    // What each device did is known, so what came of all of them is: the sums were real.
    let adapter = stage.path("state").join(ARTIFACTS).join(status.adapter.to_string());
    let adapter = vector_from_bytes(&fs::read(adapter).unwrap()).unwrap();
    for number in adapter {
        assert!((number - 2.0 / 1024.0).abs() < 1.0 / 4096.0, "{number}");
    }

    agree(&report, &stage.answered().await);
    let counted = &report.counted;
    assert_eq!((counted.versions(), counted.unanswered_at_end, counted.complete), (2, 0, 50));
    assert_eq!((counted.installed[&task].get(&2), counted.trainings), (Some(&50), 100));
    assert!(counted.failures.is_empty() && counted.declines.is_empty(), "{:?}", counted.failures);
    let survivors: u64 = status.versions.iter().map(|version| u64::from(version.survivors)).sum();
    assert_eq!(counted.rounds.values().map(|round| round.counted).sum::<u64>(), survivors);
    // What was asked before the load is counted apart, and is in no rate.
    let before = |request: &str| counted.before[request].values().map(Latency::count).sum::<u64>();
    assert_eq!((counted.count_of("enroll"), before("enroll"), before("check-in")), (0, 50, 1));
    assert_eq!((report.processes[0].enrolled, counted.arrivals), (50, 50));
    let answered = counted.requests.values().flat_map(|answers| answers.values()).map(Latency::count);
    let (answered, rates) = (answered.sum::<u64>() as f64, &report.rates);
    assert!((rates.requests_per_sec * rates.secs - answered).abs() < 0.5, "{answered}: {rates:?}");
    let check_ins = counted.count_of("check-in") as f64;
    assert!((rates.check_ins_per_sec * rates.secs - check_ins).abs() < 0.5, "{check_ins}: {rates:?}");
    let began = report.processes[0].began_unix_millis / 1000;
    assert!(counted.seconds.keys().all(|second| *second >= began), "{:?}", counted.seconds);
    assert_eq!(report.processes[0].ended, Ended::NoMoreWork);
    assert!(counted.sent_bytes > 50_000 && counted.received_bytes > counted.sent_bytes);
    let seconds: u64 = counted.seconds.values().map(|second| second[1]).sum();
    assert_eq!(seconds, counted.answered_in_all());
    for words in [
        "check-ins ",
        "share keys *",
        "versions ",
        "2 made",
        "published",
        "shard 0/1: 50 devices",
        "50  enroll: enrolled",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_two_rounds_each_are_counted_as_versions_and_the_load_ends_by_them() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 8).await;
    let task = stage.task_of_rounds((2, 4), 50).await;
    let options = "--devices 8 --shape herd --secs 100 --versions 2";
    let (output, report) = stage.load(options, Some(&tokens)).await;
    let (text, report) = (succeeded(&output), report.unwrap());
    assert_eq!(report.processes[0].ended, Ended::Versions, "{text}");
    let counted = &report.counted;
    let (made, rounds) = (counted.versions(), counted.ended_rounds());
    // The coordinator has made them when the load ends by them, and each took both of its rounds.
    let there = u64::from(stage.show(task).await.version);
    assert!((2..=there).contains(&made), "{made} of {there}: {:?}", counted.rounds);
    assert!(rounds >= 2 * made && rounds <= 2 * there, "{rounds}, {made} of {there}");
    let rates = &report.rates;
    assert!((rates.versions_per_hour * rates.secs / 3600.0 - made as f64).abs() < 1e-6, "{rates:?}");
    agree(&report, &stage.answered().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_comes_at_once_and_devices_of_an_earlier_run_need_no_token() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 20).await;
    let task = stage.task(20, 1).await;
    let herd = "--devices 20 --shape herd --secs 100";
    let (output, first) = stage.load(herd, Some(&tokens)).await;
    succeeded(&output);
    let first = first.unwrap();
    assert_eq!((first.load.shape, first.processes[0].enrolled), (Shape::Herd, 20));
    assert_eq!(stage.until_complete(task).await.versions.len(), 1);

    let next = stage.task(20, 2).await;
    let (output, second) = stage.load(herd, None).await;
    succeeded(&output);
    let second = second.unwrap();
    assert_eq!(stage.until_complete(next).await.versions.len(), 2);
    assert_eq!((second.processes[0].enrolled, second.counted.before.contains_key("enroll")), (0, false));
    assert_eq!((second.counted.versions(), second.counted.began_anew), (2, 0));
    // The keys of a device are as safe as those of any other.
    let mode = |path: &str| fs::metadata(stage.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("load"), 0o700);
    for file in ["keys/tls.key", "keys/identity.seed", "enrolled.json", "memory.json"] {
        assert_eq!(mode(&format!("load/devices/000019/{file}")), 0o600, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_make_one_round_together_and_become_one_report() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 12).await;
    // No shard has enough devices for it alone.
    let task = stage.task(12, 2).await;
    let mut running = Vec::new();
    for shard in 0..3 {
        let mut command =
            stage.command("--devices 12 --ramp-secs 1 --secs 100 --shards 3", &format!("{shard}.json"));
        command.arg("--token-file").arg(&tokens).env("JOB_COMPLETION_INDEX", shard.to_string());
        running.push(command.spawn().unwrap());
    }
    for child in running {
        succeeded(&ended(child).await);
    }
    assert_eq!(stage.until_complete(task).await.versions.len(), 2);
    let files: Vec<_> = (0..3).map(|shard| stage.path(&format!("{shard}.json"))).collect();
    let merge = |files: &[std::path::PathBuf]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift-sim-load"));
        command.args(["merge", "--format", "json"]).args(files).output().unwrap()
    };
    let merged: Report = serde_json::from_str(&succeeded(&merge(&files))).unwrap();
    agree(&merged, &stage.answered().await);
    let (counted, rates) = (&merged.counted, &merged.rates);
    // What one shard alone saw of a round is not another round.
    assert_eq!((counted.versions(), counted.complete), (2, 12), "{:?}", counted.rounds);
    let published = counted.rounds.values().filter(|round| round.outcome.as_deref() == Some("published"));
    let published: Vec<_> = published.map(|round| (round.offered, round.counted)).collect();
    assert_eq!(published, [(12, 12), (12, 12)], "{:?}", counted.rounds);
    assert!(rates.missing_shards.is_empty());
    let devices: Vec<u32> = merged.processes.iter().map(|process| process.devices).collect();
    assert_eq!(devices, [4, 4, 4]);
    // In parts and out of order it is the same.
    let parts: Report =
        serde_json::from_str(&succeeded(&merge(&[files[2].clone(), files[0].clone()]))).unwrap();
    assert_eq!(parts.rates.missing_shards, [1]);
    let one: Report = stage.report("1.json").unwrap();
    assert_eq!(Report::merge([parts, one]).unwrap().counted.requests, counted.requests);
    let twice = merge(&[files[1].clone(), files[1].clone()]);
    assert_eq!(twice.status.code(), Some(3));
    assert!(stderr(&twice).contains("shard 1/3 is there twice"), "{}", stderr(&twice));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_goes_away_and_comes_back_finds_its_devices_again() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 8).await;
    let task = stage.task(8, 4).await;
    let options = "--devices 8 --shape herd --secs 110 --train-secs 1";
    let mut command = stage.command(options, "report.json");
    let running = command.arg("--token-file").arg(&tokens).spawn().unwrap();
    stage.until_version(task, 1).await;
    let stage = stage.again(Duration::from_secs(2)).await;
    let output = ended(running).await;
    let text = succeeded(&output);
    let report = stage.report("report.json").unwrap();
    assert_eq!(stage.until_complete(task).await.versions.len(), 4);
    let counted = &report.counted;
    // What was asked meanwhile got no answer, and it is said why.
    let whys: Vec<&str> = counted.failures.values().flatten().map(|(why, _)| why.as_str()).collect();
    assert!(whys.contains(&"connection refused"), "{whys:?}");
    assert!(text.contains("connection refused (such as: "), "{text}");
    assert_eq!((counted.complete, report.processes[0].ended), (8, Ended::NoMoreWork));
    assert!(counted.versions() >= 3, "{:?}", counted.outcomes());
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_come_at_their_rate_whatever_becomes_of_those_before() {
    let stage = Stage::new().await;
    let tokens = stage.tokens("tokens", 60).await;
    let (output, report) = stage.load("--devices 60 --shape rate --rate 10 --secs 5", Some(&tokens)).await;
    let text = succeeded(&output);
    let report = report.unwrap();
    let (counted, generator) = (&report.counted, &report.processes[0].generator);
    assert_eq!(report.processes[0].ended, Ended::Time);
    assert!((45..=51).contains(&generator.arrivals), "{}", generator.arrivals);
    assert_eq!(counted.arrivals_missed, 0, "{text}");
    // Without any task a visit is one check-in, which the coordinator holds; who arrived in the last moment may not
    // have asked.
    let asked = counted.count_of("check-in") + counted.unanswered_at_end + counted.failed_in_all();
    assert!((generator.arrivals - 1..=generator.arrivals).contains(&asked), "{asked}: {text}");
    let answered = stage.answered().await;
    let came: u64 =
        answered.iter().filter(|((request, _), _)| request == "check-in").map(|(_, count)| count).sum();
    assert!(came + 5 >= asked, "{came} of {asked}: {answered:?}");
    agree(&report, &answered);

    // Those for whom no device is free are counted, and it is said.
    let (output, report) = stage.load("--devices 4 --shape rate --rate 10 --secs 3", None).await;
    let (text, report) = (succeeded(&output), report.unwrap());
    let generator = &report.processes[0].generator;
    assert_eq!(report.counted.arrivals_missed, generator.arrivals - 4);
    assert!(
        counted.sent_bytes > 0 && report.counted.sent_bytes > 0,
        "bytes of visits that were open at the end"
    );
    assert!(text.contains("THE GENERATOR WAS THE LIMIT"), "{text}");
    assert!(text.contains("arrivals all of its devices were still busy"), "{text}");
}
