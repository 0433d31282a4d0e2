//! A run is repeated from what it wrote.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output as Done};
use std::sync::Arc;

use engine::Base;
use nightshift_sim::inputs::Inputs;
use nightshift_sim::output::Output;
use nightshift_sim::run::run;
use nightshift_sim::scenario::Scenario;
use nightshift_sim::{demo, make_data};
use text::Corpus;

/// What a record promises: the figures, and the adapter.
const SAME: [&str; 2] = ["summary.json", "adapter/adapter_model.safetensors"];

fn program(folder: &Path, arguments: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    command.current_dir(folder).args(arguments.split_whitespace()).output().unwrap()
}

fn said(done: &Done) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn assert_same(one: &Path, other: &Path) {
    for name in SAME {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(one) == read(other), "{name} differs");
    }
}

/// A run on six made-up people, as files below `folder`.
fn made_up(folder: &Path) {
    let usual = demo::scenario(3);
    let scenario =
        Scenario { devices: 6, versions: 2, vanishing: 1, newcomers: 2, yardsticks: false, ..usual };
    let base = Arc::new(Base::open(&demo::write_base(&folder.join("base")).unwrap()).unwrap());
    let users = demo::users(&base, &scenario).unwrap();
    let newcomers = demo::newcomers(&base, &scenario).unwrap();
    let public = Corpus::new(&base, &demo::public()).unwrap();
    let len = scenario.training.sequence_len;
    let public = public.train(len).and(public.held_out(len));
    let inputs = Inputs { base: &base, users: &users, newcomers: &newcomers, public: Some(&public) };
    let finished = run(&scenario, &inputs, |_| {}).unwrap();
    let mut output = Output::create(folder).unwrap();
    output.adapter(&finished.shipped.0, &finished.shipped.1, "base").unwrap();
    output.finish(&finished, "a run").unwrap();
}

#[test]
fn a_run_on_made_up_people_is_repeated_from_its_summary_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    made_up(&first);
    let done = program(folder.path(), "run --from first/summary.json --out second");
    assert!(done.status.success(), "{}", said(&done));
    assert_same(&first, &second);
}

#[test]
fn a_run_on_files_is_repeated_wherever_they_are_now_and_refused_where_they_changed() {
    let folder = tempfile::tempdir().unwrap();
    make_data::run(&make_data::Options { devices: 5 }, &folder.path().join("made"), 2).unwrap();
    let done = program(
        folder.path(),
        "run --accept-noise --base made/base --data made/users --newcomers 1 --versions 1 --local-steps 1 --rank 1 \
         --sequence-len 32 --no-yardsticks --prompt who's --seed 5 --out first",
    );
    assert!(done.status.success(), "{}", said(&done));
    std::fs::rename(folder.path().join("made"), folder.path().join("moved")).unwrap();
    let lost = program(folder.path(), "run --from first/summary.json --out second");
    assert_eq!(lost.status.code(), Some(3), "{}", said(&lost));
    let again = "run --from first/summary.json --base moved/base --data moved/users --out second";
    let done = program(folder.path(), again);
    assert!(done.status.success(), "{}", said(&done));
    assert_same(&folder.path().join("first"), &folder.path().join("second"));

    let users = folder.path().join("moved").join("users");
    let user = std::fs::read_dir(users).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&user).unwrap();
    let more = "{\"text\": \"one line more, before all others, so that every block after it is another\"}\n";
    std::fs::write(&user, more.to_owned() + &text).unwrap();
    let refused = program(folder.path(), again);
    let why = said(&refused);
    assert_eq!(
        (refused.status.code(), why.contains("users' text is not that of the record")),
        (Some(3), true),
        "{why}"
    );
}

#[test]
fn a_run_is_written_over_no_other_and_over_nothing_else_unless_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    made_up(&folder.path().join("first"));
    let summary = || std::fs::read(folder.path().join("first/summary.json")).unwrap();
    let before = summary();
    let refused = program(folder.path(), "--devices 4 --versions 1 --privacy off --out first");
    let why = said(&refused);
    let named = why.contains("another run, `demonstration` of 6 devices and 2 versions by seed 3");
    assert_eq!((refused.status.code(), named, why.contains("--force")), (Some(4), true, true), "{why}");
    assert_eq!(summary(), before);
    let again = program(folder.path(), "run --from first/summary.json --out first");
    assert!(again.status.success(), "{}", said(&again));
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.txt"), "mine").unwrap();
    let mine = "run --from first/summary.json --out mine";
    let refused = program(folder.path(), mine);
    let why = said(&refused);
    assert_eq!((refused.status.code(), why.contains("thesis.txt")), (Some(4), true), "{why}");
    let forced = program(folder.path(), &format!("{mine} --force"));
    assert!(forced.status.success(), "{}", said(&forced));
    assert_same(&folder.path().join("first"), &folder.path().join("mine"));
}

#[test]
fn a_record_leaves_no_settings_to_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for more in ["--rank 2", "--devices 4", "--central", "--privacy off", "--no-yardsticks", "--versions 3"] {
        let refused = program(folder.path(), &format!("run --from summary.json {more}"));
        assert_eq!(refused.status.code(), Some(2), "{more}: {}", said(&refused));
    }
    let missing = program(folder.path(), "run --from summary.json");
    assert_eq!(missing.status.code(), Some(3), "{}", said(&missing));
    let nothing = program(folder.path(), "run");
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    let before = program(folder.path(), "--devices 5 bench secagg");
    assert_eq!(before.status.code(), Some(2), "{}", said(&before));
}
