//! Traces of rounds, for a collector that takes OTLP ([OpenTelemetry]): each round is one, from its opening to its end, with its
//! steps, the opening of its sum, and what is written of it. A part of devices' requests has spans too.
//!
//! Off unless the configuration names a collector. A span holds no more than logs do: tasks, rounds, counts and words that stand in
//! the code, and nothing by which one device could be told from another. Rounds never wait for a collector: what it does not take
//! is dropped and counted.
//!
//! [OpenTelemetry]: https://opentelemetry.io/docs/specs/otlp/

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use prometheus_client::registry::Registry;
use proto::message::Request;
use serving::post::{Address, Client};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub(crate) mod book;
mod clock;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "it is a task of its own")]
pub(crate) mod collector;
mod export;
mod headers;
pub mod keys;

use book::{Asked, Book};
use export::{Bounded, Collector, Exporter, MOST_WAITING, Spans, Way};
use keys::{Ratio, TracesKeys};

/// How the coordinator calls itself, where `OTEL_SERVICE_NAME` says nothing else.
const SERVICE: &str = "nightshift-coordinator";

/// The key of that in a trace.
const SERVICE_KEY: Key = Key::from_static_str("service.name");

/// Where collectors take traces, unless the configuration says otherwise.
const USUAL_PATH: &str = "/v1/traces";

/// The most spans that are sent at once.
const BATCH: usize = 512;

/// How often spans are sent.
const EVERY: Duration = Duration::from_secs(1);

/// How long the last spans may take.
const LAST_SPANS: Duration = Duration::from_millis(1_500);

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A file cannot be used.
    #[error("traces cannot be sent: {} cannot be used: {why}", .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The address is none.
    #[error("traces cannot be sent: traces.endpoint is no address")]
    Address,
    /// It was not asked for in a runtime.
    #[error("traces cannot be sent: {0}")]
    Runtime(String),
}

/// Traces, or none. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    spans: Spans,
    open: Option<Arc<Open>>,
}

struct Open {
    book: Arc<Book>,
    provider: SdkTracerProvider,
    way: Arc<Way>,
    sampled: Sampled,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("book", &self.book).field("way", &self.way).finish_non_exhaustive()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Traces {
    /// Those of a configuration. Fails where a file that it names cannot be used. For use in a runtime only, where it names a
    /// collector.
    pub fn open(keys: &TracesKeys) -> Result<Self, TracesError> {
        let spans = Spans::default();
        if keys.endpoint.is_empty() {
            return Ok(Self { spans, open: None });
        }
        let address = Address::parse(&keys.endpoint).ok_or(TracesError::Address)?;
        let path = if address.path() == "/" { USUAL_PATH.to_owned() } else { address.path().to_owned() };
        let unusable = |path: &PathBuf, why: String| TracesError::Unusable { path: path.clone(), why };
        let client = Client::open(address, &keys.ca).map_err(|why| unusable(&keys.ca, why))?;
        let file = Some(&keys.headers_file).filter(|file| !file.as_os_str().is_empty());
        if let Some(file) = file {
            headers::read(file).map_err(|why| unusable(file, why))?;
        }
        let limit = Duration::from_secs(keys.timeout_secs.into());
        let collector = Collector { client, path, headers: file.cloned(), limit };
        let runtime = Handle::try_current().map_err(|error| TracesError::Runtime(error.to_string()))?;
        let way = Arc::new(Way::new(spans.clone()));
        let resource = ResourceAttributesWithSchema::default();
        let exporter = Exporter { collector, resource, way: Arc::clone(&way), runtime };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MOST_WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(EVERY)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource_of_this())
            // Which requests have a span is decided before there is one.
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(Bounded::new(BatchSpanProcessor::new(exporter, config), Arc::clone(&way)))
            .build();
        let book = Arc::new(Book::new(provider.tracer(SERVICE)));
        let sampled = Sampled::new(keys.sample_ratio);
        tracing::info!(
            sample_ratio = keys.sample_ratio.get(),
            "rounds are traced, for the collector of traces.endpoint"
        );
        Ok(Self { spans, open: Some(Arc::new(Open { book, provider, way, sampled })) })
    }

    /// The open rounds, where there are traces.
    pub(crate) fn book(&self) -> Option<&Arc<Book>> {
        self.open.as_ref().map(|open| &open.book)
    }

    /// A device asks something: gives what is to be told of the answer, for the part of requests that has spans.
    pub(crate) fn asked(&self, request: &Request) -> Option<Asked> {
        let open = self.open.as_ref().filter(|open| open.sampled.takes_next())?;
        Some(open.book.asked(request.name(), request.session()))
    }

    /// What became of spans, for an answer about metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.spans.register(registry);
    }

    /// Ends all that is open, and sends what there is, for so long as that may take.
    pub async fn close(&self) {
        let Some(open) = self.open.clone() else { return };
        // It waits for a thread of its own, which there may be none of.
        let ended = spawn_blocking(move || open.end(LAST_SPANS));
        match timeout(LAST_SPANS * 2, ended).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the end of traces broke off"),
            Err(_) => tracing::warn!("the last spans of traces were not sent: no thread was free for that"),
        }
    }
}

impl Open {
    /// A second time does nothing.
    fn end(&self, limit: Duration) {
        self.book.close();
        // What it says is said of the spans themselves, by whatever became of them.
        drop(self.provider.shutdown_with_timeout(limit));
        self.way.gives_up();
    }
}

/// What is told of this coordinator with its spans: its name, its version, and what the environment says as it does for other
/// programs that send traces.
fn resource_of_this() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let found = Resource::builder().with_attribute(version.clone()).build();
    let name = found.get(&SERVICE_KEY).map(|name| name.to_string());
    // Which is what the library says where nobody said anything.
    if name.is_none_or(|name| name.starts_with("unknown_service")) {
        return Resource::builder().with_attribute(version).with_service_name(SERVICE).build();
    }
    found
}

/// Which requests have a span: any of them as often as any other.
#[derive(Debug)]
struct Sampled {
    ratio: f64,
    asked: AtomicU64,
    keyed: RandomState,
}

impl Sampled {
    fn new(ratio: Ratio) -> Self {
        Self { ratio: ratio.get(), asked: AtomicU64::new(0), keyed: RandomState::new() }
    }

    fn takes_next(&self) -> bool {
        if self.ratio <= 0.0 {
            return false;
        }
        let place = self.keyed.hash_one(self.asked.fetch_add(1, Ordering::Relaxed));
        place as f64 <= self.ratio * u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_requests_has_spans() {
        let takes = |ratio: f64| {
            let sampled = Sampled::new(Ratio::try_from(ratio).unwrap());
            (0..100_000).filter(|_| sampled.takes_next()).count()
        };
        assert_eq!((takes(0.0), takes(1.0)), (0, 100_000));
        let tenth = takes(0.1);
        assert!((9_000..11_000).contains(&tenth), "{tenth}");
    }
}
