//! What a running coordinator says of itself: its metrics over HTTP, read strictly, and its health over gRPC.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the server is a task of its own")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aggregation::log::{Leaf, Witness, log_key};
use aggregation::{IdentityKey, IdentityPublic};
use authority::kept_log::KeptLog;
use authority::witness::{self, Witnessing};
use authority::witnesses::WitnessKeys;
use nightshift_coordinator::config::Config;
use nightshift_coordinator::driver::{Driver, now};
use nightshift_coordinator::pki::Identity;
use nightshift_coordinator::server::{Coordinator, Listeners, OPERATOR, ServerError};
use proto::admin::{AdminReply, AdminRequest};
use proto::convert;
use proto::files::{self, Audience};
use proto::ids::DeviceId;
use proto::message::{Reply, Request};
use proto::plan::Plan;
use proto::wire::admin_client::AdminClient;
use shell::store::{Batch, Store};
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LONG: Duration = Duration::from_secs(30);

struct Running {
    folder: tempfile::TempDir,
    device: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
    driver: Driver,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServerError>>,
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A coordinator's state folder whose enrollment log has an entry; gives the key that signs it.
fn one_entry(state: &Path) -> IdentityPublic {
    std::fs::create_dir_all(state).unwrap();
    files::write(&state.join("enrolment.seed"), &[7; 32], Audience::Owner).unwrap();
    let key = IdentityKey::from_seed(&[7; 32]);
    let store = Store::open(&state.join("store")).unwrap();
    let log = KeptLog::open(store.clone(), key.public()).unwrap();
    let (mut turn, mut batch) = (log.turn(), Batch::new());
    let leaf = Leaf::Revocation { device: [1; 16], unix_secs: 1 };
    turn.write(&mut batch, &leaf, &key, now().as_secs()).unwrap();
    store.commit_blocking(&batch).unwrap();
    turn.kept();
    key.public()
}

/// What is scraped, once the witness has signed and the other one was asked.
async fn scraped(running: &Running) -> (u16, String, String) {
    let scraped = async {
        loop {
            let scraped = get(running.metrics, "GET /metrics").await;
            let has = |what: &str| scraped.2.contains(what);
            if has("nightshift_witness_entries{witness=\"owl\"} 1")
                && has("nightshift_witness_trouble{witness=\"away\"} 1")
            {
                return scraped;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, scraped).await.unwrap()
}

async fn running() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("state");
    let authority = one_entry(&state_dir);
    let stop = CancellationToken::new();
    // One witness signs; where the other one should be, nobody listens.
    let key = witness::init(&folder.path().join("witness"), "owl").unwrap();
    let signs = Witnessing::open(&folder.path().join("witness"), vec![log_key(&authority)]).unwrap();
    let witnesses = listener().await;
    let url = format!("http://{}", witnesses.local_addr().unwrap());
    tokio::spawn(Arc::new(signs).serve(witnesses, stop.clone()));
    let other = Witness::new("away", IdentityKey::from_seed(&[1; 32]).public()).unwrap();
    let keys = |key, url| WitnessKeys { key, url, ca: PathBuf::new(), timeout_secs: 5 };
    let witness = vec![keys(key, url), keys(other, "http://127.0.0.1:1".to_owned())];
    let config = Config { state_dir, drain_secs: 5, witness, ..Config::default() };
    let listeners = Listeners { device: listener().await, admin: listener().await };
    let observed = listener().await;
    let metrics = observed.local_addr().unwrap();
    let coordinator = Coordinator::open(config, listeners).unwrap().observed(Some(observed));
    let (device, admin) = coordinator.addresses();
    let driver = coordinator.driver();
    let served = tokio::spawn(coordinator.serve(stop.clone()));
    Running { folder, device, admin, metrics, driver, stop, served }
}

/// The status, the type and the body.
async fn get(address: SocketAddr, request: &str) -> (u16, String, String) {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = timeout(LONG, asked).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, kind.to_owned(), body.to_owned())
}

type Labels = BTreeMap<String, String>;

/// A metric family: its type, its unit and its samples, each with its name, its labels and its value.
#[derive(Debug, Default)]
struct Read {
    kind: String,
    help: String,
    unit: String,
    samples: Vec<(String, Labels, f64)>,
}

/// Reads OpenMetrics text as its specification says it, and panics with the line where it is not so: one block for each
/// family, its `# TYPE` and `# HELP` before its samples, `_total` for counters, `# EOF` and nothing behind it.
fn read(text: &str) -> BTreeMap<String, Read> {
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    let text = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    assert!(!text.contains("# EOF"), "an end in the middle");
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let (word, name, rest) =
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
            assert!(is_name(name), "{line}");
            if name != current {
                assert!(!families.contains_key(name), "a second block: {line}");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "behind its samples: {line}");
            let field = match word {
                "TYPE" => &mut family.kind,
                "HELP" => &mut family.help,
                "UNIT" => &mut family.unit,
                _ => panic!("{line}"),
            };
            assert!(field.is_empty() && !rest.is_empty(), "{line}");
            rest.clone_into(field);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(seen.insert(series.to_owned()), "twice: {line}");
        let (name, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((name, labels)) => {
                (name, read_labels(labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))))
            }
        };
        assert!(is_name(name), "{line}");
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family: {line}"));
        let end = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("of another family: {line}"));
        let fits = match family.kind.as_str() {
            "counter" => end == "_total" && value >= 0.0,
            "gauge" => end.is_empty(),
            "info" => end == "_info" && (value - 1.0).abs() < f64::EPSILON,
            "histogram" => match end {
                "_bucket" => labels.contains_key("le"),
                "_sum" | "_count" => !labels.contains_key("le"),
                _ => false,
            },
            other => panic!("the type {other}: {line}"),
        };
        assert!(fits, "{line}");
        family.samples.push((name.to_owned(), labels, value));
    }
    for (name, family) in &families {
        assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name}: {family:?}");
        assert!(family.unit.is_empty() || name.ends_with(&format!("_{}", family.unit)), "{name}: {family:?}");
        if family.kind == "histogram" {
            check_buckets(name, family);
        }
    }
    families
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn read_labels(text: &str) -> Labels {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        let (value, after) = value.split_once('"').unwrap_or_else(|| panic!("{text}"));
        assert!(is_name(name) && !value.contains('\\'), "{text}");
        assert!(labels.insert(name.to_owned(), value.to_owned()).is_none(), "twice: {text}");
        rest = after.strip_prefix(',').unwrap_or(after);
        assert!(after.is_empty() || after.len() > rest.len(), "{text}");
    }
    labels
}

