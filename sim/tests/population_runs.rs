//! Folders of populations' runs: what is in them, sweeps and their table, and runs that are stopped and go on.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a process of its own is waited for")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "says by name what was skipped")]

#[path = "population_runs/events.rs"]
mod events;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nightshift_sim::population::Report;
use serde_json::Value;
use tempfile::TempDir;

const SMALL: &str =
    "[population]\ndevices = 40\n[task]\ncohort = 8\ncoordinates = 50\n[faults]\ndrop_out_permille = 100\n";

/// A folder with scenario files, and the program.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
        command.args(words).current_dir(self.0.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What it prints, where all is well.
    fn prints(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says where it is refused with this code.
    fn refused(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All files below a folder, by name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn same(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(*bytes == other[name], "{} is not the same", name.display());
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Waits until a file has so many lines, and ends the program as its user does.
fn stop_at(mut command: Command, metrics: &Path, least: usize) -> Output {
    let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while lines(metrics) < least {
        assert!(begun.elapsed() < Duration::from_secs(300), "no version is made");
        std::thread::sleep(Duration::from_millis(2));
    }
    let told = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(told.success());
    running.wait_with_output().unwrap()
}

#[test]
fn a_run_that_was_stopped_and_goes_on_leaves_the_same_bytes() {
    let desk = Desk::new();
    let text =
        format!("{SMALL}[privacy]\nparticipations = 10000\n").replace("[faults]", "versions = 120\n[faults]");
    desk.file("night.toml", &text);
    let whole = desk.prints(&["population", "--scenario", "night.toml", "--out", "whole"]);
    assert!(whole.contains("trainings for each contribution"), "{whole}");

    let command = desk.command(&["population", "--scenario", "night.toml", "--out", "parts"]);
    let output = stop_at(command, &desk.path("parts/metrics.jsonl"), 2);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("of 120; `population --resume --out parts` goes on") && said.contains(" left\n"),
        "{said}"
    );
    let report: Report = serde_json::from_slice(&fs::read(desk.path("parts/summary.json")).unwrap()).unwrap();
    let done = report.versions.len();
    assert!(report.interrupted && (2..120).contains(&done), "{done}");
    let page = fs::read_to_string(desk.path("parts/report.html")).unwrap();
    assert!(page.contains(&format!("stopped by its user after {done} of 120 versions")));

    let resumed = desk.run(&["population", "--resume", "--out", "parts"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains(&format!("repeating the first {done} versions")));
    same(&desk.path("whole"), &desk.path("parts"));

    // Stopped while it is repeated: what was there is there yet, and it goes on.
    let command = desk.command(&["population", "--resume", "--out", "parts"]);
    let output = stop_where(command, |said| said.contains("version 2 of 120"));
    assert_eq!(output.0, Some(130), "{}", output.1);
    assert!(output.1.contains("of the versions that are repeated, and parts is as it was"), "{}", output.1);
    same(&desk.path("whole"), &desk.path("parts"));
}

/// Ends the program as its user does once it has said something, and gives its code and what it said.
fn stop_where(mut command: Command, is_said: impl Fn(&str) -> bool) -> (Option<i32>, String) {
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut said, mut is_told) = (String::new(), false);
    for line in BufReader::new(running.stderr.take().unwrap()).lines() {
        said.push_str(&line.unwrap());
        said.push('\n');
        if !is_told && is_said(&said) {
            let told = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
            is_told = told.success();
        }
    }
    assert!(is_told, "{said}");
    (running.wait().unwrap().code(), said)
}

/// A desk with a run of four versions in `out`.
fn four_versions() -> Desk {
    let desk = Desk::new();
    desk.file("four.toml", &SMALL.replace("cohort = 8", "cohort = 8\nversions = 4"));
    desk.prints(&["population", "--scenario", "four.toml", "--out", "out"]);
    desk
}

const AGAIN: [&str; 4] = ["population", "--resume", "--out", "out"];

impl Desk {
    /// Fails where going on with `out` is not refused with these words, twice, or touches anything in it.
    fn refuses_again(&self, code: i32, words: &str) {
        let before = files(&self.path("out"));
        for _ in 0..2 {
            let said = self.refused(&AGAIN, code);
            assert!(said.contains(words), "{said}");
            assert!(files(&self.path("out")) == before, "{words}: it is not left as it was");
        }
    }
}

#[test]
fn a_run_that_comes_to_something_else_is_refused_each_time_and_left_as_it_was() {
    let desk = four_versions();
    let metrics = desk.path("out/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    lines[1] = lines[1].replacen("\"survivors\":", "\"survivors\":1", 1);
    fs::write(&metrics, format!("{}\n", lines.join("\n"))).unwrap();
    desk.refuses_again(3, "version 2 is not the one that");
    // More than the run has.
    fs::write(&metrics, format!("{whole}{}\n", whole.lines().last().unwrap())).unwrap();
    desk.refuses_again(3, "metrics.jsonl has 5 lines, and the run has 4: it is left as it is");
    // A program that was killed left the half of a line, and no more.
    fs::write(&metrics, &whole[..whole.len() - 20]).unwrap();
    fs::remove_file(desk.path("out/summary.json")).unwrap();
    desk.prints(&AGAIN);
    assert_eq!(fs::read_to_string(&metrics).unwrap(), whole);
}

#[test]
fn what_does_not_say_of_what_a_run_is_does_not_go_on() {
    let desk = four_versions();
    let (scenario, summary) = (desk.path("out/scenario.toml"), desk.path("out/summary.json"));
    let (text, json) = (fs::read_to_string(&scenario).unwrap(), fs::read(&summary).unwrap());
    for empty in ["", "\n# nothing\n"] {
        fs::write(&scenario, empty).unwrap();
        desk.refuses_again(3, "scenario.toml is empty, and does not say what is to go on");
    }
    fs::write(&scenario, text.replace("cohort = 8", "cohort = 9")).unwrap();
    desk.refuses_again(3, "its summary.json has another scenario");
    fs::write(&scenario, &text).unwrap();
    fs::write(&summary, "{").unwrap();
    desk.refuses_again(3, "summary.json is no summary of this program, and is left as it is");
    fs::write(&summary, json).unwrap();
    desk.prints(&AGAIN);
}

#[test]
fn a_second_program_that_would_write_into_the_same_folder_is_refused_and_names_the_first() {
    let desk = four_versions();
    let held = fs::File::open(desk.path("out/lock")).unwrap();
    held.lock().unwrap();
    fs::write(desk.path("out/lock"), "4711\n").unwrap();
    desk.refuses_again(4, "another process (4711) writes into out now");
    let anew = ["population", "--scenario", "four.toml", "--out", "out"];
    assert!(desk.refused(&anew, 4).contains("another process (4711)"));
    drop(held);
    desk.prints(&anew);
    assert_eq!(fs::read(desk.path("out/lock")).unwrap(), b"");
    desk.file("two.toml", &SMALL.replace("cohort = 8", "cohort = [8, 9]\nversions = 1"));
    let sweep = ["population", "--scenario", "two.toml", "--out", "sweep"];
    desk.prints(&sweep);
    let held = fs::File::open(desk.path("sweep/lock")).unwrap();
    held.lock().unwrap();
    assert!(desk.refused(&sweep, 4).contains("another process writes into sweep now"));
}

#[test]
fn a_sweep_has_a_folder_for_each_run_and_one_table_and_goes_on_where_it_was_stopped() {
    let desk = Desk::new();
    let text = SMALL.replace("cohort = 8", "cohort = [8, 12]\nversions = 30");
    desk.file("grid.toml", &format!("seed = [1, 2]\n{text}"));
    let table = desk.prints(&["population", "--scenario", "grid.toml", "--out", "whole"]);
    assert_eq!(table, fs::read_to_string(desk.path("whole/table.txt")).unwrap());
    assert!(table.contains("they differ in seed, task.cohort\n"), "{table}");
    let csv = fs::read_to_string(desk.path("whole/table.csv")).unwrap();
    assert!(csv.starts_with("run,seed,task.cohort,versions,before,after,epsilon,snr,"), "{csv}");
    assert_eq!(csv.lines().count(), 5);
    let json: Value = serde_json::from_slice(&fs::read(desk.path("whole/table.json")).unwrap()).unwrap();
    assert_eq!(json["runs"][3]["settings"]["task.cohort"], 12);
    assert_eq!(json["runs"][0]["figures"]["versions"], 30);
    let folders =
        ["001-seed=1-cohort=8", "002-seed=1-cohort=12", "003-seed=2-cohort=8", "004-seed=2-cohort=12"];
    for folder in folders {
        for file in
            ["scenario.toml", "summary.json", "metrics.jsonl", "versions.csv", "devices.csv", "report.html"]
        {
            assert!(desk.path(&format!("whole/{folder}/{file}")).exists(), "{folder}/{file}");
        }
        assert_eq!(lines(&desk.path(&format!("whole/{folder}/devices.csv"))), 41);
        assert_eq!(lines(&desk.path(&format!("whole/{folder}/versions.csv"))), 31);
    }

    let command = desk.command(&["population", "--scenario", "grid.toml", "--out", "parts"]);
    let output = stop_at(command, &desk.path("parts/002-seed=1-cohort=12/metrics.jsonl"), 1);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("of 4 runs"), "{}", stderr(&output));
    let resumed = desk.run(&["population", "--resume", "--out", "parts"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains("001-seed=1-cohort=8: done before"), "{}", stderr(&resumed));
    assert_eq!(String::from_utf8(resumed.stdout).unwrap(), table);
    same(&desk.path("whole"), &desk.path("parts"));

    // The same table for runs that are there, in another order too.
    let again = desk.prints(&["compare", "whole/003-seed=2-cohort=8", "whole/001-seed=1-cohort=8"]);
    assert!(again.contains("they differ in seed\n") && !again.contains("task.cohort"), "{again}");
    assert_eq!(desk.prints(&["compare", "whole"]).lines().count(), table.lines().count());
}

#[test]
fn runs_of_a_sweep_that_never_began_or_were_killed_are_named_below_its_table() {
    let desk = Desk::new();
    desk.file("grid.toml", &SMALL.replace("cohort = 8", "cohort = [8, 9, 10, 12]\nversions = 1"));
    let whole = desk.prints(&["population", "--scenario", "grid.toml", "--out", "sweep"]);
    assert!(!whole.contains("missing, since"), "{whole}");
    // One was killed in the middle, and one never began.
    fs::remove_file(desk.path("sweep/002-cohort=9/summary.json")).unwrap();
    fs::remove_dir_all(desk.path("sweep/003-cohort=10")).unwrap();
    let table = desk.prints(&["compare", "sweep", "--out", "table"]);
    let line =
        "missing, since they never began or were ended early: sweep/002-cohort=9, sweep/003-cohort=10\n";
    assert!(table.ends_with(line), "{table}");
    let json: Value = serde_json::from_slice(&fs::read(desk.path("table/table.json")).unwrap()).unwrap();
    assert_eq!(json["missing"], serde_json::json!(["sweep/002-cohort=9", "sweep/003-cohort=10"]));
    assert_eq!(json["runs"].as_array().unwrap().len(), 2);
    // Of folders beside each other those that began, and nothing else that lies there.
    fs::remove_file(desk.path("sweep/scenario.toml")).unwrap();
    let table = desk.prints(&["compare", "sweep"]);
    assert!(
        table.ends_with("missing, since they never began or were ended early: sweep/002-cohort=9\n"),
        "{table}"
    );
    fs::remove_file(desk.path("sweep/004-cohort=12/summary.json")).unwrap();
    let said = desk.refused(&["compare", "sweep"], 3);
    assert!(said.contains("name another one; missing") && said.contains("004-cohort=12"), "{said}");
}

#[test]
fn what_a_folder_holds_is_not_written_over_and_what_cannot_be_is_refused_before_it_is_touched() {
    let desk = Desk::new();
    desk.file("one.toml", &SMALL.replace("cohort = 8", "cohort = 8\nversions = 1"));
    let run = ["population", "--scenario", "one.toml", "--out", "out"];
    desk.prints(&run);
    let before = files(&desk.path("out"));
    desk.prints(&run);
    assert_eq!(files(&desk.path("out")), before, "the same scenario gives the same bytes");
    let other = [&run[..], &["--seed", "2"]].concat();
    assert!(desk.refused(&other, 4).contains("out holds a run of another scenario"));
    assert_eq!(files(&desk.path("out")), before);
    desk.prints(&[&other[..], &["--force"]].concat());
    assert_ne!(files(&desk.path("out")), before);
    fs::create_dir(desk.path("mine")).unwrap();
    desk.file("mine/notes.txt", "mine");
    let mine = ["population", "--scenario", "one.toml", "--out", "mine"];
    assert!(desk.refused(&mine, 4).contains("notes.txt, and no scenario.toml"));

    desk.file("bad.toml", "[task]\ncohort = [8, 2000]\n");
    let bad = ["population", "--scenario", "bad.toml", "--out", "bad"];
    assert!(desk.refused(&bad, 3).contains("002-cohort=2000: task.cohort is 2000, a round has at most 1024"));
    desk.file("key.toml", "[task]\ncohorts = 8\n");
    let key = desk.refused(&["population", "--scenario", "key.toml", "--out", "bad"], 3);
    assert!(
        key.contains("unknown key task.cohorts; the nearest that there is is task.cohort; --keys"),
        "{key}"
    );
    let huge =
        ["population", "--devices", "2000", "--cohort", "1024", "--coordinates", "16000000", "--out", "bad"];
    // A machine that could hold it would take hours for it: it is refused here by its memory.
    if engine_free() < 200 << 30 {
        let huge = desk.refused(&huge, 3);
        assert!(
            huge.contains("2000 devices and rounds of 1024 with 16000000 numbers each need about"),
            "{huge}"
        );
    }
    assert!(!desk.path("bad").exists());
    assert!(desk.refused(&["population", "--resume"], 2).contains("name that folder"));
    assert!(desk.refused(&["population", "--resume", "--out", "mine"], 3).contains("scenario.toml"));
}

fn engine_free() -> u64 {
    engine::process::available_bytes().unwrap_or(0)
}

#[test]
fn an_adapter_is_trained_by_a_population_and_only_runs_on_the_same_text_are_compared() {
    let desk = Desk::new();
    for (made, seed) in [("made", "1"), ("others", "2")] {
        desk.prints(&["make-data", "--devices", "6", "--seed", seed, "--out", made]);
    }
    let text = "[task]\nobjective = \"engine\"\nversions = 2\ncohort = 5\nlocal_steps = 3\n[model]\nbase = \"made/base\"\n\
                data = \"made/users\"\nrank = [1, 2]\nsequence_len = 64\n[privacy]\nmode = \"off\"\nnoise_multiplier = 0.0\n\
                clip_norm = 100.0\n";
    desk.file("ranks.toml", text);
    let table =
        desk.prints(&["population", "--scenario", "ranks.toml", "--out", "ranks", "--format", "json"]);
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["differ"], serde_json::json!(["model.rank"]));
    for run in table["runs"].as_array().unwrap() {
        let figures = &run["figures"];
        let (before, after) = (figures["before"].as_f64().unwrap(), figures["after"].as_f64().unwrap());
        assert!(after < before - 0.005 && figures["epsilon"].is_null(), "{run}");
    }
    let adapter = fs::read(desk.path("ranks/002-rank=2/adapter/adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&adapter).unwrap()["r"], 2);
    let page = fs::read_to_string(desk.path("ranks/001-rank=1/report.html")).unwrap();
    assert!(page.contains("held-out loss, nats a token") && page.contains("Each device's loss"));

    let users = desk.path("others/users");
    let words = [
        "population",
        "--scenario",
        "ranks.toml",
        "--out",
        "others-ranks",
        "--data",
        users.to_str().unwrap(),
    ];
    desk.prints(&words);
    let said = desk.refused(&["compare", "ranks/001-rank=1", "others-ranks/001-rank=1"], 3);
    assert!(said.contains("the text that they train on and are measured on is not the same"), "{said}");
    desk.prints(&["population", "--devices", "30", "--cohort", "6", "--versions", "1", "--out", "formula"]);
    let said = desk.refused(&["compare", "ranks/001-rank=1", "formula"], 3);
    assert!(
        said.contains("one is a population that trains an adapter, the other a population that trains"),
        "{said}"
    );
    assert!(desk.refused(&["compare", "formula"], 3).contains("compared with nothing"));
    assert!(desk.refused(&["compare", "formula", "made"], 3).contains("made has no summary.json"));
    let few = desk.refused(&["population", "--scenario", "ranks.toml", "--devices", "9", "--out", "few"], 3);
    assert!(few.contains("9 devices were asked for"), "{few}");
}

#[test]
fn runs_of_all_devices_are_compared_by_what_their_records_say() {
    let desk = Desk::new();
    desk.prints(&["make-data", "--devices", "4", "--out", "made"]);
    let run = |out: &str, devices: &str, rank: &str| {
        let options = ["--devices", devices, "--rank", rank, "--out", out];
        let words =
            ["run", "--base", "made/base", "--data", "made/users", "--versions", "1", "--privacy", "off"];
        desk.prints(&[&words[..], &["--local-steps", "1", "--no-yardsticks"], &options].concat());
    };
    run("two", "4", "2");
    run("four", "4", "4");
    run("three-devices", "3", "2");
    let table = desk.prints(&["compare", "two", "four"]);
    // The scale follows the rank.
    assert!(
        table.contains("they differ in alpha, rank, refresh.accumulated_rank, refresh.shipped_rank\n"),
        "{table}"
    );
    assert!(table.contains("held-out loss, nats a token"), "{table}");
    desk.prints(&[
        "run",
        "--base",
        "made/base",
        "--data",
        "made/users",
        "--versions",
        "2",
        "--privacy",
        "off",
        "--local-steps",
        "1",
        "--no-yardsticks",
        "--devices",
        "4",
        "--rank",
        "2",
        "--out",
        "twice",
    ]);
    desk.prints(&["compare", "two", "twice", "--out", "versions"]);
    let csv = fs::read_to_string(desk.path("versions/table.csv")).unwrap();
    let heads: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(heads.contains(&"setting.versions"), "{csv}");
    assert_eq!(heads.iter().filter(|head| **head == "versions").count(), 1, "{csv}");
    let said = desk.refused(&["compare", "two", "three-devices"], 3);
    assert!(said.contains("two and three-devices cannot be compared: the text"), "{said}");
}

#[test]
fn a_compared_table_has_each_heading_once_and_a_line_for_each_run() {
    let desk = four_versions();
    desk.file("three.toml", &SMALL.replace("cohort = 8", "cohort = 8\nversions = 3"));
    desk.prints(&["population", "--scenario", "three.toml", "--out", "two\nlines"]);
    let table = desk.prints(&["compare", "out", "two\nlines", "--out", "table"]);
    let mut lines = table.lines();
    let mut headings: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert!(headings.contains(&"task.versions"), "{table}");
    let found = headings.len();
    headings.sort_unstable();
    headings.dedup();
    assert_eq!(headings.len(), found, "{table}");
    assert!(lines.next().unwrap().starts_with("out "), "{table}");
    assert!(lines.next().unwrap().starts_with(r"two\nlines "), "{table}");
}
