//! Commands reach a device that another process holds, and nobody else does.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a device answers beside the test")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use client::Device;
use nightshift_agent::control::{Answer, Request, ask, serve, socket};
use tokio_util::sync::CancellationToken;

fn agent(folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_nightshift-agent");
    Command::new(program).arg("--state-dir").arg(folder).args(arguments).output().unwrap()
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), string(&output.stdout), string(&output.stderr))
}

/// Sends bytes as they are, and gives the line that comes back.
fn raw(folder: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(folder)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The daemon may have answered before it was all sent.
    let _sent = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_ask_and_tell_the_daemon_while_it_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_owned();
    let device = Device::open(&folder).unwrap();
    let (control, stop) = (device.control(), CancellationToken::new());
    let serving = tokio::spawn(serve(&folder, control.clone(), stop.clone()).unwrap());
    let mode = std::fs::metadata(socket(&folder)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let of = folder.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let (code, out, err) = text(&agent(&of, &["pause", "2h"]));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.starts_with("paused until 2"), "{out}");
        let (code, out, err) = text(&agent(&of, &["status"]));
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("not enrolled"), "{out}");
        let (code, out, _) = text(&agent(&of, &["--format", "json", "log"]));
        assert!(code == Some(0) && out.contains("\"event\": \"paused\""), "{out}");
        let (code, out, _) = text(&agent(&of, &["tasks"]));
        assert_eq!((code, out.trim()), (Some(0), "this device knows of no task yet"));
        let (code, out, _) = text(&agent(&of, &["ledger"]));
        assert_eq!((code, out.trim()), (Some(0), "this device has not contributed anything"));
        // Who cannot have the folder is told by whom it is held.
        let (code, _, err) = text(&agent(&of, &["ledger", "--verify"]));
        assert!(code == Some(4) && err.contains("an agent runs and holds the ledger"), "{err}");
        let (code, _, err) = text(&agent(&of, &["run"]));
        assert!(code == Some(4) && err.contains("in use by another process"), "{err}");

        for nonsense in
            [&b"\n"[..], b"{}\n", b"{\"ask\":\"everything\"}\n", b"\xff\xfe\n", b"{\"ask\":\"now\"}"]
        {
            let stream = UnixStream::connect(socket(&of)).unwrap();
            drop(stream);
            let line = if nonsense.ends_with(b"\n") { raw(&of, nonsense) } else { continue };
            assert!(line.is_empty() || line.contains("\"answer\":\"failed\""), "{line}");
        }
        // A request without an end is cut where requests end.
        let line = raw(&of, &vec![b'x'; 1 << 20]);
        assert!(line.contains("not a request"), "{line}");
        assert!(
            matches!(ask(&of, &Request::Now), Ok(Some(Answer::Now(now))) if now.paused_until.is_none_or(|until| until > 0))
        );
        assert_eq!(ask(&of, &Request::Resume).unwrap(), Some(Answer::Done));
    });
    asked.await.unwrap();
    stop.cancel();
    serving.await.unwrap();
    assert!(!socket(&folder).exists());
    drop(device);
    drop(control);

    // Without a daemon the same commands open the folder themselves; what the daemon kept is there.
    let asked = tokio::task::spawn_blocking(move || {
        assert!(ask(&folder, &Request::Now).unwrap().is_none());
        let (code, out, _) = text(&agent(&folder, &["log"]));
        assert!(code == Some(0) && out.contains("paused") && out.contains("resumed"), "{out}");
        let (code, out, _) = text(&agent(&folder, &["status"]));
        assert!(code == Some(0) && out.contains("no agent runs") && !out.contains("paused"), "{out}");
        let (code, _, err) = text(&agent(&folder, &["pause"]));
        assert_eq!(code, Some(0), "{err}");
        let (_, out, _) = text(&agent(&folder, &["status"]));
        assert!(
            out.contains("paused until `nightshift-agent resume`") && out.contains("no agent runs"),
            "{out}"
        );
        let (_, out, _) = text(&agent(&folder, &["--format", "json", "status"]));
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&status["paused_until"], &status["running"]), (&u64::MAX.into(), &false.into()));
        assert!(
            status["waits_for"]
                .as_array()
                .unwrap()
                .iter()
                .any(|why| why.as_str().unwrap().contains("no text"))
        );
        let task = "07070707070707070707070707070707";
        let (code, out, _) = text(&agent(&folder, &["forget", task]));
        assert!(code == Some(0) && out.contains("nothing of it was on this disk"), "{out}");
        let (code, out, _) = text(&agent(&folder, &["tasks"]));
        assert!(code == Some(0) && out.contains("0 contributions, not installed, forgotten"), "{out}");
        let (code, out, _) = text(&agent(&folder, &["forget", task, "--undo"]));
        assert!(code == Some(0) && out.contains("again"), "{out}");
        let (code, _, err) = text(&agent(&folder, &["pause", "2 hours"]));
        assert!(code == Some(2) && err.contains("\"2 hours\" is not a time span"), "{err}");
    });
    asked.await.unwrap();
}

