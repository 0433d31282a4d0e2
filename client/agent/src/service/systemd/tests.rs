use std::process::Command;

use super::super::tests::service;
use super::*;

fn lines<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let assignments = text.lines().filter_map(|line| line.split_once('='));
    assignments.filter(|(name, _)| *name == key).map(|(_, value)| value).collect()
}

#[test]
fn the_units_are_those_of_the_packages_but_for_one_machine_s_paths() {
    let own = |text: &str| -> Vec<String> {
        let same = |line: &&str| !line.starts_with("ExecStart=") && !line.starts_with("ConditionPathExists=");
        text.lines().filter(same).map(str::to_owned).collect()
    };
    for (scope, packaged) in [(Scope::System, SYSTEM_UNIT), (Scope::User, USER_UNIT)] {
        let written = unit(&service(scope)).unwrap();
        assert_eq!(own(&written), own(packaged));
        assert!(written.contains(MARKER));
        assert_eq!(lines(&written, "Type"), ["notify"]);
    }
    let start = "\"/usr/bin/nightshift-agent\" --config \"/etc/nightshift/agent.toml\" run";
    assert_eq!(lines(&unit(&service(Scope::System)).unwrap(), "ExecStart"), [start]);
}

#[test]
fn what_is_read_is_bound_and_nothing_else_of_a_home_is_seen() {
    let reads = vec![PathBuf::from("/home/alex/my notes"), PathBuf::from("/srv/100 %: all")];
    let text = unit(&Service { reads, ..service(Scope::System) }).unwrap();
    assert_eq!(lines(&text, "BindReadOnlyPaths"), ["-\"/home/alex/my notes\"", "-\"/srv/100 %%: all\""]);
    assert_eq!(lines(&text, "ProtectHome"), ["tmpfs"]);
    assert!(lines(&text, "ReadWritePaths").is_empty() && lines(&text, "BindPaths").is_empty());
}

#[test]
fn a_state_elsewhere_may_be_written_there() {
    let of = |folder: &str| unit(&Service { state_dir: folder.into(), ..service(Scope::System) }).unwrap();
    let text = of("/srv/state");
    assert_eq!(lines(&text, "ReadWritePaths"), ["\"/srv/state\""]);
    assert!(lines(&text, "StateDirectory").is_empty());
    assert_eq!(lines(&of("/home/alex/state"), "BindPaths"), ["\"/home/alex/state\""]);
    let folder = tmpfiles(&Service { state_dir: "/srv/state".into(), ..service(Scope::System) }).unwrap();
    assert!(folder.contains("d \"/srv/state\" 0700 nightshift-agent nightshift-agent -"), "{folder}");
}

#[test]
fn a_service_of_the_machine_may_run_as_a_person() {
    let as_alex = Service { run_as: Some("alex".to_owned()), ..service(Scope::System) };
    let text = unit(&as_alex).unwrap();
    assert_eq!(lines(&text, "User"), ["alex"]);
    assert!(lines(&text, "Group").is_empty());
    assert!(tmpfiles(&as_alex).unwrap().contains(" 0700 alex - -"));
    assert_eq!(chosen(&text).run_as.as_deref(), Some("alex"));
}

#[test]
fn a_program_that_the_machine_s_service_cannot_see_is_refused() {
    let program = PathBuf::from("/home/alex/.cargo/bin/nightshift-agent");
    let message =
        unit(&Service { program: program.clone(), ..service(Scope::System) }).unwrap_err().to_string();
    assert!(message.contains("/home/alex/.cargo") && message.contains("/usr/local/bin"), "{message}");
    assert!(unit(&Service { program, ..service(Scope::User) }).is_ok());
}

#[test]
fn what_was_chosen_is_found_in_the_unit_again() {
    let config = PathBuf::from("/srv/a $b 100 %/agent.toml");
    let text = unit(&Service { config: config.clone(), ..service(Scope::System) }).unwrap();
    assert_eq!(chosen(&text), Chosen { config: Some(config), run_as: None });
    assert_eq!(chosen(""), Chosen::default());
}

