//! A listener: it accepts everybody, and bounds what each peer may hold and for how long.
//!
//! A connection is first *silent*, then *shaking hands*, then *anonymous* or *named* by its certificate; each kind has
//! its own room (`listener/admissions.rs`) and its own limits (`listener/allowance.rs`). Calls pass a guard
//! (`listener/guard.rs`) that stands before anything is decoded. Whatever is turned away is counted ([`turned_away`]) and told once a minute.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use crate::peer::{self, Certified, ConnectInfo, Peer, PeerError};

mod admissions;
mod allowance;
mod answer;
mod connection;
mod guard;
mod message;
pub mod traffic;
pub mod turned_away;

pub use allowance::{MAX_ADMIN_BYTES, MAX_DEVICE_BYTES};

use admissions::{Admissions, Admitted, Place, Room};
pub use guard::Admits;
use guard::{Guard, Shared};
use turned_away::{Reason, TurnedAway};

/// How long to wait after the system refused to accept, for example because
/// the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is told what was turned away.
const TELL: Duration = Duration::from_secs(60);

/// As many times as there may be handshakes, there may be connections that have sent nothing.
const SILENT: usize = 8;

/// Connections that the system completes ahead of their being accepted.
pub const BACKLOG: u32 = 4096;

/// What one listener takes on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are shaking hands, and eight times as many that have sent nothing. A newer one takes the place of
    /// an older.
    pub handshakes: usize,
    /// Connections without a certificate. A newer one takes the place of an older.
    pub anonymous: usize,
    /// Connections with a certificate; further peers are turned away.
    pub connections: usize,
    /// How long a connection may take to send its first byte.
    pub first_byte_timeout: Duration,
    /// How long a handshake may take from then on.
    pub handshake_timeout: Duration,
    /// What messages under way may take together, in bytes.
    pub message_memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            anonymous: 64,
            connections: 16_384,
            first_byte_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            message_memory_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Connections that have sent nothing: they cost little but a descriptor, and the more there may be, the longer a
    /// newcomer has to send its first byte while others flood.
    fn silent(&self) -> usize {
        self.handshakes.saturating_mul(SILENT)
    }

    /// How many descriptors a listener with these limits holds at most.
    pub fn descriptors(&self) -> usize {
        self.handshakes
            .saturating_add(self.silent())
            .saturating_add(self.anonymous)
            .saturating_add(self.connections)
    }
}

/// Why a peer did not get in.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("nothing came within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the handshake took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("{0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("no place is left")]
    Full,
}

/// The connections of a listener.
struct Places {
    admissions: Admissions,
    tasks: HashMap<Place, AbortHandle>,
}

/// What one connection knows of its listener.
struct Listener<S> {
    config: watch::Receiver<Arc<ServerConfig>>,
    limits: Limits,
    services: S,
    shared: Arc<Shared>,
    places: Mutex<Places>,
    stop: CancellationToken,
}

/// A place that is given up when this is dropped.
struct Held<S> {
    listener: Arc<Listener<S>>,
    place: Place,
}

/// Accepts connections and serves their calls until `stop` is canceled; then it accepts no other, and ends when those that
/// are there have ended in order. When it is dropped, so are they.
///
/// Each handshake uses the configuration that `config` holds when it begins. What is turned away is counted in
/// `turned_away`; whoever is connected may call as long as `admits` says so.
pub async fn serve<S>(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    (limits, turned_away, admits): (Limits, Arc<TurnedAway>, Admits),
    services: S,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let Limits { handshakes, anonymous, connections, .. } = limits;
    let room = Room { silent: limits.silent(), shaking: handshakes, anonymous, named: connections };
    let here = Arc::new(Listener {
        config,
        limits,
        services,
        shared: Arc::new(Shared::new(turned_away, limits.message_memory_bytes, admits)),
        places: Mutex::new(Places { admissions: Admissions::new(room), tasks: HashMap::new() }),
        stop: stop.clone(),
    });
    let mut tasks = JoinSet::new();
    let mut tell = interval(TELL);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tell.tick() => here.tell(),
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => here.accept(stream, remote, &mut tasks),
                Err(error) if is_shortage(&error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    here.make_room();
                    sleep(ACCEPT_PAUSE).await;
                }
                // A peer that is gone again already.
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            },
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