#[test]
fn what_is_no_device_has_nothing_to_tell_and_is_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (absent, other) = (root.path().join("absent"), root.path().join("other"));
    std::fs::create_dir_all(other.join("state")).unwrap();
    for folder in [&absent, &other] {
        for words in [&["ledger", "--verify"][..], &["ledger"], &["tasks"], &["log"], &["pause"]] {
            let (code, out, err) = text(&agent(folder, words));
            assert_eq!((code, out.as_str()), (Some(3), ""), "{words:?}: {err}");
            let said =
                format!("there is no device in {}; `nightshift-agent enroll` makes one", folder.display());
            assert!(err.contains(&said), "{words:?}: {err}");
        }
    }
    assert!(!absent.exists());
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
    // One that has just been made has a chain of nothing.
    let made = root.path().join("made");
    drop(Device::open(&made).unwrap());
    let (code, out, err) = text(&agent(&made, &["ledger", "--verify"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("the chain of 0 records is whole"), "{out}");
}

#[test]
fn what_would_be_read_is_told_by_counts_and_without_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "the sea is blue\n\npassword = hunter2hunter2\n\nthe sea is blue\n").unwrap();
    std::fs::write(folder.path().join("photo.png"), [0, 1, 2]).unwrap();
    let data = folder.path().to_str().unwrap();
    let (code, out, err) =
        text(&agent(&folder.path().join("state"), &["--data", data, "--format", "json", "data", "check"]));
    assert_eq!(code, Some(0), "{err}");
    let checked: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(checked["files"], 1);
    assert!(checked["secret_looking"].as_u64().unwrap() >= 1 && checked["unread_files"] == 1, "{checked}");
    assert!(!out.contains("sea") && !out.contains("hunter2"), "{out}");
    let (code, _, err) = text(&agent(&folder.path().join("state"), &["data", "check"]));
    assert!(code == Some(3) && err.contains("no text"), "{err}");
    assert!(!folder.path().join("state").exists(), "nothing is written");
}

#[test]
fn what_each_file_is_taken_for_and_what_is_learned_of_it_is_told_before_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base");
    let pair = r#"{"prompt": "w5 w6", "completion": " w7"}"#;
    let rows = format!("{pair}\n{{\"prompt\": \"w8\"}}\n{{\"prompt\": \"w9\"}}\n");
    std::fs::write(folder.path().join("pairs.jsonl"), rows).unwrap();
    std::fs::write(folder.path().join("a.txt"), "w10 w11\n").unwrap();
    let (data, base) = (folder.path().to_str().unwrap(), base.to_str().unwrap().to_owned());
    let check = |more: &[&str]| {
        let args = [&["--base", &base, "data", "check", data][..], more].concat();
        text(&agent(&folder.path().join("state"), &args))
    };
    let (code, out, err) = check(&["--show", "2"]);
    assert_eq!(code, Some(0), "{err}");
    for told in [
        "2 files read, 2 documents (1 with roles)",
        "pairs.jsonl: 2 lines skipped, the first is 2: `prompt` without `completion`",
        "pairs.jsonl: taken for 1 of prompt and completion",
        "a.txt: taken for 1 of paragraphs",
        "tokens are learned",
        "given   | w5 w6",
        "learned | w7",
    ] {
        assert!(out.contains(told), "{told}: {out}");
    }
    let (code, out, err) = check(&["--show", "1", "--format", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let checked: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(checked["skipped"][0]["lines"], 2);
    assert_eq!(checked["tokens"]["given"], 2, "{checked}");
    assert_eq!(checked["shown"].as_array().unwrap().len(), 1);
    assert!(!folder.path().join("state").exists(), "nothing is written");
    // Nothing of it can be used: that is said, with the reason, and ends as a training would.
    std::fs::write(folder.path().join("pairs.jsonl"), "{\"prompt\": \"w8\"}\n").unwrap();
    std::fs::remove_file(folder.path().join("a.txt")).unwrap();
    let (code, out, err) = check(&[]);
    assert!(code == Some(3) && out.contains("0 documents") && err.contains("`prompt` without"), "{out}{err}");
}
