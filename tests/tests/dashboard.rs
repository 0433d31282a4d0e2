//! The coordinator's page: what it is served with, what its document says of a federation, and what a browser makes of it.
//!
//! The last needs Chromium. Without it that test says so and is skipped, unless `NIGHTSHIFT_REQUIRE_CHROMIUM` is set.
//! `NIGHTSHIFT_SCREENSHOTS` names a folder that is given pictures of the page.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes are waited for")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stage::{Running, Stage, output, start};

#[path = "common/stage.rs"]
mod stage;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

/// Browsers, by the names that systems give them.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// An operator's `nightshift dashboard`, and where it says that the page is.
fn dashboard(stage: &Stage) -> (Running, String) {
    dashboard_by(stage.nightshift())
}

fn dashboard_by(mut operator: Command) -> (Running, String) {
    let mut child = start(operator.arg("dashboard").stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Running::quiet(child), line.trim().to_owned())
}

struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let is_it =
            |line: &&str| line.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.headers.lines().find(is_it).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }
}

fn get(page: &str, path: &str, more: &str) -> Answer {
    let (host, secret) = page.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{secret}{path}") };
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.to_owned(), body: body.to_owned() }
}

/// The document of an event, and its id.
fn event(answer: &Answer) -> (Value, String) {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    let line = |name: &str| answer.body.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (serde_json::from_str(&line("data: ")).unwrap(), line("id: "))
}

