//! What a collector is told of rounds: their spans, when they end, and what is not in them.

use std::time::Instant as Clock;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prometheus_client::registry::Registry;

use super::*;
use crate::traces::Traces;
use crate::traces::collector::{Collector, check_nesting, named, said, within};
use crate::traces::keys::{Ratio, TracesKeys};

fn keys(endpoint: String) -> TracesKeys {
    TracesKeys { endpoint, sample_ratio: Ratio::try_from(1.0).unwrap(), ..TracesKeys::default() }
}

/// Traces that go to a collector.
fn traces(endpoint: String) -> Traces {
    Traces::open(&keys(endpoint)).unwrap()
}

async fn create(driver: &Driver, plan: &Plan) -> TaskId {
    driver.create_task(plan.to_bytes().unwrap(), Vec::new()).await.unwrap().task
}

fn names<'a>(spans: &[&'a Span]) -> Vec<&'a str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn told(span: &Span, keys: &[&str]) -> Vec<String> {
    keys.iter()
        .map(|key| said(span, &format!("nightshift.{key}")).unwrap_or_else(|| format!("no {key}")))
        .collect()
}

fn code(span: &Span) -> StatusCode {
    span.status.as_ref().unwrap().code()
}

/// The steps of a round, in order, of which each begins when the one before ends.
fn steps<'a>(spans: &'a [Span], round: &Span) -> Vec<&'a Span> {
    let within = within(spans, round);
    let steps: Vec<&Span> = within
        .into_iter()
        .filter(|span| span.name != "commit" && !span.name.starts_with("request"))
        .collect();
    assert_eq!(steps[0].start_time_unix_nano, round.start_time_unix_nano);
    for pair in steps.windows(2) {
        assert_eq!(pair[0].end_time_unix_nano, pair[1].start_time_unix_nano);
    }
    steps
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

