//! A collector of a test's own: it takes OTLP by HTTP on loopback and keeps what came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// As long as a test waits for spans.
const LONG: Duration = Duration::from_secs(60);

/// What it is sent: heads of requests, and bodies.
type Came = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// It runs until it is dropped.
pub(crate) struct Collector {
    address: SocketAddr,
    came: Came,
    serving: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::answering(Some("200 OK")).await
    }

    /// With this status to whatever comes; with none it never answers.
    pub(crate) async fn answering(status: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, came) = (listener.local_addr().unwrap(), Came::default());
        let keeps = Arc::clone(&came);
        let serving = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match status {
                    None => silent.push(stream),
                    Some(status) => drop(tokio::spawn(take(stream, status, Arc::clone(&keeps)))),
                }
            }
        });
        Self { address, came, serving }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Heads of requests, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.came.lock().unwrap().iter().map(|(head, _)| head.to_lowercase()).collect()
    }

    /// All bytes that came.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.came.lock().unwrap().iter().flat_map(|(_, body)| body.clone()).collect()
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let came = self.came.lock().unwrap();
        came.iter().map(|(_, body)| ExportTraceServiceRequest::decode(&body[..]).unwrap()).collect()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans, once these are all.
    pub(crate) async fn until(&self, all: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let comes = async {
            loop {
                let spans = self.spans();
                if all(&spans) {
                    return spans;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LONG, comes).await.unwrap()
    }
}

async fn take(mut stream: TcpStream, status: &'static str, came: Came) {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    let head = loop {
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "a request broke off");
        bytes.extend_from_slice(&part[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let len =
        text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = bytes.split_off(head + 4);
    while body.len() < len.unwrap() {
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "a request broke off");
        body.extend_from_slice(&part[..read]);
    }
    came.lock().unwrap().push((text, body));
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// What a span says of itself, as text.
pub(crate) fn said(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    let value = found.value.clone()?.value?;
    if let Value::StringValue(text) = value {
        return Some(text);
    }
    if let Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let Value::BoolValue(is) = value else { panic!("{key}: {value:?}") };
    Some(is.to_string())
}

/// Those within a span, in the order in which they began.
pub(crate) fn within<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    let mut found: Vec<_> = spans.iter().filter(|span| span.parent_span_id == parent.span_id).collect();
    found.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    found
}

/// Those of a name.
pub(crate) fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// Each span that is within another is within its time and its trace, and that one came too.
pub(crate) fn check_nesting(spans: &[Span]) {
    for span in spans {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        if span.parent_span_id.is_empty() {
            continue;
        }
        let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
        let parent = parent.unwrap_or_else(|| panic!("the parent of {span:?} did not come"));
        assert_eq!(parent.trace_id, span.trace_id);
        let is_within = parent.start_time_unix_nano <= span.start_time_unix_nano
            && span.end_time_unix_nano <= parent.end_time_unix_nano;
        assert!(is_within, "{span:?} is not within {parent:?}");
    }
}
