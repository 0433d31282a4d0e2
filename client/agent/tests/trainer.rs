//! The trainer as a process of its own: the same numbers, nothing lost, and every way in which it can break has a name.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "IO shell: the tests watch processes")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::store::Checkpoint;
use client::{InProcess, Recorder, Trainer, TrainerFault, TrainingEnd, TrainingJob};
use engine::{Backend, Base, DeviceRequest, Engine, Projection};
use nightshift_agent::config::Dtype;
use nightshift_agent::trainer::{ChildTrainer, StartError, TrainerSettings};
use proto::adapter::{AdapterSpec, Factors, Folded, Method, State};
use proto::ids::{Digest, TaskId};
use proto::message::Published;
use proto::plan::Plan;
use rustix::process::{Pid, Signal, kill_process};
use session::Work;
use session::policy::Policy;
use session::update::Update;
use text::ReadOptions;
use zeroize::Zeroizing;

/// By this a process of these tests knows that it is to be the one that is killed.
const VICTIM: &str = "NIGHTSHIFT_TEST_VICTIM";

/// The name of the test that is run as such a process.
const VICTIM_TEST: &str = "when_the_daemon_is_killed_its_trainer_is_gone_too";

/// As long as a training must take at least in which somebody does something meanwhile, whatever else this machine does.
const STEPS: u32 = 3_000;

/// One test at a time, so that the only trainer there is is its own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base")
}

/// A folder with a text in it.
fn text() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (3..40).map(|i| format!("w{i} w{} w{}\n\n", i + 7, 60 - i)).collect();
    fs::write(folder.path().join("text.txt"), lines.concat()).unwrap();
    folder
}

fn settings(folder: &Path) -> TrainerSettings {
    TrainerSettings {
        bases: vec![base()],
        data: vec![folder.join("text.txt")],
        reading: ReadOptions::default(),
        device: DeviceRequest::At(Backend::Cpu),
        dtype: Dtype::Auto,
        recompute: false,
        threads: 1,
    }
}

fn started(folder: &Path, longest_silence: Duration) -> ChildTrainer {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_nightshift-agent"));
    ChildTrainer::start_as(program, settings(folder), longest_silence).unwrap()
}

fn trainer(folder: &Path) -> ChildTrainer {
    started(folder, Duration::from_secs(60))
}

fn in_process(folder: &Path) -> InProcess {
    let engine = Engine::new(Arc::new(Base::open(&base()).unwrap()));
    InProcess::new(engine, settings(folder).data, ReadOptions::default()).unwrap()
}

/// A version to train in so many steps.
fn work(steps: u32) -> Work {
    let base = Base::open(&base()).unwrap();
    let modules = base.modules(&Projection::ALL);
    let factors = Factors::Seeded(Digest([4; 32]));
    let spec = AdapterSpec { method: Method::FrozenA, rank: 2, alpha: 4.0, factors, modules };
    let mut plan = Plan { base: base.digest(), adapter: spec.clone(), ..Plan::example() };
    (plan.training.local_steps, plan.training.sequence_len) = (steps, 8);
    let plan = plan.with_recommended_scale().unwrap();
    let frozen = spec.seeded_factors(&Digest([4; 32]));
    let start = vec![0.0; spec.trained_len()];
    let state = State::at(&spec, 0, frozen, Folded::default(), &start).unwrap();
    let digest = Digest([2; 32]);
    let clip_norm = plan.privacy.clip_norm;
    let published = Published {
        task: TaskId([1; 16]),
        version: 0,
        plan: digest,
        adapter: digest,
        folded: None,
        clip_norm,
    };
    let mechanism = plan.mechanism_at(0, clip_norm).unwrap();
    Work { published, plan, mechanism, state, adapter: start, class: None, before: None, against: None }
}

/// Does something once, when the first checkpoint comes, in the middle of the training.
struct Meanwhile<'a> {
    checkpoint: Checkpoint,
    kept: AtomicU32,
    act: &'a (dyn Fn() + Sync),
}

impl<'a> Meanwhile<'a> {
    fn of(folder: &Path, act: &'a (dyn Fn() + Sync)) -> Self {
        Self { checkpoint: Checkpoint::below(folder), kept: AtomicU32::new(0), act }
    }
}

impl Recorder for Meanwhile<'_> {
    fn open(&self, published: &Published) -> Option<Zeroizing<Vec<u8>>> {
        self.checkpoint.open(published)
    }

    fn keep(&self, published: &Published, clear: &Zeroizing<Vec<u8>>) {
        self.checkpoint.keep(published, clear).unwrap();
        if self.kept.fetch_add(1, Ordering::Relaxed) == 0 {
            (self.act)();
        }
    }

    fn delete(&self, why: &'static str) {
        self.checkpoint.delete(why);
    }
}