fn metrics(traces: &Traces) -> String {
    let (mut registry, mut text) = (Registry::default(), String::new());
    traces.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

const STEPS: [&str; 5] = ["advertise keys", "share keys", "masked input", "consistency", "unmask"];

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_one_trace_with_its_steps_its_opening_and_what_is_written() {
    let (world, collector) = (World::new(), Collector::start().await);
    let driver = world.open();
    driver.trace(traces(collector.endpoint()));
    let task = create(&driver, &plan(1)).await;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    let session = SessionId(round.context.session.0);
    let round = round.submit(&driver).await;
    let done = round.devices[1].1.clone();
    round.finish(&driver).await;
    assert_eq!(driver.show(task).await.unwrap().version, 1);
    // The round ends when its version is durable; that is after nothing is open any more.
    let spans = collector.until(|spans| !named(spans, "round").is_empty()).await;
    check_nesting(&spans);

    let [round] = named(&spans, "round")[..] else { panic!("{spans:?}") };
    assert!(round.parent_span_id.is_empty() && round.links.is_empty());
    assert_eq!(said(round, "nightshift.task"), Some(task.to_string()));
    assert_eq!(said(round, "nightshift.session"), Some(session.to_string()));
    let keys = ["round", "version", "version_made", "outcome", "joined", "shared", "survivors"];
    assert_eq!(told(round, &keys), ["1", "1", "1", "published", "3", "3", "3"]);
    assert_eq!((code(round), said(round, "nightshift.after_restart")), (StatusCode::Ok, None));
    let steps = steps(&spans, round);
    assert_eq!(names(&steps), STEPS);

    let unmask = steps[4];
    let [opening] = within(&spans, unmask)[..] else { panic!("{spans:?}") };
    assert_eq!(opening.name, "open sum");
    assert_eq!(told(opening, &["masks.survivors", "masks.missing", "outcome"]), ["3", "0", "opened"]);

    let commits: Vec<_> = within(&spans, round).into_iter().filter(|span| span.name == "commit").collect();
    let what: Vec<_> = commits.iter().map(|span| said(span, "nightshift.what").unwrap()).collect();
    assert_eq!(what, ["round", "survivors, charges", "version"]);
    let writes = |at: usize| {
        names(&within(&spans, commits[at])).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(writes(0), ["write records"]);
    assert_eq!(writes(2), ["write artifact", "write artifact", "write records"]);
    assert!(commits[2].start_time_unix_nano >= unmask.end_time_unix_nano);

    // Nothing of a device: neither its name, nor a key, nor what it sent.
    let bytes = collector.bytes();
    assert!(has(&bytes, task.to_string().as_bytes()));
    let Request::MaskedDone { digest, .. } = done else { panic!("{done:?}") };
    for secret in [[1; 16].to_vec(), [2; 16].to_vec(), identity(1).public().0.to_vec(), digest.0.to_vec()] {
        assert!(!has(&bytes, &secret) && !has(&bytes, hex::encode(&secret).as_bytes()), "{secret:?}");
    }
    let resource = collector.requests()[0].resource_spans[0].resource.clone().unwrap();
    let resource = Span { attributes: resource.attributes, ..Span::default() };
    assert_eq!(said(&resource, "service.name").unwrap(), "nightshift-coordinator");
    assert!(said(&resource, "service.version").is_some());
    assert!(collector.heads()[0].starts_with("post /v1/traces http/1.1\r\n"), "{:?}", collector.heads());
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_that_are_stopped_or_cut_off_end_with_their_steps_and_say_so() {
    let (world, collector) = (World::new(), Collector::start().await);
    let driver = world.open();
    let traces = traces(collector.endpoint());
    driver.trace(traces.clone());
    let stopped = create(&driver, &plan(1)).await;
    Join::all(&driver, stopped).await.advertise(&driver).await.share(&driver).await;
    driver.stop_task(stopped).await.unwrap();
    let cut = create(&driver, &bat(1)).await;
    // Of a plan that differs in its name only.
    let request = Request::Join { task: cut, version: 0, class: None, log_seen: 0 };
    driver.handle(device(0), request).await.unwrap();
    let began = Clock::now();
    traces.close().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    // When it is closed, all of it has come.
    let spans = collector.spans();
    check_nesting(&spans);
    let rounds = named(&spans, "round");
    let of = |task: TaskId| {
        let is_its = |span: &&&Span| said(span, "nightshift.task") == Some(task.to_string());
        *rounds.iter().find(is_its).unwrap()
    };
    let keys = ["outcome", "joined", "shared", "survivors"];
    assert_eq!(told(of(stopped), &keys), ["stopped", "3", "3", "0"]);
    assert_eq!(names(&steps(&spans, of(stopped))), STEPS[..3]);
    assert_eq!(told(of(cut), &keys), ["unfinished", "0", "0", "0"]);
    assert_eq!(names(&steps(&spans, of(cut))), STEPS[..1]);
    assert_eq!([code(of(stopped)), code(of(cut))], [StatusCode::Error; 2]);
    assert_ne!(of(stopped).trace_id, of(cut).trace_id);
    // Nothing begins any more, and nothing fails for it.
    driver.stop_task(cut).await.unwrap();
    assert_eq!(collector.spans().len(), spans.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_task_is_taken_up_and_its_next_round_says_so() {
    let (world, collector) = (World::new(), Collector::start().await);
    let driver = world.open();
    driver.trace(traces(collector.endpoint()));
    let task = create(&driver, &plan(1)).await;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    round.submit(&driver).await;
    drop(driver);

    let driver = world.open();
    driver.trace(traces(collector.endpoint()));
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    round.submit(&driver).await.finish(&driver).await;
    let is_second = |span: &Span| said(span, "nightshift.round").as_deref() == Some("2");
    let spans = collector.until(|spans| named(spans, "round").into_iter().any(is_second)).await;
    let [taken_up] = named(&spans, "take up task")[..] else { panic!("{spans:?}") };
    assert_eq!(said(taken_up, "nightshift.task"), Some(task.to_string()));
    assert_eq!(told(taken_up, &["version", "last_round", "sums"]), ["0", "1", "0"]);
    let second = named(&spans, "round").into_iter().find(|span| is_second(span)).unwrap();
    assert_eq!(told(second, &["outcome", "after_restart"]), ["published", "true"]);
    let [link] = &second.links[..] else { panic!("{second:?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&taken_up.trace_id, &taken_up.span_id));
    assert_eq!(names(&steps(&spans, second)), STEPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_take_is_shown_and_its_round_goes_on() {
    let (world, collector) = (World::new(), Collector::start().await);
    let store = Store::open(&world.folder.path().join("store")).unwrap();
    let driver = world.open_with(store.clone());
    driver.trace(traces(collector.endpoint()));
    let task = create(&driver, &plan(1)).await;
    let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
    store.set_free_space_floor(u64::MAX);
    let round = round.submit(&driver).await;
    store.set_free_space_floor(0);
    sleep(Duration::from_millis(AGAIN_MILLIS)).await;
    close_due(&driver).await;
    round.finish(&driver).await;
    let spans = collector.until(|spans| !named(spans, "round").is_empty()).await;
    check_nesting(&spans);
    let [round] = named(&spans, "round")[..] else { panic!("{spans:?}") };
    assert_eq!(told(round, &["outcome", "survivors"]), ["published", "3"]);
    let commits: Vec<_> = within(&spans, round)
        .into_iter()
        .filter(|span| said(span, "nightshift.what").is_some_and(|what| what.contains("survivors")))
        .map(code)
        .collect();
    let (last, failed) = commits.split_last().unwrap();
    assert!(*last == StatusCode::Unset && !failed.is_empty(), "{commits:?}");
    assert!(failed.iter().all(|code| *code == StatusCode::Error), "{commits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_in_its_round_while_that_is_open_and_beside_it_afterwards() {
    let (world, collector) = (World::new(), Collector::start().await);
    let driver = world.open();
    let traces = traces(collector.endpoint());
    driver.trace(traces.clone());
    let task = create(&driver, &plan(1)).await;
    let round = Join::all(&driver, task).await;
    let agree = Request::Agree {
        session: SessionId(round.context.session.0),
        signature: aggregation::Signature([0; 64]),
    };
    traces.asked(&agree).unwrap().answered("refused");
    let held = traces.asked(&agree).unwrap();
    traces.asked(&Request::CheckIn(CheckIn::default())).unwrap().answered("wait");
    driver.stop_task(task).await.unwrap();
    drop(held);
    traces.close().await;
    let spans = collector.spans();
    check_nesting(&spans);
    let [round] = named(&spans, "round")[..] else { panic!("{spans:?}") };
    let answers = |name: &str| -> Vec<(String, bool, usize)> {
        let one = |span: &&Span| {
            let is_in = span.parent_span_id == round.span_id;
            (said(span, "nightshift.answer").unwrap(), is_in, span.links.len())
        };
        named(&spans, name).iter().map(one).collect()
    };
    let name = format!("request {}", agree.name());
    assert_eq!(answers(&name), [("refused".to_owned(), true, 0), ("gone".to_owned(), false, 1)]);
    assert_eq!(answers("request check-in"), [("wait".to_owned(), false, 0)]);
    let none = TracesKeys { sample_ratio: Ratio::try_from(0.0).unwrap(), ..keys(collector.endpoint()) };
    assert!(Traces::open(&none).unwrap().asked(&agree).is_none());
    assert!(Traces::default().asked(&agree).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_holds_up_nobody_and_what_is_lost_is_counted() {
    let silent = Collector::answering(None).await;
    let refusing = Collector::answering(Some("503 Service Unavailable")).await;
    let away =
        format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for endpoint in [silent.endpoint(), refusing.endpoint(), away] {
        let world = World::new();
        let driver = world.open();
        let traces = traces(endpoint.clone());
        driver.trace(traces.clone());
        let task = create(&driver, &plan(1)).await;
        let began = Clock::now();
        let round = Join::all(&driver, task).await.advertise(&driver).await.share(&driver).await;
        round.submit(&driver).await.finish(&driver).await;
        assert_eq!(driver.show(task).await.unwrap().version, 1, "{endpoint}");
        // More than may wait.
        for _ in 0..6_000 {
            drop(traces.asked(&Request::CheckIn(CheckIn::default())));
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{endpoint}: {:?}", began.elapsed());
        let began = Clock::now();
        traces.close().await;
        assert!(began.elapsed() < Duration::from_secs(4), "{endpoint}: {:?}", began.elapsed());
        let text = metrics(&traces);
        assert!(text.contains("nightshift_trace_spans_total{outcome=\"sent\"} 0"), "{text}");
        let dropped = text
            .lines()
            .find_map(|line| line.strip_prefix("nightshift_trace_spans_total{outcome=\"dropped\"} "));
        assert!(dropped.unwrap().parse::<u32>().unwrap() > 6_000 - 4_096 - 1, "{text}");
    }
}
