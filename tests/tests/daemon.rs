//! The agent as a daemon: what it takes while it waits, and how fast it gives the machine back.
//!
//! The short test holds the kinds. The long one prints the figures:
//!
//! ```text
//! cargo test --release -p nightshift-tests --test daemon -- --ignored --nocapture
//! ```
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "what takes how long is measured")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use stage::{POLICY, Running, Stage, output, start, text};

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "common/stage.rs"]
mod stage;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

/// A laptop's files, with a charger that the test plugs in and out.
struct Laptop {
    root: PathBuf,
}

impl Laptop {
    fn new(root: PathBuf) -> Self {
        let laptop = Self { root };
        laptop.write("sys/class/power_supply/AC/type", "Mains\n");
        laptop.write("sys/class/power_supply/BAT0/type", "Battery\n");
        laptop.write("sys/class/power_supply/BAT0/capacity", "97\n");
        laptop.write("sys/class/thermal/thermal_zone0/temp", "40000\n");
        laptop.write("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive\n");
        laptop.write("sys/class/thermal/thermal_zone0/trip_point_0_temp", "95000\n");
        laptop.plug(false);
        laptop
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Whole at once: nobody reads half of it.
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn plug(&self, on: bool) {
        self.write("sys/class/power_supply/AC/online", if on { "1\n" } else { "0\n" });
    }
}

/// What the kernel says of a process; `None` where it is gone.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((fields.first()?.chars().next()?, ticks))
}

fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// The trainer of a daemon: its child.
fn trainer_of(daemon: u32) -> Option<u32> {
    let children = fs::read_dir(format!("/proc/{daemon}/task"))
        .ok()?
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let pid = children.collect::<String>().split_whitespace().next()?.parse().ok()?;
    (!is_gone(pid)).then_some(pid)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A daemon, its laptop, and the coordinator with a task that never ends.
struct Scene {
    stage: Stage,
    laptop: Laptop,
    _coordinator: Running,
    daemon: Running,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let conditions = "[conditions]\nassume = [\"idle\", \"unmetered\", \"free\"]\ndwell_secs = 0\nrest_minutes = 0\n\
                          check_secs = 1\nleast_free_disk_mib = 1\nmost_minutes_a_day = 1440\n";
        let limits = "allow_without_noise = true\nlargest_tokens_a_round = 20000000\n";
        stage.configure(&format!("{POLICY}{limits}{conditions}"));
        let coordinator = stage.coordinator();
        let steps = ["--versions", "1", "--privacy", "off", "--clip", "4", "--local-steps", "20000"];
        stage.create_task(&[&steps[..], &["--batch-size", "8", "--sequence-len", "64"]].concat());
        let lines: Vec<String> =
            (0..400).map(|i| format!("note {i} about bread and boats and {}", i * 7)).collect();
        stage.enroll("anna", &lines);
        let laptop = Laptop::new(stage.path("laptop"));
        let mut command = stage.agent("anna");
        command.arg("--data").arg(stage.path("anna.jsonl")).args(["run", "--machine"]).arg(&laptop.root);
        let log = fs::File::create(stage.path("anna.log")).unwrap();
        let daemon = Running::quiet(start(command.stdout(Stdio::null()).stderr(log)));
        let scene = Self { stage, laptop, _coordinator: coordinator, daemon };
        let socket = scene.stage.path("anna").join("control.sock");
        wait_for("the daemon listens", || socket.exists().then_some(()));
        wait_for("the daemon waits for a window", || {
            scene.status().filter(|status| status["now"]["state"] == "waiting for a window")
        });
        scene
    }

    fn pid(&self) -> u32 {
        self.daemon.0.id()
    }

    fn status(&self) -> Option<serde_json::Value> {
        let said = output(self.stage.agent("anna").args(["--format", "json", "status"]));
        serde_json::from_slice(&said.stdout).ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.stage.path("anna.log")).unwrap()
    }

    /// Plugs the charger in, and waits until the trainer takes processor time for steps: not for reading a base.
    fn trains(&self) -> (u32, Duration) {
        let begun = Instant::now();
        self.laptop.plug(true);
        // Before it there may be one that only says how much memory a training takes.
        let busy = |pid: &u32| stat(*pid).is_some_and(|(_, ticks)| ticks >= 20);
        let pid = wait_for("a trainer at work", || trainer_of(self.pid()).filter(busy));
        (pid, begun.elapsed())
    }

    /// Pulls the charger out. How long the trainer still runs, and until it is gone.
    fn preempts(&self, pid: u32) -> (Duration, Duration, u64) {
        let before = stat(pid).map_or(0, |(_, ticks)| ticks);
        let begun = Instant::now();
        self.laptop.plug(false);
        let mut still = Duration::ZERO;
        let mut ticks = before;
        let gone = wait_for("the trainer goes", || match stat(pid) {
            Some((state, now)) if !matches!(state, 'Z' | 'X') => {
                if now > ticks {
                    (ticks, still) = (now, begun.elapsed());
                }
                None
            }
            Some(_) | None => Some(begun.elapsed()),
        });
        (still, gone, ticks - before)
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_daemon_gives_the_machine_back_and_goes_on_later() {
    let scene = Scene::new();
    let (first, _) = scene.trains();
    let (still, gone, _) = scene.preempts(first);
    // The test machine is busy with other tests: the long test has the figures.
    assert!(still < Duration::from_secs(5) && gone < Duration::from_secs(8), "{still:?} {gone:?}");
    let status = wait_for("it waits again", || {
        scene.status().filter(|status| status["now"]["state"] == "waiting for a window")
    });
    let why = status["now"]["last_preemption"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("mains is off"), "{why}");
    let (second, _) = scene.trains();
    assert_ne!(first, second);
    // A trainer that is killed by somebody is an event, and the daemon goes on.
    let killed = rustix::process::Pid::from_raw(i32::try_from(second).unwrap()).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    wait_for("the daemon tells it", || {
        scene.status().filter(|status| !status["now"]["last_problem"].is_null())
    });
    assert!(!is_gone(scene.pid()), "{}", scene.log());
    let told = text(&output(scene.stage.agent("anna").arg("log")));
    assert!(told.contains("preempted") && told.contains("trains"), "{told}");
}

#[test]
#[ignore = "takes about ten minutes and prints figures"]
fn figures() {
    let scene = Scene::new();
    let pid = scene.pid();
    std::thread::sleep(Duration::from_secs(5));
    let (resident, anonymous) = (status_kib(pid, "VmRSS:"), status_kib(pid, "RssAnon:"));
    let before = stat(pid).unwrap().1;
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(120));
    let used = stat(pid).unwrap().1 - before;
    // The kernel counts in hundredths of a second.
    let percent = 100.0 * (used as f64 / 100.0) / begun.elapsed().as_secs_f64();
    eprintln!("| figure | value |\n| --- | --- |");
    eprintln!(
        "| resident memory, no window open | {:.1} MiB, of which {:.1} anonymous |",
        resident as f64 / 1024.0,
        anonymous as f64 / 1024.0
    );
    eprintln!(
        "| processor time, no window open, over {} s | {percent:.3} % of one core |",
        begun.elapsed().as_secs()
    );
    let (mut stills, mut gones, mut resumes, mut after) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..flips() {
        let (trainer, resumed) = scene.trains();
        let (still, gone, ticks) = scene.preempts(trainer);
        stills.push(still);
        gones.push(gone);
        resumes.push(resumed);
        after += ticks;
    }
    for times in [&mut stills, &mut gones, &mut resumes] {
        times.sort_unstable();
    }
    let row = |what: &str, times: &[Duration]| {
        let millis = |percent| percentile(times, percent).as_millis();
        eprintln!(
            "| {what}, over {} flips | p50 {} ms, p99 {} ms, most {} ms |",
            times.len(),
            millis(50),
            millis(99),
            times.last().unwrap().as_millis()
        );
    };
    row("preemption: no processor time any more", &stills);
    row("preemption: the trainer is gone", &gones);
    row("from the charger to a trainer at work", &resumes);
    eprintln!(
        "| processor time of the trainer after the charger went | {:.1} ms a flip |",
        after as f64 * 10.0 / stills.len() as f64
    );
    eprintln!("| resident memory after the flips | {:.1} MiB |", status_kib(pid, "VmRSS:") as f64 / 1024.0);
}

/// 200, or as many as `NIGHTSHIFT_FLIPS` says.
fn flips() -> usize {
    std::env::var("NIGHTSHIFT_FLIPS").ok().map_or(200, |flips| flips.parse().unwrap())
}

#[test]
fn only_one_agent_holds_a_folder() {
    let scene = Scene::new();
    let second =
        output(scene.stage.agent("anna").arg("--data").arg(scene.stage.path("anna.jsonl")).arg("run"));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(4) && error.contains("in use by another process"), "{error}");
    assert!(Path::new(&scene.stage.path("anna")).join("control.sock").exists());
    assert!(!is_gone(scene.pid()));
}