fn run(trainer: &dyn Trainer, work: &Work, recorder: &dyn Recorder, leave: &AtomicBool) -> TrainingEnd {
    let (policy, begun) = (Policy::default(), Instant::now());
    let elapsed = || begun.elapsed();
    trainer.train(&TrainingJob::new(work, [1; 32], &policy, &elapsed, recorder, leave)).unwrap()
}

fn trained(end: TrainingEnd) -> Update {
    let TrainingEnd::Trained(update) = end else { panic!("it did not end: {end:?}") };
    update
}

fn fault(end: TrainingEnd) -> TrainerFault {
    let TrainingEnd::Failed(fault) = end else { panic!("it did not fail: {end:?}") };
    fault
}

/// The trainers that this process, or another one, has started and not waited for.
fn trainers_of(parent: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let of_parent = stat.rsplit_once(')').is_some_and(|(_, fields)| {
            fields.split_whitespace().nth(1).is_some_and(|field| field == parent.to_string())
        });
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_trainer = command.split(|byte| *byte == 0).nth(1) == Some(b"inside-trainer");
        let is_zombie = stat.contains(") Z ");
        if of_parent && (is_trainer || is_zombie) {
            found.push(Pid::from_raw(id).unwrap());
        }
    }
    found
}

/// This test's own trainer.
fn the_trainer() -> Pid {
    let found = trainers_of(std::process::id());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn nobody_is_left() {
    assert_eq!(trainers_of(std::process::id()), Vec::new());
}

/// Waits until this holds, for a few seconds.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_trainer_of_its_own_gives_the_same_bits_and_knows_the_same_of_its_base() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, here) = (trainer(text.path()), in_process(text.path()));
    let [base] = child.bases()[..] else { panic!("{:?}", child.bases()) };
    assert_eq!((child.bases(), child.layers(base)), (here.bases(), here.layers(base)));
    assert_eq!(child.training_bytes(base, 1000, 4, 8), here.training_bytes(base, 1000, 4, 8));
    assert_eq!(child.training_bytes(base, 7, 4, 8), here.training_bytes(base, 7, 4, 8));
    let other = Digest([1; 32]);
    assert!(child.layers(other).is_empty(), "of a base that it does not hold it knows nothing");
    nobody_is_left();
    let (work, stay) = (work(45), AtomicBool::new(false));
    let checkpoint = Checkpoint::below(state.path());
    let expected = trained(run(&here, &work, &checkpoint, &stay));
    assert!(trained(run(&child, &work, &checkpoint, &stay)) == expected);
    assert!(!state.path().join("training.checkpoint").exists(), "what is done is not kept");
    nobody_is_left();
}

#[test]
fn whether_there_is_text_is_said_by_a_trainer_and_nothing_of_it() {
    let _alone = alone();
    trainer(text().path()).look_at_text().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let said = || trainer(folder.path()).look_at_text().unwrap_err().to_string();
    let gone = said();
    assert!(gone.starts_with("no text to train on: ") && gone.ends_with("text.txt is not there"), "{gone}");
    // The trainer quotes nothing, whatever it found.
    fs::write(folder.path().join("text.txt"), " \n\n").unwrap();
    assert!(said().starts_with("no text to train on: the text of `data` cannot be read"), "{}", said());
    nobody_is_left();
}

#[test]
fn an_interrupted_trainer_leaves_at_once_and_the_next_goes_on_from_its_last_step() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, here) = (trainer(text.path()), in_process(text.path()));
    let (work, stay, leave) = (work(STEPS), AtomicBool::new(false), AtomicBool::new(false));
    let elsewhere = tempfile::tempdir().unwrap();
    let expected = trained(run(&here, &work, &Checkpoint::below(elsewhere.path()), &stay));
    let told = Mutex::new(None);
    let tell = || {
        *told.lock().unwrap() = Some(Instant::now());
        leave.store(true, Ordering::Relaxed);
    };
    let recorder = Meanwhile::of(state.path(), &tell);
    let end = run(&child, &work, &recorder, &leave);
    let took = told.lock().unwrap().unwrap().elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let TrainingEnd::NotTrained(why) = end else { panic!("{end:?}") };
    let step = why.strip_prefix("it was interrupted after step ").and_then(|rest| rest.split(' ').next());
    let step: u32 = step.unwrap_or_else(|| panic!("{why}")).parse().unwrap();
    assert!((20..STEPS).contains(&step), "{why}");
    assert!(
        recorder.kept.load(Ordering::Relaxed) >= 2,
        "the one of step 20, others on their way, and the newest"
    );
    nobody_is_left();
    // Sealed on the disk, and of the step that it says: in this process it goes on from there, too.
    let checkpoint = Checkpoint::below(state.path());
    let clear = checkpoint.open(&work.published).unwrap();
    assert!(fs::read(state.path().join("training.checkpoint")).unwrap().len() > clear.len());
    assert!(trained(run(&child, &work, &checkpoint, &stay)) == expected);
    nobody_is_left();
}