/// A coordinator, four devices and their task of two versions, which is over.
fn federation() -> (Stage, Running) {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    let plan = ["--versions", "2", "--privacy", "off", "--local-steps", "1", "--metrics", "loss,gain"];
    stage.create_task(&plan);
    let names = ["anna", "bela", "cleo", "dora"];
    for (place, name) in names.iter().enumerate() {
        stage.enroll(name, &stage::short_lines(place));
    }
    let running = names.map(|name| stage.run(name, &[]));
    let begun = Instant::now();
    while stage.task()["state"] != "complete" {
        assert!(begun.elapsed() < PATIENCE, "{}", stage.task());
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(running);
    (stage, coordinator)
}

#[test]
fn the_page_is_whole_in_itself_and_says_what_there_is() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    let (_dashboard, page) = dashboard(&stage);
    let html = get(&page, "", "");
    assert_eq!((html.status, html.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = html.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    for (header, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(html.header(header), Some(value));
    }
    // What the policy forbids is not there, and everything that is named is.
    for forbidden in ["<style", " style=", "javascript:", "http:", "https:", " on"] {
        let found = html
            .body
            .match_indices(forbidden)
            .find(|(at, _)| html.body[..*at].rfind('<') > html.body[..*at].rfind('>'));
        assert_eq!(found, None, "{forbidden}");
    }
    for (path, kind) in
        [("page.css", "text/css; charset=utf-8"), ("page.js", "text/javascript; charset=utf-8")]
    {
        assert!(html.body.contains(&format!("\"{path}\"")), "{path}");
        assert_eq!(get(&page, path, "").header("content-type"), Some(kind));
    }
    for elsewhere in ["/", "/events", "/nightshift.v1.Admin/Send"] {
        assert_eq!(get(&page, elsewhere, "").status, 404);
    }
    assert_eq!(get(&page, "nightshift.v1.Admin/Send", "").status, 404);

    let (seen, id) = event(&get(&page, "events", ""));
    assert_eq!(seen["schema"], "nightshift.dashboard/1");
    assert_eq!((&seen["tasks"], &seen["devices"]["enrolled"]), (&serde_json::json!([]), &0.into()));
    assert_eq!(seen["operators"][0]["name"], "operator");
    assert!(seen["health"]["server_expires_unix_secs"].as_u64() > Some(1_700_000_000));

    // Nothing is said twice; what is new is said when it is.
    let begun = Instant::now();
    let news = std::thread::scope(|scope| {
        let waits = scope.spawn(|| get(&page, "events", &format!("Last-Event-ID: {id}\r\n")));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!waits.is_finished(), "nothing has changed");
        stage.create_task(&["--versions", "1", "--privacy", "off"]);
        waits.join().unwrap()
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let (seen, other) = event(&news);
    assert_ne!(other, id);
    assert_eq!(
        (&seen["tasks"][0]["status"]["name"], &seen["tasks"][0]["status"]["version"]),
        (&"owl".into(), &0.into())
    );
}

#[test]
fn whoever_is_revoked_sees_nothing_more_not_even_what_they_had_asked_for_before() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    let folder = stage.path("vera");
    stage.operator(&["operator", "add", "vera", "--role", "viewer", "--out", folder.to_str().unwrap()]);
    let mut vera = Command::new(stage.nightshift().get_program());
    vera.arg("--dir").arg(&folder);
    let (_dashboard, page) = dashboard_by(vera);
    let (_, id) = event(&get(&page, "events", ""));
    let held = std::thread::scope(|scope| {
        let waits = scope.spawn(|| get(&page, "events", &format!("Last-Event-ID: {id}\r\n")));
        std::thread::sleep(Duration::from_secs(1));
        let listed = stage.operator(&["operator", "ls", "--format", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let mut operators = listed["operators"].as_array().unwrap().iter();
        let of_vera = operators.find(|one| one["name"] == "vera").unwrap();
        stage.operator(&["operator", "revoke", of_vera["serial"].as_str().unwrap()]);
        stage.create_task(&["--versions", "1", "--privacy", "off"]);
        waits.join().unwrap()
    });
    assert!(held.status == 403 && !held.body.contains("owl"), "{} {}", held.status, held.body);
    // And is told so in words.
    for path in ["", "page.js", "events"] {
        let refused = get(&page, path, "");
        assert_eq!(
            (refused.status, refused.header("content-type")),
            (403, Some("text/plain; charset=utf-8")),
            "{path}"
        );
        assert!(
            refused.body.starts_with("this operator's certificate is not taken here: it was revoked"),
            "{}",
            refused.body
        );
    }
}

#[test]
fn a_certificate_that_is_exchanged_in_the_folder_goes_on_showing_the_page() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    let (_dashboard, page) = dashboard(&stage);
    let (_, id) = event(&get(&page, "events", ""));
    let held = std::thread::scope(|scope| {
        let waits = scope.spawn(|| get(&page, "events", &format!("Last-Event-ID: {id}\r\n")));
        std::thread::sleep(Duration::from_secs(1));
        stage.operator(&["operator", "rotate"]);
        waits.join().unwrap()
    });
    let (seen, _) = event(&held);
    assert_eq!(seen["operators"].as_array().unwrap().len(), 1, "{seen}");
    for path in ["", "page.js", "events"] {
        assert_eq!(get(&page, path, "").status, 200, "{path}");
    }
}

/// What a browser makes of the page when the first event has come, as markup. Its time stands still while it waits for an answer,
/// and half a second after that it asks for the next.
fn browse(browser: &str, page: &str, more: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"]);
    command
        .args(["--disable-background-networking", "--virtual-time-budget=400"])
        .args(more)
        .arg("--dump-dom")
        .arg(page);
    let ended = output(&mut command);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

fn picture(folder: &Path, name: &str) -> String {
    format!("--screenshot={}", folder.join(name).display())
}

#[test]
fn a_browser_shows_a_federation_and_its_devices() {
    let runs = |browser: &&str| {
        Command::new(browser).arg("--version").output().is_ok_and(|ended| ended.status.success())
    };
    let Some(browser) = BROWSERS.into_iter().find(runs) else {
        assert!(
            std::env::var_os("NIGHTSHIFT_REQUIRE_CHROMIUM").is_none(),
            "NIGHTSHIFT_REQUIRE_CHROMIUM is set"
        );
        eprintln!("skipped: Chromium is not installed, a_browser_shows_a_federation_and_its_devices");
        return;
    };
    let (stage, _coordinator) = federation();
    let (_dashboard, page) = dashboard(&stage);
    let shown = browse(browser, &page, &["--window-size=1280,1400"]);
    for says in [
        "owl",
        "version 2 of 2",
        "complete",
        "Training loss by version. From ",
        "over 2 versions",
        "How version 2 came about",
        "counted 4",
        "Privacy is off: ε is unbounded.",
        "the coordinator learns the exact sum",
        "may connect",
        "operator operator",
        "Live; the last change was at",
    ] {
        assert!(shown.contains(says), "{says} is not in {shown}");
    }
    assert!(!shown.contains("undefined") && !shown.contains("NaN"), "{shown}");
    // A label is shown as what it is.
    stage.create_task(&["--versions", "1", "--privacy", "off"]);
    if let Some(folder) = std::env::var_os("NIGHTSHIFT_SCREENSHOTS") {
        let folder = Path::new(&folder);
        browse(browser, &page, &["--window-size=1280,1700", &picture(folder, "desktop.png")]);
        browse(
            browser,
            &page,
            &[
                "--window-size=1280,1700",
                "--blink-settings=preferredColorScheme=0",
                &picture(folder, "dark.png"),
            ],
        );
        browse(browser, &page, &["--window-size=390,3000", &picture(folder, "phone.png")]);
    }
}
