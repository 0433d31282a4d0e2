//! A man in the middle: agents take it for the coordinator, and it hands everything on in their names.
//!
//! It sees each message as both sides read it, keeps what matters, and can hold one message back. While it does,
//! nothing else passes either, so a test can end a process at exactly this step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use ::client::keys::DeviceKeys;
use ::client::transport::{Transport, TransportError};
use coordinator::listener::{self, Admits, Limits};
use coordinator::peer::{ConnectInfo, Peer};
use coordinator::pki::{Authority, Validity};
use coordinator::tls::{Audience, server_config};
use proto::convert::{rejection_to_bytes, reply_to_wire, request_from_wire};
use proto::ids::DeviceId;
use proto::message::{MAX_MESSAGE_BYTES, Outcome, Reply, Request};
use proto::wire;
use proto::wire::device_server::{Device, DeviceServer};
use ring::rand::SystemRandom;
use shell::tls::{ClientIdentity, Trust};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Response, Status};

use super::seen::Seen;

/// How long a message that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(240);

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

/// A request that has left its device, or the coordinator's answer that has not reached it.
pub(crate) struct Message<'a> {
    pub(crate) device: DeviceId,
    /// The number of its round, if it is of one.
    pub(crate) round: Option<u64>,
    pub(crate) request: &'a Request,
    /// Before the coordinator has the request, there is none.
    pub(crate) reply: Option<&'a Result<Reply, TransportError>>,
}

impl Message<'_> {
    /// Whether it is the request of this name, before the coordinator has it.
    pub(crate) fn asks(&self, request: &str) -> bool {
        self.reply.is_none() && self.request.name() == request
    }

    /// Whether it is the answer of this name.
    pub(crate) fn answers(&self, name: &str) -> bool {
        matches!(self.reply, Some(Ok(reply)) if reply.name() == name)
    }
}

/// Whether it tells a device that the sum of its round was published.
pub(crate) fn publishes(message: &Message<'_>) -> bool {
    matches!(message.reply, Some(Ok(Reply::Over(Outcome::Published))))
}

type Catches = Box<dyn FnMut(&Message<'_>) -> bool + Send>;

/// Where the next message that is caught is announced.
struct Trap {
    catches: Catches,
    tell: mpsc::Sender<Held>,
}

/// A message that is held back, and every later one with it, until this is dropped.
pub(crate) struct Held {
    /// The number of its round, if it is of one.
    pub(crate) round: Option<u64>,
    _closed: OwnedRwLockWriteGuard<()>,
}

/// A message that will be held back.
pub(crate) struct Awaited(mpsc::Receiver<Held>);

impl Awaited {
    /// Waits for the message.
    pub(crate) fn come(self, what: &str) -> Held {
        self.within(PATIENCE).unwrap_or_else(|| panic!("{what} did not come within {PATIENCE:?}"))
    }

    /// Waits for the message, but not for longer than this.
    pub(crate) fn within(self, limit: Duration) -> Option<Held> {
        self.0.recv_timeout(limit).ok()
    }
}

/// The man in the middle.
pub(crate) struct Relay {
    inner: Arc<Inner>,
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

struct Inner {
    authority: Authority,
    keys: DeviceKeys,
    upstream: String,
    transports: Mutex<BTreeMap<DeviceId, Transport>>,
    seen: Mutex<Seen>,
    trap: Mutex<Option<Trap>>,
    /// Whoever reads passes; written while a message is held back.
    gate: Arc<RwLock<()>>,
}

impl Relay {
    /// Stands in front of the coordinator at `upstream`, whose keys are in `home`.
    pub(crate) fn new(home: &Path, folder: &Path, upstream: String) -> Self {
        let rng = SystemRandom::new();
        let authority = Authority::open_or_create(home, LONG).unwrap();
        let identity = authority.issue_server(&[], LONG, &rng).unwrap();
        let tls = server_config(&identity, authority.certificate(), Audience::Devices).unwrap();
        let inner = Arc::new(Inner {
            keys: DeviceKeys::open_or_create(folder, &rng).unwrap(),
            authority,
            upstream,
            transports: Mutex::default(),
            seen: Mutex::default(),
            trap: Mutex::default(),
            gate: Arc::default(),
        });
        let runtime = Runtime::new().unwrap();
        let service = DeviceServer::new(Service(Arc::clone(&inner)))
            .max_decoding_message_size(2 * MAX_MESSAGE_BYTES)
            .max_encoding_message_size(2 * MAX_MESSAGE_BYTES);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let (_sender, tls) = watch::channel(tls);
            let never = CancellationToken::new();
            let limits: (_, _, Admits) = (Limits::default(), Arc::default(), Arc::new(|_: &_| true));
            listener::serve(listener, tls, limits, Routes::new(service), never).await;
        });
        Self { inner, address, _runtime: runtime }
    }

    /// Holds the next message back that `catches` says yes to; one that is awaited already is no longer.
    pub(crate) fn hold(&self, catches: impl FnMut(&Message<'_>) -> bool + Send + 'static) -> Awaited {
        let (tell, told) = mpsc::channel();
        *lock(&self.inner.trap) = Some(Trap { catches: Box::new(catches), tell });
        Awaited(told)
    }

    /// What has passed so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.inner.seen)
    }
}

