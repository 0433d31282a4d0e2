//! `nightshift-agent service` below a root of its own, where nothing is run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nightshift_agent::config::Config;

const UNIT: &str = "etc/systemd/system/nightshift-agent.service";
const CONFIG: &str = "etc/nightshift/agent.toml";

fn service(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"));
    command.arg("service").args(arguments).arg("--root").arg(root).args(["--manager", "systemd"]);
    command.env("HOME", "/home/alex").env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    command.output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(root: &Path, whose: &str) -> serde_json::Value {
    serde_json::from_str(&done(&service(root, &["status", whose, "--format", "json"]))).unwrap()
}

#[test]
fn a_service_of_the_machine_is_written_with_its_answers_and_nothing_is_run() {
    let root = tempfile::tempdir().unwrap();
    let said = done(&service(
        root.path(),
        &[
            "install",
            "--system",
            "--data",
            "/home/alex/notes",
            "--base",
            "/srv/base",
            "--assume",
            "idle,mains",
        ],
    ));
    let unit = fs::read_to_string(root.path().join(UNIT)).unwrap();
    assert!(unit.contains("\nBindReadOnlyPaths=-\"/home/alex/notes\"\nBindReadOnlyPaths=-\"/srv/base\"\n"));
    assert!(
        unit.contains(
            "\nExecStart=\"/usr/bin/nightshift-agent\" --config \"/etc/nightshift/agent.toml\" run\n"
        )
    );
    let config = Config::load(&root.path().join(CONFIG)).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/nightshift-agent"));
    assert_eq!(config.base, Path::new("/srv/base"));
    assert_eq!(config.conditions.assume.len(), 2);
    for path in [UNIT, CONFIG, "etc/sysusers.d/nightshift-agent.conf", "etc/tmpfiles.d/nightshift-agent.conf"]
    {
        assert!(said.contains(path), "{path} is not in {said}");
    }
    assert!(said.contains("next: enroll: sudo -u nightshift-agent nightshift-agent --config"), "{said}");
}

#[test]
fn a_person_s_service_lies_below_the_home() {
    let root = tempfile::tempdir().unwrap();
    done(&service(root.path(), &["install", "--user", "--data", "/home/alex/notes"]));
    let home = root.path().join("home/alex");
    assert!(home.join(".config/systemd/user/nightshift-agent.service").is_file());
    let config = Config::load(&home.join(".config/nightshift/agent.toml")).unwrap();
    assert_eq!(config.state_dir, Path::new("/home/alex/.local/state/nightshift-agent"));
    assert_eq!(config.base, config.state_dir.join("base"));
    assert!(!root.path().join("etc").exists());
}

#[test]
fn a_service_for_a_mac_is_written_anywhere() {
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"));
    command.args(["service", "install", "--user", "--manager", "launchd", "--root"]).arg(root.path());
    done(&command.env("HOME", "/Users/alex").output().unwrap());
    let list = root.path().join("Users/alex/Library/LaunchAgents/nightshift-agent.plist");
    let list = fs::read_to_string(list).unwrap();
    assert!(list.contains("/Users/alex/Library/Application Support/nightshift/agent.toml"));
}

#[test]
fn what_is_there_is_told_from_what_this_version_would_write() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(status(root.path(), "--system")["unit"], serde_json::Value::Null);
    done(&service(root.path(), &["install", "--system", "--data", "/srv/notes", "--run-as", "alex"]));
    let there = status(root.path(), "--system");
    assert_eq!((there["ours"].as_bool(), there["current"].as_bool()), (Some(true), Some(true)));

    // More text, of which the unit does not know yet.
    let config = root.path().join(CONFIG);
    let text =
        fs::read_to_string(&config).unwrap().replace("\"/srv/notes\"", "\"/srv/notes\", \"/srv/more\"");
    fs::write(&config, text).unwrap();
    assert_eq!(status(root.path(), "--system")["current"].as_bool(), Some(false));
    done(&service(root.path(), &["install", "--system", "--run-as", "alex"]));
    assert_eq!(status(root.path(), "--system")["current"].as_bool(), Some(true));
    assert!(fs::read_to_string(root.path().join(UNIT)).unwrap().contains("\"/srv/more\""));
}

#[test]
fn a_service_of_somebody_else_is_neither_replaced_nor_removed_unless_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let unit = root.path().join(UNIT);
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, "[Service]\nExecStart=/opt/theirs\n").unwrap();
    for command in ["install", "uninstall"] {
        let output = service(root.path(), &[command, "--system"]);
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        assert!(stderr(&output).contains(UNIT) && stderr(&output).contains("--force"), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/opt/theirs\n");
    }
    assert!(!root.path().join(CONFIG).exists(), "nothing is written where the unit cannot be");
    assert_eq!(status(root.path(), "--system")["ours"].as_bool(), Some(false));
    done(&service(root.path(), &["install", "--system", "--force"]));
    assert_eq!(status(root.path(), "--system")["ours"].as_bool(), Some(true));
}

#[test]
fn a_configuration_that_is_there_is_its_owner_s() {
    let root = tempfile::tempdir().unwrap();
    done(&service(root.path(), &["install", "--system", "--data", "/srv/notes"]));
    let before = fs::read(root.path().join(CONFIG)).unwrap();
    let output = service(root.path(), &["install", "--system", "--data", "/srv/other", "--assume", "idle"]);
    assert_eq!(output.status.code(), Some(3));
    for part in [CONFIG, "--data", "`data`", "--assume"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert_eq!(fs::read(root.path().join(CONFIG)).unwrap(), before);
}

#[test]
fn a_configuration_that_is_still_the_sample_is_filled_in() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join(CONFIG);
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, nightshift_agent::config::SAMPLE).unwrap();
    done(&service(root.path(), &["install", "--system", "--data", "/srv/notes"]));
    assert_eq!(Config::load(&config).unwrap().data, [Path::new("/srv/notes")]);
}

#[test]
fn what_is_removed_leaves_the_configuration_and_the_state_and_says_where() {
    let root = tempfile::tempdir().unwrap();
    assert!(done(&service(root.path(), &["uninstall", "--system"])).contains("there is no service"));
    done(&service(root.path(), &["install", "--system", "--data", "/srv/notes"]));
    let state = root.path().join("var/lib/nightshift-agent");
    fs::create_dir_all(&state).unwrap();
    let said = done(&service(root.path(), &["uninstall", "--system"]));
    assert!(!root.path().join(UNIT).exists());
    assert!(root.path().join(CONFIG).exists() && state.exists());
    assert!(said.contains("left as it is") && said.contains("var/lib/nightshift-agent"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let root = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["install", "--system", "--assume", "warm"][..], "mains"),
        (&["install", "--system", "--run-as", "a b"][..], "the name of a user"),
        (&["install", "--system", "--data", "/home/alex/\"notes\""][..], "another name"),
        (&["install", "--user", "--system"][..], "cannot be used with"),
        (&["install", "--user", "--run-as", "alex"][..], "cannot be used with"),
    ] {
        let output = service(root.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