impl<S> Listener<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    fn accept(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr, tasks: &mut JoinSet<()>) {
        // Held until the task is known, so that nobody closes it before.
        let mut places = self.places();
        let (place, gone) = places.admissions.arrive(remote.ip());
        self.close(&mut places, gone);
        let held = Held { listener: Arc::clone(self), place };
        let task = tasks.spawn(async move {
            // A connection is here for hours, and what it took to let it in for moments: that is not kept beside it.
            match Box::pin(held.listener.let_in(stream, remote, held.place)).await {
                Ok(Some((stream, guard))) => connection::serve(stream, guard, &held.listener.stop).await,
                Ok(None) => {}
                Err(error) => {
                    held.listener.count(&error);
                    tracing::debug!(%remote, %error, "a connection was turned away");
                }
            }
        });
        places.tasks.insert(place, task);
        self.count_open(&places);
    }

    /// A connection from its first byte until it is known who it is; none where it is gone again.
    async fn let_in(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        place: Place,
    ) -> Result<Option<(Box<TlsStream<TcpStream>>, Guard<S>)>, HandshakeError> {
        let Limits { first_byte_timeout, handshake_timeout, .. } = self.limits;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        let first = timeout(first_byte_timeout, stream.peek(&mut byte));
        if first.await.map_err(|_| HandshakeError::Silent(first_byte_timeout))?? == 0 {
            // Whoever closes at once looks whether somebody listens.
            return Ok(None);
        }
        {
            let mut places = self.places();
            let gone = places.admissions.spoke(place);
            self.close(&mut places, gone);
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.borrow()));
        let shaken = timeout(handshake_timeout, acceptor.accept(stream));
        let stream = Box::new(shaken.await.map_err(|_| HandshakeError::TimedOut(handshake_timeout))??);
        let info = who(&stream, remote)?;
        // Who was shut out holds no more than a stranger, and is told so at its first call.
        let holds = if self.shared.admits(&info) {
            info.peer.clone()
        } else {
            self.shared.turned_away.count(Reason::ShutOut);
            Peer::Anonymous
        };
        {
            let mut places = self.places();
            match places.admissions.known(place, &holds) {
                Admitted::Welcome => {}
                Admitted::InsteadOf(gone) => self.close(&mut places, Some(gone)),
                Admitted::Full => return Err(HandshakeError::Full),
                Admitted::Gone => return Ok(None),
            }
            self.count_open(&places);
        }
        Ok(Some((stream, Guard::new(Arc::clone(&self.shared), info, &holds, self.services.clone()))))
    }
}

impl<S> Listener<S> {
    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        // Each change is whole before anything can panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_open(&self, places: &Places) {
        self.shared.turned_away.traffic.open(places.tasks.len(), places.admissions.named());
    }

    fn close(&self, places: &mut Places, gone: Option<Place>) {
        if let Some(task) = gone.and_then(|gone| places.tasks.remove(&gone)) {
            self.shared.turned_away.count(Reason::CrowdedOut);
            task.abort();
        }
    }

    /// The system gives no further descriptor: whoever is worth least gives one back.
    fn make_room(&self) {
        self.shared.turned_away.count(Reason::NoDescriptor);
        let mut places = self.places();
        let least = places.admissions.least();
        self.close(&mut places, least);
    }

    fn tell(&self) {
        for notice in self.shared.turned_away.notices() {
            let (times, since_start) = (notice.times, notice.since_start);
            tracing::warn!(times, since_start, "peers or calls turned away: {}", notice.why);
        }
        self.shared.tidy();
    }

    fn count(&self, error: &HandshakeError) {
        self.shared.turned_away.count(match error {
            HandshakeError::Silent(_) => Reason::Silent,
            HandshakeError::TimedOut(_) => Reason::SlowHandshake,
            HandshakeError::Tls(_) | HandshakeError::Peer(_) => Reason::FailedHandshake,
            HandshakeError::Full => Reason::Full,
        });
    }
}

impl<S> Drop for Held<S> {
    fn drop(&mut self) {
        let mut places = self.listener.places();
        places.admissions.closed(self.place);
        places.tasks.remove(&self.place);
        self.listener.count_open(&places);
    }
}

/// Whether the system has no descriptor or no memory left for a connection.
fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [i32; 4] = [12, 23, 24, 105]; // ENOMEM, ENFILE, EMFILE, ENOBUFS
    error.raw_os_error().is_none_or(|code| SHORTAGES.contains(&code)) || !cfg!(target_os = "linux")
}

/// Who the handshake has shown.
fn who(stream: &TlsStream<TcpStream>, remote: SocketAddr) -> Result<ConnectInfo, PeerError> {
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first);
    Ok(match certificate.map(|certificate| peer::read_certificate(certificate)).transpose()? {
        None => ConnectInfo { peer: Peer::Anonymous, remote, not_after_unix_secs: None, serial: None },
        Some(Certified { peer, serial, not_after_unix_secs, role: _ }) => {
            ConnectInfo { peer, remote, not_after_unix_secs: Some(not_after_unix_secs), serial }
        }
    })
}
