//! A coordinator whose store is in PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use coordinator::config::StoreKeys;
use coordinator::{offline, stored};
use nightshift_coordinator as coordinator;
use shell::store::StoreError;
use support::postgres;

/// A configuration of a state folder, with these lines of `[store]`.
fn configured(folder: &Path, name: &str, store: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let state = folder.join(name);
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nstate_dir = {:?}\ndrain_secs = 0\n[store]\n{store}\n",
        state.to_str().unwrap()
    );
    fs::write(&path, text).unwrap();
    path
}

fn coordinator(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-coordinator"));
    command.arg("--config").arg(config);
    command
}

fn refused(config: &Path) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = coordinator(config).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// One that serves, killed when dropped.
struct Running(Child);

impl Running {
    fn start(config: &Path) -> Self {
        let mut child = coordinator(config).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let all: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("for operators")).collect();
        assert!(child.try_wait().unwrap().is_none(), "{}", all.join("\n"));
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_coordinator_with_a_database_starts_again_and_takes_no_other_s() {
    let Some(server) = postgres::shared("a_coordinator_with_a_database_starts_again_and_takes_no_other_s")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let address = server.address(&server.database());
    let store = format!("address = {address:?}");
    let config = configured(folder.path(), "one", &store);
    let first = Running::start(&config);
    let (code, said) = refused(&configured(folder.path(), "one", &store));
    assert!(code == Some(4) && said.contains("in use"), "{code:?} {said}");
    drop(first);
    let state = folder.path().join("one");
    assert!(!state.join("store/db").exists());
    drop(Running::start(&config));
    let keys = StoreKeys { address: address.clone(), ..StoreKeys::default() };
    let report = offline::check_in(&keys, &state).unwrap();
    assert!(report.records > 0 && report.faults.is_empty(), "{report:?}");

    // Another coordinator's folder, this one with another database, and without one.
    let (code, said) = refused(&configured(folder.path(), "two", &store));
    assert!(
        code == Some(3) && said.contains("does not say that it is this coordinator's"),
        "{code:?} {said}"
    );
    let other = format!("address = {:?}", server.address(&server.database()));
    let (code, said) = refused(&configured(folder.path(), "one", &other));
    assert!(code == Some(3) && said.contains("another coordinator's"), "{code:?} {said}");
    let (code, said) = refused(&configured(folder.path(), "one", ""));
    assert!(code == Some(3) && said.contains("is in a database"), "{code:?} {said}");
    // A folder that has a store of its own.
    drop(Running::start(&configured(folder.path(), "three", "")));
    let (code, said) = refused(&configured(folder.path(), "three", &other));
    assert!(code == Some(3) && said.contains("holds a store already"), "{code:?} {said}");
}

#[test]
fn a_password_is_read_from_a_file_of_its_owner_and_never_shown() {
    let Some(server) = postgres::shared("a_password_is_read_from_a_file_of_its_owner_and_never_shown") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    let keys = StoreKeys {
        address: server.address(&server.database()),
        password_file: password_file.clone(),
        ..StoreKeys::default()
    };
    let open = || {
        stored::open_store(&keys, &folder.path().join("state")).map_err(|error| (error.to_string(), error))
    };
    let (absent, _) = open().unwrap_err();
    assert!(absent.contains(password_file.to_str().unwrap()), "{absent}");
    fs::write(&password_file, "geheim\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o644)).unwrap();
        let (exposed, _) = open().unwrap_err();
        assert!(
            exposed.contains(password_file.to_str().unwrap()) && !exposed.contains("geheim"),
            "{exposed}"
        );
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(!format!("{:?}", open().unwrap()).contains("geheim"));
    fs::write(&password_file, "ge\nheim\n").unwrap();
    let (two_lines, error) = open().unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }) && !two_lines.contains("heim"), "{two_lines}");
}