#[test]
fn a_trainer_that_is_killed_from_outside_is_an_event_with_a_name_and_the_next_goes_on() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, stay) = (trainer(text.path()), AtomicBool::new(false));
    let work = work(STEPS);
    let kill = || kill_process(the_trainer(), Signal::KILL).unwrap();
    let end = run(&child, &work, &Meanwhile::of(state.path(), &kill), &stay);
    assert_eq!(fault(end), TrainerFault::Killed { signal: 9 });
    nobody_is_left();
    let checkpoint = Checkpoint::below(state.path());
    assert!(checkpoint.open(&work.published).is_some(), "what was kept is there");
    trained(run(&child, &work, &checkpoint, &stay));
}

#[test]
fn a_trainer_that_hangs_is_ended() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, stay) = (started(text.path(), Duration::from_secs(6)), AtomicBool::new(false));
    let stop = || kill_process(the_trainer(), Signal::STOP).unwrap();
    let end = run(&child, &work(20_000), &Meanwhile::of(state.path(), &stop), &stay);
    assert_eq!(fault(end), TrainerFault::Silent { secs: 6 });
    nobody_is_left();
}

#[test]
fn a_stopped_trainer_that_must_leave_is_woken_and_leaves() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, leave) = (trainer(text.path()), AtomicBool::new(false));
    let stop = || {
        kill_process(the_trainer(), Signal::STOP).unwrap();
        leave.store(true, Ordering::Relaxed);
    };
    let end = run(&child, &work(20_000), &Meanwhile::of(state.path(), &stop), &leave);
    assert!(matches!(end, TrainingEnd::NotTrained(_)), "{end:?}");
    nobody_is_left();
}

/// A program that does this instead of training.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("program.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn what_a_broken_trainer_does_has_a_name_and_its_words_are_not_repeated() {
    let _alone = alone();
    let text = text();
    let silence = Duration::from_secs(2);
    let work = work(3);
    let state = tempfile::tempdir().unwrap();
    let (checkpoint, stay) = (Checkpoint::below(state.path()), AtomicBool::new(false));
    for (script, expected) in [
        ("echo my diary >&2; exit 3", "ended in the middle of its work, with exit code 3"),
        ("echo my diary >&2; kill -9 $$", "ended by signal 9"),
        ("echo 'memory allocation of 99 bytes failed' >&2; kill -6 $$", "needed more memory"),
        ("echo 'the trainer panicked at my diary' >&2; exit 101", "a mistake in it"),
        ("echo my diary, which is long; exec sleep 600", "makes no sense: a frame of"),
        (
            "printf '\\002\\000\\000\\000\\377\\377'; exec sleep 600",
            "makes no sense: a frame that is no message",
        ),
        (
            "printf '\\002\\000\\000\\000\\022\\000'; exec sleep 600",
            "makes no sense: a message before its greeting",
        ),
        ("exec sleep 600", "said nothing for 2 seconds"),
        ("sleep 600 & exec sleep 600", "said nothing for 2 seconds"),
        ("sleep 600 & exit 4", "said nothing for 2 seconds"),
        ("exec >&-; exec sleep 600", "closed its pipe and did not end"),
    ] {
        let begun = Instant::now();
        let program = program(text.path(), script);
        let error = ChildTrainer::start_as(program.clone(), settings(text.path()), silence).unwrap_err();
        assert!(matches!(error, StartError::Fault(_)), "{script}: {error}");
        assert!(error.to_string().contains(expected), "{script}: {error}");
        assert!(!error.to_string().contains("diary"), "{script}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{script}");
        nobody_is_left();
        if !expected.contains("said nothing") {
            let broken = trainer(text.path()).with_program(program);
            let fault = fault(run(&broken, &work, &checkpoint, &stay)).to_string();
            assert!(fault.contains(expected), "{script}: {fault}");
        }
    }
}

