//! A round of many devices over TLS, as a collector is told of it.

use std::fs;
use std::time::{Duration, Instant};

use coordinator::traces::keys::{Ratio, TracesKeys};
use nightshift_load::report::Ended;
use opentelemetry_proto::tonic::trace::v1::Span;
use proto::files::{self, Audience};

use super::stage::{Stage, succeeded};
use collector::{Collector, check_nesting, named, said, within};

#[path = "../../../../coordinator/src/traces/collector.rs"]
mod collector;

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_of_a_round_and_of_requests_and_of_nothing_secret() {
    let collector = Collector::start().await;
    let secret = "Bearer of-the-collector";
    let stage = Stage::of(|config| {
        let headers_file = config.state_dir.with_file_name("headers");
        files::write(&headers_file, format!("Authorization: {secret}\n").as_bytes(), Audience::Owner)
            .unwrap();
        let (endpoint, sample_ratio) = (collector.endpoint(), Ratio::try_from(1.0).unwrap());
        config.traces = TracesKeys { endpoint, headers_file, sample_ratio, ..TracesKeys::default() };
    })
    .await;
    let tokens = stage.tokens("tokens", 20).await;
    let task = stage.task(20, 1).await;
    let (output, report) = stage.load("--devices 20 --shape herd --secs 100", Some(&tokens)).await;
    succeeded(&output);
    assert_eq!(report.unwrap().processes[0].ended, Ended::NoMoreWork);
    assert_eq!(stage.until_complete(task).await.versions.len(), 1);
    // The round is told of soon after it ended, and what was asked, at the latest, when the coordinator ends.
    collector.until(|spans| !named(spans, "round").is_empty()).await;
    let stage = stage.again(Duration::ZERO).await;

    let spans = collector.spans();
    check_nesting(&spans);
    let rounds = named(&spans, "round");
    let published =
        rounds.iter().find(|span| said(span, "nightshift.outcome").as_deref() == Some("published"));
    let round = *published.unwrap();
    let of = |key: &str| said(round, &format!("nightshift.{key}")).unwrap();
    assert_eq!((of("task"), of("version_made")), (task.to_string(), "1".to_owned()));
    assert_eq!([of("joined"), of("shared"), of("survivors")], ["20", "20", "20"]);
    let within = within(&spans, round);
    for step in ["advertise keys", "share keys", "masked input", "consistency", "unmask", "commit"] {
        assert!(within.iter().any(|span| span.name == step), "{step}: {within:?}");
    }
    // Each device's requests are there: in the round, or beside it with a link where it had ended.
    for request in ["advertise", "share keys", "masked chunk", "masked done", "agree", "unmask"] {
        let asked = named(&spans, &format!("request {request}"));
        let is_its = |span: &&&Span| {
            span.parent_span_id == round.span_id
                || span.links.iter().any(|link| link.span_id == round.span_id)
        };
        let of_round = asked.iter().filter(is_its).count();
        assert!(of_round >= 20, "{request}: {of_round}");
    }
    assert!(named(&spans, "request check-in").len() >= 20);
    let open = within.iter().filter(|span| span.name == "request masked chunk").count();
    assert!(open >= 20, "chunks are answered at once: {open}");

    assert!(collector.heads().iter().all(|head| head.contains(&secret.to_lowercase())));
    let bytes = collector.bytes();
    let tokens = fs::read_to_string(&tokens).unwrap();
    let mut secrets: Vec<Vec<u8>> = vec![secret.into()];
    secrets
        .extend(tokens.lines().filter(|line| line.starts_with("nst")).map(|line| line.as_bytes().to_vec()));
    for name in ["ca.key", "enrolment.seed", "audit.seed"] {
        secrets.push(fs::read(stage.path("state").join(name)).unwrap());
    }
    assert!(secrets.len() > 20);
    for secret in secrets {
        assert!(!has(&bytes, &secret) && !has(&bytes, hex::encode(&secret).as_bytes()));
    }
    for label in ["load 0", "127.0.0.1"] {
        assert!(!has(&bytes, label.as_bytes()), "{label}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_collector_never_answers_makes_versions_and_ends_in_time() {
    let collector = Collector::answering(None).await;
    let stage = Stage::of(|config| {
        let (endpoint, sample_ratio) = (collector.endpoint(), Ratio::try_from(1.0).unwrap());
        config.traces = TracesKeys { endpoint, sample_ratio, ..TracesKeys::default() };
    })
    .await;
    let tokens = stage.tokens("tokens", 10).await;
    let task = stage.task(10, 1).await;
    let (output, _) = stage.load("--devices 10 --shape herd --secs 100", Some(&tokens)).await;
    succeeded(&output);
    assert_eq!(stage.until_complete(task).await.versions.len(), 1);
    let began = Instant::now();
    stage.again(Duration::ZERO).await;
    // A second that open rounds are given, and five.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
