//! `nightshift dashboard`: the coordinator's page, in a browser on this machine.
//!
//! The page is the coordinator's and asks for an operator's certificate, which a browser does not have. So this carries it: it
//! answers on the loopback address, over the operator's own connection, whoever knows a secret part of the path. A certificate
//! that is exchanged in the folder meanwhile is used from the next question on.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module serves connections")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use coordinator::cli::CliError;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::admin::AdminRequest;
use proto::ids::Digest;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::ctrl_c;
use tokio::sync::{Mutex, Semaphore};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use crate::client::AdminClient;
use crate::connection::Folder;
use crate::output::line;

/// What the page consists of.
const PATHS: [&str; 4] = ["/", "/page.css", "/page.js", "/events"];

/// Connections of browsers at a time.
const CONNECTIONS: usize = 32;

/// How long a browser may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The page's port on this machine; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Whom the page is shown to: who asks this address for a path that begins with the secret.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    secret: String,
}

pub(crate) async fn run(dir: &Path, Arguments { port }: Arguments) -> Result<(), CliError> {
    let way = Arc::new(Way::open(dir).await?);
    let cannot = |error: std::io::Error| {
        CliError::Network(format!(
            "cannot listen on 127.0.0.1:{port}: {error}; choose another `--port`, or 0"
        ))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let mut secret = [0; 16];
    let drawn = SystemRandom::new().fill(&mut secret);
    drawn.map_err(|_| CliError::internal("no randomness"))?;
    let door = Arc::new(Door { address, secret: hex::encode(secret) });
    line(&format!("http://{address}/{}/", door.secret))?;
    tracing::info!(
        "open the address in a browser on this machine; whoever knows it sees the page. Ctrl-C ends it"
    );
    tokio::select! {
        () = serve(listener, door, way) => Ok(()),
        ended = ctrl_c() => ended.map_err(CliError::internal),
    }
}

async fn serve(listener: TcpListener, door: Arc<Door>, way: Arc<Way>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (door, way) = (Arc::clone(&door), Arc::clone(&way));
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    attend(stream, door, way).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, door: Arc<Door>, way: Arc<Way>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (door, way) = (Arc::clone(&door), Arc::clone(&way));
        async move {
            let asked = door.asked(request.method(), request.uri().path(), request.headers());
            Ok::<_, Infallible>(match asked {
                Ok(path) => pass_on(&way, path, request.headers()).await,
                Err(status) => said(status, ""),
            })
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a browser's connection ended");
    }
}

impl Door {
    /// What of the page is asked for. A page of somebody else that a browser shows may send it here, by a name of its own
    /// that it lets point to this machine; it does not know the secret, and says its own name.
    fn asked(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<&'static str, StatusCode> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let port = self.address.port();
        if ![format!("127.0.0.1:{port}"), format!("localhost:{port}")].iter().any(|own| host == Some(own)) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        if method != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let (secret, rest) =
            path.get(1..).and_then(|path| path.split_at_checked(self.secret.len())).unwrap_or_default();
        // By their hashes, so that how long it takes says nothing of the secret.
        if Digest::of(secret.as_bytes()) != Digest::of(self.secret.as_bytes()) {
            return Err(StatusCode::NOT_FOUND);
        }
        PATHS.into_iter().find(|known| *known == rest).ok_or(StatusCode::NOT_FOUND)
    }
}

/// The connection to the coordinator, by what the operator's folder holds.
struct Way {
    dir: PathBuf,
    /// What the folder held when it was made.
    held: Mutex<(Digest, Channel)>,
}

impl Way {
    /// Connects, and asks whether this operator may see anything.
    async fn open(dir: &Path) -> Result<Self, CliError> {
        let folder = Folder::read(dir)?;
        let channel = folder.connect().await?;
        AdminClient::new(channel.clone()).call(AdminRequest::ShowHealth).await?;
        Ok(Self { dir: dir.to_owned(), held: Mutex::new((folder.digest(), channel)) })
    }

    /// The connection by what the folder holds now; the one that there is where that cannot be used.
    async fn now(&self) -> (Digest, Channel) {
        let mut held = self.held.lock().await;
        match Folder::read(&self.dir) {
            Ok(folder) if folder.digest() != held.0 => match folder.connect().await {
                Ok(channel) => *held = (folder.digest(), channel),
                Err(error) => {
                    tracing::warn!(%error, "the folder's certificate is another one and cannot be used");
                }
            },
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the folder cannot be read"),
        }
        held.clone()
    }
}

/// Asks the coordinator; once more where it refused and the folder holds another certificate meanwhile.
async fn pass_on(way: &Way, path: &'static str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let (by, channel) = way.now().await;
    let answer = ask(channel, path, headers).await;
    if answer.status() != StatusCode::FORBIDDEN {
        return answer;
    }
    let (other, channel) = way.now().await;
    if other == by { answer } else { ask(channel, path, headers).await }
}

async fn ask(mut channel: Channel, path: &'static str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static(path);
    if let Some(last) = headers.get("last-event-id") {
        request.headers_mut().insert("last-event-id", last.clone());
    }
    let answered = async {
        let response = channel.ready().await?.call(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string());
        Ok::<_, tonic::transport::Error>((parts, body))
    };
    match answered.await {
        Ok((parts, Ok(body))) => {
            let mut response = Response::new(Full::new(body.to_bytes()));
            *response.status_mut() = parts.status;
            *response.headers_mut() = parts.headers;
            response
        }
        Ok((_, Err(error))) => said(StatusCode::BAD_GATEWAY, &error),
        Err(error) => said(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}

fn said(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(why.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn asked(method: &Method, path: &str, host: Option<&'static str>) -> Result<&'static str, StatusCode> {
        let door = Door { address: SocketAddr::from(([127, 0, 0, 1], 4000)), secret: SECRET.to_owned() };
        let headers = host.map(|host| (header::HOST, HeaderValue::from_static(host)));
        door.asked(method, path, &headers.into_iter().collect())
    }

    #[test]
    fn only_who_knows_the_secret_and_asks_this_machine_is_shown_the_page() {
        let own = Some("127.0.0.1:4000");
        for path in PATHS {
            assert_eq!(asked(&Method::GET, &format!("/{SECRET}{path}"), own), Ok(path));
        }
        assert_eq!(asked(&Method::GET, &format!("/{SECRET}/"), Some("localhost:4000")), Ok("/"));
        let not_found = [
            "/",
            "",
            "/events",
            "/0123456789abcdef0123456789abcdee/",
            &format!("/{SECRET}"),
            &format!("/{SECRET}/nightshift.v1.Admin/Send"),
            &format!("/{SECRET}//"),
            "/é123456789abcdef0123456789abcde/",
        ];
        for path in not_found {
            assert_eq!(asked(&Method::GET, path, own), Err(StatusCode::NOT_FOUND), "{path}");
        }
        for host in
            [None, Some("example.org"), Some("127.0.0.1"), Some("127.0.0.1:4001"), Some("example.org:4000")]
        {
            let answer = asked(&Method::GET, &format!("/{SECRET}/"), host);
            assert_eq!(answer, Err(StatusCode::MISDIRECTED_REQUEST), "{host:?}");
        }
        assert_eq!(asked(&Method::POST, &format!("/{SECRET}/"), own), Err(StatusCode::METHOD_NOT_ALLOWED));
    }
}