/// Buckets grow, the last is all, and it is the count.
fn check_buckets(name: &str, family: &Read) {
    let mut by_labels: BTreeMap<Labels, (Vec<(f64, f64)>, f64)> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut others = labels.clone();
        let le = others.remove("le");
        let entry = by_labels.entry(others).or_default();
        if let Some(le) = le {
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
            entry.0.push((le, *value));
        } else if sample.ends_with("_count") {
            entry.1 = *value;
        }
    }
    for (labels, (buckets, count)) in by_labels {
        let grow = buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        let last = buckets.last().unwrap();
        assert!(grow && last.0.is_infinite(), "{name} {labels:?}: {buckets:?}");
        assert!((last.1 - count).abs() < f64::EPSILON, "{name} {labels:?}: {buckets:?}, {count}");
    }
}

fn value(families: &BTreeMap<String, Read>, family: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let found = families[family].samples.iter().find(|(_, known, _)| *known == labels);
    found.unwrap_or_else(|| panic!("{family} {labels:?}")).2
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_is_open_metrics_and_says_what_there_is() {
    let running = running().await;
    let (status, kind, text) = scraped(&running).await;
    assert_eq!((status, kind.as_str()), (200, "application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let families = read(&text);
    let is = |family: &str, labels: &[(&str, &str)], expected: f64| {
        let found = value(&families, family, labels);
        assert!((found - expected).abs() < f64::EPSILON, "{family} {labels:?}: {found}");
    };
    is("nightshift_tasks", &[("state", "active")], 0.0);
    is("nightshift_devices", &[("state", "enrolled")], 0.0);
    is("nightshift_rounds", &[("outcome", "published")], 0.0);
    is("nightshift_open_rounds", &[("step", "masked")], 0.0);
    is("nightshift_turned_away", &[("listener", "devices"), ("reason", "silent")], 0.0);
    is("nightshift_connections", &[("listener", "devices")], 0.0);
    is("nightshift_held_questions", &[], 0.0);
    is("nightshift_ready", &[], 1.0);
    is("nightshift_disk_trouble", &[], 0.0);
    is("nightshift_authority_answers", &[], 1.0);
    is("nightshift_log_entries", &[], 1.0);
    is("nightshift_log_rounds_entries", &[], 1.0);
    is("nightshift_log_devices", &[], 0.0);
    is("nightshift_log_young_devices", &[], 0.0);
    is("nightshift_log_least_witnesses", &[], 0.0);
    is("nightshift_log_waiting_versions", &[], 0.0);
    is("nightshift_witness_trouble", &[("witness", "owl")], 0.0);
    is("nightshift_witness_entries", &[("witness", "away")], 0.0);
    for witness in ["owl", "away"] {
        is("nightshift_witness_saw_other_log", &[("witness", witness)], 0.0);
    }
    let at = value(&families, "nightshift_witness_signed_timestamp_seconds", &[("witness", "owl")]);
    // The start, and the operator's certificate.
    is("nightshift_audit_entries", &[], 3.0);
    assert_eq!(families["nightshift_build"].samples[0].1["version"], env!("CARGO_PKG_VERSION"));
    let clock = value(&families, "nightshift_clock_timestamp_seconds", &[]);
    let end = |certificate| {
        value(&families, "nightshift_certificate_end_timestamp_seconds", &[("certificate", certificate)])
    };
    let signed = value(&families, "nightshift_log_head_timestamp_seconds", &[("head", "rounds")]);
    assert!((clock - signed).abs() < 60.0 && (clock - at).abs() < 60.0, "{clock} {signed} {at}");
    assert!(clock > 1.7e9 && end("server") > clock && end("authority") > end("server"));
    // What comes at a listener is there in the next one.
    let connection = TcpStream::connect(running.device).await.unwrap();
    let seen = async {
        loop {
            let families = read(&get(running.metrics, "GET /metrics").await.2);
            if value(&families, "nightshift_connections", &[("listener", "devices")]) > 0.0 {
                return;
            }
        }
    };
    timeout(LONG, seen).await.unwrap();
    drop(connection);
    // No name of anybody is a label.
    for (name, family) in &families {
        for label in family.samples.iter().flat_map(|(_, labels, _)| labels.values()) {
            assert!(label.len() <= 24 && !label.contains('/'), "{name}: {label}");
        }
    }
    running.stop.cancel();
    timeout(LONG, running.served).await.unwrap().unwrap().unwrap();
    drop(running.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_where_it_is_installed() {
    let promtool = Command::new("promtool").arg("--version").output();
    if promtool.is_err() {
        println!("skipped: promtool is not installed");
        return;
    }
    let running = running().await;
    let (_, _, text) = get(running.metrics, "GET /metrics").await;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads the older form, of which this is the same but for the end.
    let text = text.trim_end_matches("# EOF\n");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = child.wait_with_output().unwrap();
    assert!(checked.status.code() != Some(1), "{}", String::from_utf8_lossy(&checked.stderr));
    running.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_there_and_nothing_else() {
    let running = running().await;
    let asked = async |request| {
        let (status, _, body) = get(running.metrics, request).await;
        (status, body)
    };
    assert_eq!(asked("GET /healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(asked("GET /readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(asked("POST /metrics").await.0, 405);
    assert_eq!(asked("GET /").await.0, 404);
    // Who sends nothing takes one of the places for as long as a request may take, and no more.
    let mut silent = TcpStream::connect(running.metrics).await.unwrap();
    let mut byte = [0];
    assert!(timeout(LONG, silent.read(&mut byte)).await.is_ok());
    // However many of them there are, they keep nobody out who asks.
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(TcpStream::connect(running.metrics).await.unwrap());
    }
    let soon = timeout(Duration::from_secs(2), asked("GET /healthz")).await;
    assert_eq!(soon.unwrap(), (200, "ok\n".to_owned()));
    drop(crowd);
    running.stop.cancel();
    timeout(LONG, running.served).await.unwrap().unwrap().unwrap();
    drop(running.folder);
}

/// A connection with the operator's certificate, or with none.
async fn channel(folder: &Path, address: SocketAddr, is_named: bool) -> Channel {
    let identity = Identity::load(&folder.join("state"), OPERATOR).unwrap();
    let trust = Trust::Authority(identity.authority().unwrap().clone());
    let named = ClientIdentity { chain: identity.chain().to_vec(), key: identity.key() };
    let config = client_config(trust, is_named.then_some(named)).unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.connect_with_connector(Connector::new(config, LONG)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_for_whoever_has_a_certificate() {
    let running = running().await;
    let asked = async |address, is_named| {
        let mut client = HealthClient::new(channel(running.folder.path(), address, is_named).await);
        let request = HealthCheckRequest { service: String::new() };
        client.check(request).await.map(|reply| reply.into_inner().status).map_err(|status| status.code())
    };
    assert_eq!(asked(running.admin, true).await, Ok(1));
    assert_eq!(asked(running.device, false).await, Err(Code::Unauthenticated));
    running.stop.cancel();
    timeout(LONG, running.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_is_not_ready_from_the_first_moment_on_while_an_open_round_still_ends() {
    let running = running().await;
    let plan = Plan::example().to_bytes().unwrap();
    let task = running.driver.create_task(plan, Vec::new()).await.unwrap().task;
    let join = Request::Join { task, version: 0, class: None, log_seen: 0 };
    let joined = running.driver.handle(DeviceId([1; 16]), join).await.unwrap();
    assert!(matches!(joined, Reply::Offer { .. }), "{joined:?}");
    let mut health = HealthClient::new(channel(running.folder.path(), running.admin, true).await);
    let mut admin = AdminClient::new(channel(running.folder.path(), running.admin, true).await);
    let mut is_stopping = async || {
        let request = convert::admin_request_to_wire(AdminRequest::ShowHealth);
        let reply = convert::admin_reply_from_wire(admin.send(request).await.unwrap().into_inner()).unwrap();
        let AdminReply::Health(health) = reply else { panic!("{reply:?}") };
        health.stopping
    };
    assert!(!is_stopping().await);
    running.stop.cancel();
    let ready = async || get(running.metrics, "GET /readyz").await;
    let said = async {
        while ready().await.0 == 200 {
            sleep(Duration::from_millis(10)).await;
        }
        ready().await
    };
    let (status, _, said) = timeout(Duration::from_secs(2), said).await.unwrap();
    assert_eq!((status, said.as_str()), (503, "not ready: stopping\n"));
    let request = HealthCheckRequest { service: String::new() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 2, "not serving");
    assert!(is_stopping().await);
    // The process is well all the same.
    assert_eq!(get(running.metrics, "GET /healthz").await.0, 200);
    assert!(!running.served.is_finished(), "the open round is given its time");
    timeout(LONG, running.served).await.unwrap().unwrap().unwrap();
}

/// The names of metrics in an expression of Prometheus, each with the labels that it is asked for by. Fails where brackets do
/// not close.
fn names_in(expression: &str) -> Vec<(String, Vec<String>)> {
    // What may follow a name without being one: functions, operators, what is grouped by.
    const WORDS: [&str; 17] = [
        "sum",
        "by",
        "on",
        "and",
        "or",
        "unless",
        "rate",
        "increase",
        "histogram_quantile",
        "time",
        "timestamp",
        "abs",
        "without",
        "ignoring",
        "group_left",
        "offset",
        "label_values",
    ];
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    let (mut rest, mut open, mut grouped) = (expression, Vec::new(), false);
    while let Some(next) = rest.chars().next() {
        if next.is_ascii_alphabetic() || next == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let inside = open.last() == Some(&'{');
            if inside {
                names.last_mut().unwrap().1.push(word.to_owned());
            } else if ["by", "on", "without", "ignoring", "group_left"].contains(&word) {
                grouped = true;
            } else if !WORDS.contains(&word) && !open.contains(&'g') && !open.contains(&'[') {
                names.push((word.to_owned(), Vec::new()));
            }
            rest = after;
            continue;
        }
        match next {
            '"' => {
                let end =
                    rest[1..].find('"').unwrap_or_else(|| panic!("a string is not closed: {expression}"));
                rest = &rest[end + 2..];
                continue;
            }
            // A duration, such as 6h.
            '0'..='9' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
                rest = &rest[end..];
                continue;
            }
            '(' => open.push(if std::mem::take(&mut grouped) { 'g' } else { '(' }),
            '{' | '[' => open.push(next),
            ')' => assert!(matches!(open.pop(), Some('(' | 'g')), "{expression}"),
            '}' => assert_eq!(open.pop(), Some('{'), "{expression}"),
            ']' => assert_eq!(open.pop(), Some('['), "{expression}"),
            _ => {}
        }
        rest = &rest[next.len_utf8()..];
    }
    assert!(open.is_empty(), "{expression}");
    names
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    lasts: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// All expressions that are below a key of the board.
fn expressions<'a>(board: &'a serde_json::Value, key: &str, found: &mut Vec<&'a str>) {
    if let Some(list) = board.as_array() {
        for one in list {
            expressions(one, key, found);
        }
    } else if let Some(object) = board.as_object() {
        for (name, value) in object {
            match value.as_str() {
                Some(text) if name == key => found.push(text),
                Some(_) | None => expressions(value, key, found),
            }
        }
    }
}

#[test]
fn names_are_found_in_expressions() {
    let found = names_in(
        r#"histogram_quantile(0.9, sum by (job, le) (rate(a_bucket{x=~"y|z", i="$i"}[5m]))) > 10 * b"#,
    );
    let expected = [("a_bucket", vec!["x", "i"]), ("b", vec![])];
    let expected = expected
        .map(|(name, labels)| (name.to_owned(), labels.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_and_the_alerts_ask_for_what_there_is() {
    let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring");
    let rules: Rules =
        serde_saphyr::from_str(&std::fs::read_to_string(monitoring.join("alerts.yaml")).unwrap()).unwrap();
    let board: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(monitoring.join("board.json")).unwrap()).unwrap();
    let [Group { name, rules }] = &rules.groups[..] else { panic!("not one group") };
    assert_eq!(name, "nightshift");
    let alerts: BTreeSet<&str> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(alerts.len(), rules.len(), "two with one name");
    for rule in rules {
        assert!(["page", "ticket"].contains(&rule.labels["severity"].as_str()), "{}", rule.alert);
        assert!(rule.annotations.contains_key("summary") && rule.annotations.contains_key("description"));
        let digits = rule.lasts.trim_end_matches(['m', 'h']);
        assert!(rule.lasts.is_empty() || digits.parse::<u32>().is_ok(), "{}: {}", rule.alert, rule.lasts);
    }
    let mut asked: Vec<&str> = rules.iter().map(|rule| rule.expr.as_str()).collect();
    expressions(&board, "expr", &mut asked);
    expressions(&board["templating"], "query", &mut asked);
    assert!(asked.len() > 30, "{}", asked.len());

    let running = running().await;
    let families = read(&scraped(&running).await.2);
    // Each name that a sample has or would have, with the labels of those that are there.
    let mut known: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, family) in &families {
        let ends: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        let labels = family.samples.iter().flat_map(|(_, labels, _)| labels.keys().map(String::as_str));
        let labels: BTreeSet<&str> = labels.collect();
        known.extend(ends.iter().map(|end| (format!("{name}{end}"), labels.clone())));
    }
    let by_prometheus = ["up", "instance", "prometheus"];
    let mut used = 0;
    for expression in asked {
        for (name, labels) in names_in(expression) {
            if by_prometheus.contains(&name.as_str()) {
                continue;
            }
            let has = known.get(&name).unwrap_or_else(|| panic!("`{name}` is not exported: {expression}"));
            for label in labels {
                let there = ["instance", "job"].contains(&label.as_str()) || has.contains(label.as_str());
                assert!(there, "`{name}` has no label `{label}`: {expression}");
            }
            used += 1;
        }
    }
    assert!(used > 35, "{used}");
    running.stop.cancel();
    timeout(LONG, running.served).await.unwrap().unwrap().unwrap();

    // Where it is installed, Prometheus reads them itself.
    let checked =
        Command::new("promtool").args(["check", "rules"]).arg(monitoring.join("alerts.yaml")).output();
    match checked {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout)),
        Err(_) => println!("skipped: promtool is not installed"),
    }
}