#[test]
fn a_base_that_is_none_is_one_clear_error_and_a_text_that_is_gone_is_the_user_s() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_nightshift-agent"));
    let nowhere = TrainerSettings { bases: vec![text.path().join("nowhere")], ..settings(text.path()) };
    let error = ChildTrainer::start_as(program.clone(), nowhere, Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, StartError::Unusable(_)), "{error:?}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let none = TrainerSettings { data: Vec::new(), ..settings(text.path()) };
    let error = ChildTrainer::start_as(program, none, Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, StartError::NoData(_)), "{error:?}");

    let (child, here) = (trainer(text.path()), in_process(text.path()));
    fs::remove_file(text.path().join("text.txt")).unwrap();
    let (work, leave, policy) = (work(3), AtomicBool::new(false), Policy::default());
    let checkpoint = Checkpoint::below(state.path());
    let elapsed = || Duration::ZERO;
    let job = TrainingJob::new(&work, [1; 32], &policy, &elapsed, &checkpoint, &leave);
    // The daemon looks for itself whether what its configuration names is there.
    let message = child.train(&job).unwrap_err().to_string();
    assert!(message.ends_with("text.txt is not there"), "{message}");
    let message = here.train(&job).unwrap_err().to_string();
    assert!(message.contains("text.txt"), "{message}");
    // What the child says has read the user's text: the daemon says where to look.
    fs::write(text.path().join("text.txt"), "").unwrap();
    let message = child.train(&job).unwrap_err().to_string();
    assert!(message.contains("`nightshift-agent data check`") && !message.contains("text.txt"), "{message}");
    nobody_is_left();
}

#[test]
fn a_trainer_reaches_no_network_starts_no_program_and_reads_nothing_else() {
    let _alone = alone();
    let text = text();
    let outside = text.path().join("diary.md");
    fs::write(&outside, "not for training").unwrap();
    let protections = trainer(text.path()).probe(&outside).unwrap();
    println!("{protections:?}");
    let shut = protections.held.iter().any(|held| held == "reads the base and the text only");
    let of_files = ["read a file of the user's", "write a file", "open the daemon's memory"];
    let could: Vec<_> =
        protections.could.iter().filter(|could| shut || !of_files.contains(&could.as_str())).collect();
    assert!(could.is_empty(), "{could:?}");
    for refused in [
        "listen for connections",
        "open a datagram socket",
        "open a local socket",
        "start a program",
        "signal the daemon",
        "have more memory",
        "have more of the CPU",
    ] {
        assert!(protections.could_not.iter().any(|could_not| could_not == refused), "{protections:?}");
    }
    nobody_is_left();
}

#[test]
fn while_it_trains_the_system_says_that_it_is_shut_in_and_idle() {
    let _alone = alone();
    let (text, state) = (text(), tempfile::tempdir().unwrap());
    let (child, stay) = (trainer(text.path()), AtomicBool::new(false));
    // What is inherited by a program that is started.
    let leaked = fs::File::create(text.path().join("leaked")).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let seen = Mutex::new(None);
    let look = || {
        let process = PathBuf::from(format!("/proc/{}", the_trainer().as_raw_nonzero()));
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap();
        // Only root sees what a process that is not dumpable has open.
        let open = fs::read_dir(process.join("fd")).map(|open| {
            open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
        });
        *seen.lock().unwrap() =
            Some((read("status"), read("stat"), read("oom_score_adj"), read("limits"), open.ok()));
    };
    trained(run(&child, &work(60), &Meanwhile::of(state.path(), &look), &stay));
    let (status, stat, score, limits, open) = seen.lock().unwrap().take().unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((of("Seccomp:").as_str(), of("NoNewPrivs:").as_str()), ("2", "1"));
    // Field 41, of which the first two end with the last parenthesis: SCHED_IDLE is 5.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    assert_eq!(fields.split_whitespace().nth(41 - 3), Some("5"), "{stat}");
    assert_eq!(score.trim(), "1000");
    let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    assert!(!data.contains("unlimited"), "{data}");
    if let Some(open) = open {
        assert!(!open.iter().any(|path| path.ends_with("leaked")), "{open:?}");
    }
}

#[test]
fn when_the_daemon_is_killed_its_trainer_is_gone_too() {
    if std::env::var_os(VICTIM).is_some() {
        // The process that is killed: it trains without end, and says when it is in the middle of it.
        let (text, state) = (text(), tempfile::tempdir().unwrap());
        let say = || println!("\ntrains");
        let recorder = Meanwhile::of(state.path(), &say);
        run(&trainer(text.path()), &work(50_000), &recorder, &AtomicBool::new(false));
        return;
    }
    let _alone = alone();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", VICTIM_TEST])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "trains"), "it never trained");
    let trainers = trainers_of(victim.id());
    assert_eq!(trainers.len(), 1, "{trainers:?}");
    let trainer = PathBuf::from(format!("/proc/{}/stat", trainers[0].as_raw_nonzero()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let is_gone =
        || fs::read_to_string(&trainer).is_ok_and(|stat| stat.contains(") Z ")) || !trainer.exists();
    soon("the trainer outlives its daemon", is_gone);
}
