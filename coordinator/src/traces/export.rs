//! Spans on their way to a collector: a queue that is never longer than so many, and batches of it by HTTP. What the collector
//! does not take is dropped and counted, and nobody waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message as _;
use serving::post::{Client, Question};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::clock::Steady;
use super::headers;
use crate::metrics::Labels;
use crate::seldom::Seldom;

/// The most spans that wait to be sent.
pub(super) const MOST_WAITING: usize = 4096;

/// Why spans are dropped that a collector does not want.
const REFUSED: &str = "the collector refused them; its own log says why";

/// The most bytes that a collector may answer.
const MOST_ANSWER_BYTES: usize = 64 << 10;

/// What became of spans.
#[derive(Clone, Debug)]
pub(super) struct Spans(Family<Labels<1>, Counter>);

impl Default for Spans {
    fn default() -> Self {
        let spans = Family::<Labels<1>, Counter>::default();
        for outcome in ["sent", "dropped"] {
            drop(spans.get_or_create(&[("outcome", outcome)]));
        }
        Self(spans)
    }
}

impl Spans {
    fn count(&self, outcome: &'static str, spans: u64) {
        self.0.get_or_create(&[("outcome", outcome)]).inc_by(spans);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "nightshift_trace_spans",
            "Spans of traces, by whether the collector took them",
            self.0.clone(),
        );
    }
}

/// What waits, and what became of the rest.
#[derive(Debug)]
pub(super) struct Way {
    spans: Spans,
    waiting: AtomicUsize,
    /// Whether nobody waits for it any more.
    given_up: AtomicBool,
    clock: Steady,
    said: Seldom,
    unsaid: AtomicU64,
}

impl Way {
    pub(super) fn new(spans: Spans) -> Self {
        let (waiting, given_up) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (clock, said, unsaid) = (Steady::from_now(), Seldom::new(), AtomicU64::new(0));
        Self { spans, waiting, given_up, clock, said, unsaid }
    }

    /// Whether there is room for one more, which then waits.
    fn enters(&self) -> bool {
        let next = |waiting: usize| (waiting < MOST_WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    fn left(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
    }

    /// Spans are gone, and it is said why, once a minute.
    fn dropped(&self, spans: usize, why: &str) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.spans.count("dropped", spans);
        self.unsaid.fetch_add(spans, Ordering::AcqRel);
        if self.said.may_say(self.clock.timestamp()) {
            let spans = self.unsaid.swap(0, Ordering::AcqRel);
            tracing::warn!(spans, why, "spans of traces are dropped; rounds go on without them");
        }
    }

    /// From now on nothing is sent any more.
    pub(super) fn gives_up(&self) {
        let waiting = self.waiting.load(Ordering::Acquire);
        if !self.given_up.swap(true, Ordering::AcqRel) && waiting > 0 {
            tracing::warn!(spans = waiting, "spans of traces were not sent before the end");
        }
    }
}

/// Lets spans go on as long as few wait, so that the queue behind it never overflows uncounted.
#[derive(Debug)]
pub(super) struct Bounded {
    next: BatchSpanProcessor,
    way: Arc<Way>,
}

impl Bounded {
    pub(super) fn new(next: BatchSpanProcessor, way: Arc<Way>) -> Self {
        Self { next, way }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.way.enters() {
            self.next.on_end(span);
        } else {
            self.way.dropped(1, "the collector takes fewer than there are");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// A collector, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) headers: Option<PathBuf>,
    pub(super) limit: Duration,
}

impl Collector {
    /// Gives it spans. Says how many of them it refused. Its own words are not repeated: they may be what it was sent, with the
    /// headers by which it knows who sends.
    async fn take(&self, body: Vec<u8>) -> Result<u64, String> {
        let headers = match self.headers.clone() {
            None => HeaderMap::new(),
            // Read anew each time, so that they can be exchanged.
            Some(path) => {
                let read = spawn_blocking(move || (headers::read(&path), path)).await;
                let (read, path) = read.map_err(|error| error.to_string())?;
                read.map_err(|why| format!("{} cannot be used: {why}", path.display()))?
            }
        };
        let (path, kind) = (self.path.clone(), "application/x-protobuf");
        let question = Question { path, kind, bearer: None, headers, body };
        let answer = self.client.post(question, self.limit, MOST_ANSWER_BYTES).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("it answered {}, and not 200", answer.status));
        }
        // A collector that says nothing took everything.
        let said = ExportTraceServiceResponse::decode(answer.body);
        let said = said.map_err(|_| "what it answered is not of a collector that takes OTLP".to_owned())?;
        let refused = said.partial_success.unwrap_or_default();
        Ok(u64::try_from(refused.rejected_spans).unwrap_or_default())
    }
}

/// Sends batches of spans.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) collector: Collector,
    pub(super) resource: ResourceAttributesWithSchema,
    pub(super) way: Arc<Way>,
    /// Batches are made on a thread that has none.
    pub(super) runtime: Handle,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (count, way) = (batch.len(), &self.way);
        let sent = if way.given_up.load(Ordering::Acquire) {
            Err("the coordinator ends".to_owned())
        } else {
            let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
            let (collector, body) =
                (self.collector.clone(), ExportTraceServiceRequest { resource_spans }.encode_to_vec());
            let sent = self.runtime.spawn(async move { collector.take(body).await }).await;
            sent.unwrap_or_else(|error| Err(error.to_string()))
        };
        way.left(count);
        let (refused, why) = match sent {
            Ok(0) => (0, String::new()),
            Ok(refused) => (usize::try_from(refused).unwrap_or(count).min(count), REFUSED.to_owned()),
            Err(why) => (count, why),
        };
        way.spans.count("sent", u64::try_from(count - refused).unwrap_or(u64::MAX));
        if refused == 0 {
            return Ok(());
        }
        way.dropped(refused, &why);
        Err(OTelSdkError::InternalFailure(why))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