struct Service(Arc<Inner>);

#[tonic::async_trait]
impl Device for Service {
    async fn enroll(
        &self,
        _: tonic::Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollReply>, Status> {
        Err(Status::unimplemented("devices enrol with the coordinator itself"))
    }

    async fn renew(
        &self,
        _: tonic::Request<wire::RenewRequest>,
    ) -> Result<Response<wire::EnrollReply>, Status> {
        Err(Status::unimplemented("no certificate ends here"))
    }

    async fn read_log(
        &self,
        _: tonic::Request<wire::ReadLogRequest>,
    ) -> Result<Response<wire::LogPart>, Status> {
        Err(Status::unimplemented("devices read the log of the coordinator itself"))
    }

    async fn describe_base(
        &self,
        _: tonic::Request<wire::DescribeBaseRequest>,
    ) -> Result<Response<wire::BaseFiles>, Status> {
        Err(Status::unimplemented("every device has its base"))
    }

    async fn send(&self, request: tonic::Request<wire::Request>) -> Result<Response<wire::Reply>, Status> {
        let info = request.extensions().get::<ConnectInfo>().unwrap();
        let Peer::Device(device) = info.peer else { panic!("{:?} asks", info.peer) };
        let request = request_from_wire(request.into_inner()).unwrap();
        let inner = Arc::clone(&self.0);
        // To its end, even when the device has gone: what left it is on the network.
        let passing = tokio::spawn(async move { inner.pass(DeviceId(device), request).await });
        match passing.await.unwrap() {
            Ok(reply) => Ok(Response::new(reply_to_wire(reply))),
            Err(TransportError::Rejected(rejection)) => {
                let details = rejection_to_bytes(&rejection).into();
                Err(Status::with_details(Code::FailedPrecondition, rejection.to_string(), details))
            }
            Err(other) => Err(Status::unavailable(other.to_string())),
        }
    }
}

impl Inner {
    async fn pass(&self, device: DeviceId, request: Request) -> Result<Reply, TransportError> {
        let round = {
            let mut seen = lock(&self.seen);
            seen.request(device, &request);
            request.session().and_then(|session| seen.round(session))
        };
        self.stop_at(&Message { device, round, request: &request, reply: None }).await;
        let answer = self.transport(device).send(&request).await;
        if let Ok(reply) = &answer {
            lock(&self.seen).reply(&request, reply);
        }
        self.stop_at(&Message { device, round, request: &request, reply: Some(&answer) }).await;
        answer
    }

    async fn stop_at(&self, message: &Message<'_>) {
        drop(self.gate.read().await);
        let caught = {
            let mut trap = lock(&self.trap);
            if trap.as_mut().is_some_and(|trap| (trap.catches)(message)) { trap.take() } else { None }
        };
        if let Some(trap) = caught {
            let closed = Arc::clone(&self.gate).write_owned().await;
            if trap.tell.send(Held { round: message.round, _closed: closed }).is_ok() {
                drop(self.gate.read().await);
            }
        }
    }

    /// A connection to the coordinator as this device.
    fn transport(&self, device: DeviceId) -> Transport {
        let new = || {
            let request = self.keys.signing_request().unwrap();
            let certificate = self.authority.sign_device(&request, &device.0, LONG, &SystemRandom::new());
            let identity = ClientIdentity { chain: vec![certificate.unwrap()], key: self.keys.tls_key() };
            let trust = Trust::Authority(self.authority.certificate().clone());
            Transport::new(&self.upstream, trust, Some(identity), client::Proxy::none()).unwrap()
        };
        lock(&self.transports).entry(device).or_insert_with(new).clone()
    }
}

/// A test that panicked elsewhere does not hide behind the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