#[test]
fn a_running_service_is_read_from_what_systemctl_shows() {
    let text = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
                FragmentPath=/etc/systemd/system/nightshift-agent.service\n\
                ActiveEnterTimestamp=Mon 2026-11-30 01:02:03 UTC\nMainPID=812\nResult=success\nExecMainStatus=0\n\
                StatusText=takes part as a=b\nNeedDaemonReload=yes\n";
    let expected = Shown {
        load: "loaded".to_owned(),
        enabled: "enabled".to_owned(),
        active: "active".to_owned(),
        detail: "running".to_owned(),
        since: Some("Mon 2026-11-30 01:02:03 UTC".to_owned()),
        main_pid: Some(812),
        result: "success".to_owned(),
        exit_status: Some(0),
        says: Some("takes part as a=b".to_owned()),
        unit: Some("/etc/systemd/system/nightshift-agent.service".into()),
        stale: true,
    };
    assert_eq!(shown(text), expected);
}

#[test]
fn a_service_that_failed_and_one_that_never_ran_are_told_apart() {
    let failed =
        shown("ActiveState=failed\nResult=exit-code\nExecMainStatus=3\nMainPID=0\nActiveEnterTimestamp=\n");
    assert_eq!((failed.exit_status, failed.main_pid, failed.since), (Some(3), None, None));
    let never =
        shown("LoadState=not-found\nActiveState=inactive\nResult=success\nExecMainStatus=0\nMainPID=0\n");
    assert_eq!((never.exit_status, never.load.as_str(), never.unit), (None, "not-found", None));
}

/// The highest exposure of a unit in tenths, as `systemd-analyze security` counts it from 0 to 100.
const MOST_EXPOSED: &str = "20";

fn analyze(arguments: &[&str], units: &[&Path]) -> Option<String> {
    let output = match Command::new("systemd-analyze").args(arguments).args(units).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: systemd-analyze {}: {error}", arguments.join(" "));
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemd-analyze {}: {said}", arguments.join(" "));
    Some(said.into_owned())
}

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd").join(name)
}

#[test]
fn units_of_the_machine_are_exposed_by_two_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("nightshift-agent.service");
    let reads = vec![PathBuf::from("/home/alex/notes")];
    std::fs::write(&written, unit(&Service { reads, ..service(Scope::System) }).unwrap()).unwrap();
    for path in [written, deployed("nightshift-agent.service"), deployed("nightshift-coordinator.service")] {
        let threshold = format!("--threshold={MOST_EXPOSED}");
        let Some(said) = analyze(&["security", "--offline=true", "--no-pager", &threshold], &[&path]) else {
            return;
        };
        let last = said.lines().find(|line| line.contains("Overall exposure")).unwrap_or_default();
        println!("{}: {}", path.display(), last.trim());
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let folder = tempfile::tempdir().unwrap();
    // A program that is there: units name where packages put theirs.
    let there = |text: &str| text.replace("/usr/bin/nightshift-coordinator", "/bin/sh");
    let coordinator = std::fs::read_to_string(deployed("nightshift-coordinator.service")).unwrap();
    let of = |scope| Service { program: "/bin/sh".into(), ..service(scope) };
    for (name, text) in [
        ("nightshift-agent.service", unit(&of(Scope::System)).unwrap()),
        ("nightshift-coordinator.service", there(&coordinator)),
    ] {
        let path = folder.path().join(name);
        // What a manual page is found by is not asked of the machine that builds.
        let text =
            text.lines().filter(|line| !line.starts_with("Documentation=")).collect::<Vec<_>>().join("\n");
        std::fs::write(&path, text).unwrap();
        if let Some(said) = analyze(&["verify", "--no-pager"], &[&path]) {
            let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("nightshift")).collect();
            assert!(about_ours.is_empty(), "{}", about_ours.join("\n"));
        }
    }
}
