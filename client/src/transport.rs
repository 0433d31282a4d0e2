//! The device's end of the wire: gRPC on TLS 1.3. Generated types stay in this file.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use proto::base::BaseFile;
use proto::convert::{
    Enrolled, Enrollment, Renewal, WireError, base_files_from_wire, describe_base_to_wire,
    enroll_reply_from_wire, enroll_request_to_wire, log_part_from_wire, rejection_from_bytes,
    renew_request_to_wire, reply_from_wire, request_to_wire,
};
use proto::ids::Digest;
use proto::message::{Chunk, LogPart, MAX_MESSAGE_BYTES, Rejection, Reply, Request};
use proto::wire;
use proto::wire::device_client::DeviceClient;
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use shell::proxy::Proxy;
use shell::tls::{ClientIdentity, Connector, Trust, client_config, matches_pin};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};

use crate::coordinator_clock::{Answered, CoordinatorClock};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest artefact that a device fetches.
pub const MAX_ARTIFACT_BYTES: u64 = 1 << 28;

/// What a device says of its program: by it an operator sees which devices are of an old one.
const PROGRAM: &str = concat!("nightshift/", env!("CARGO_PKG_VERSION"));

/// A call that gave no answer of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The coordinator turned the request away.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The coordinator could not be reached, or did not answer in time.
    #[error("the coordinator at {address} cannot be reached: {why}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why.
        why: String,
    },
    /// The coordinator says that this device's certificate has ended.
    #[error(
        "the coordinator at {address} says that this device's certificate has ended; it is renewed, if this device's \
         clock is right"
    )]
    CertificateEnded {
        /// Where it is.
        address: String,
    },
    /// What came is not of the protocol.
    #[error("the coordinator's answer cannot be read: {0}")]
    Answer(#[from] WireError),
    /// The address, a certificate or a key cannot be used.
    #[error("cannot connect to {address}: {why}")]
    Setup {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// What was fetched is not what was asked for.
    #[error("the artefact {digest} is not what came: {why}")]
    Artifact {
        /// Its hash.
        digest: Digest,
        /// What is wrong.
        why: String,
    },
}

/// A connection to the coordinator, made when it is first needed and again when it breaks.
#[derive(Clone, Debug)]
pub struct Transport {
    client: DeviceClient<Channel>,
    way: Way,
}

/// How the coordinator is reached, whoever reaches it.
#[derive(Clone, Debug)]
struct Way {
    address: String,
    trust: Trust,
    proxy: Proxy,
    carried: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    clock: CoordinatorClock,
}

impl Way {
    fn new(address: &str, trust: Trust, proxy: Proxy) -> Self {
        let (carried, sent, clock) = (Arc::default(), Arc::default(), CoordinatorClock::default());
        Self { address: address.to_owned(), trust, proxy, carried, sent, clock }
    }
}

impl Transport {
    /// Prepares a connection to `address`, `host:port`. Nothing is sent yet.
    pub fn new(
        address: &str,
        trust: Trust,
        identity: Option<ClientIdentity>,
        proxy: Proxy,
    ) -> Result<Self, TransportError> {
        Self::over(Way::new(address, trust, proxy), identity)
    }

    /// The same, showing another identity, or none; its bytes are counted with those of this one.
    pub fn showing(&self, identity: Option<ClientIdentity>) -> Result<Self, TransportError> {
        Self::over(self.way.clone(), identity)
    }

    fn over(way: Way, identity: Option<ClientIdentity>) -> Result<Self, TransportError> {
        let unfit = |why: String| TransportError::Setup { address: way.address.clone(), why };
        let config = client_config(way.trust.clone(), identity).map_err(|error| unfit(error.to_string()))?;
        let endpoint = Endpoint::from_shared(format!("https://{}", way.address))
            .map_err(|error| unfit(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .user_agent(PROGRAM)
            .map_err(|error| unfit(error.to_string()))?
            .http2_keep_alive_interval(Duration::from_secs(30));
        let connector = Connector::new(config, CONNECT_TIMEOUT).through(way.proxy.clone());
        let connector = connector.counting(Arc::clone(&way.carried)).counting_sent(Arc::clone(&way.sent));
        let channel = endpoint.connect_with_connector_lazy(connector);
        let client = DeviceClient::new(channel)
            .max_decoding_message_size(2 * MAX_MESSAGE_BYTES)
            .max_encoding_message_size(2 * MAX_MESSAGE_BYTES);
        Ok(Self { client, way })
    }

    /// Where the coordinator is.
    pub(crate) fn address(&self) -> &str {
        &self.way.address
    }

    /// Where the bytes are counted that its connections carry, both ways, within TLS.
    pub fn carried(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.way.carried)
    }

    /// Where those of them are counted that this side sent.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.way.sent)
    }

    /// Exchanges a token for an identity.
    pub async fn enroll(&mut self, enrollment: &Enrollment) -> Result<Enrolled, TransportError> {
        let reply = self.client.enroll(enroll_request_to_wire(enrollment)).await;
        let reply = self.heard(reply).map_err(|status| self.failure(&status))?;
        Ok(enroll_reply_from_wire(reply)?)
    }

    /// Exchanges a certificate request for the next identity.
    pub async fn renew(&mut self, renewal: &Renewal) -> Result<Enrolled, TransportError> {
        let reply = self.client.renew(renew_request_to_wire(renewal)).await;
        let reply = self.heard(reply).map_err(|status| {
            if status.code() == Code::Unimplemented {
                return TransportError::Rejected(Rejection::Unacceptable {
                    request: "renew".into(),
                    why: "this coordinator is older than this device and renews nothing".to_owned(),
                });
            }
            self.failure(&status)
        })?;
        Ok(enroll_reply_from_wire(reply)?)
    }

    /// Sends one request of the protocol.
    pub async fn send(&mut self, request: &Request) -> Result<Reply, TransportError> {
        let reply = self.client.send(request_to_wire(request)).await;
        let reply = self.heard(reply).map_err(|status| self.failure(&status))?;
        Ok(reply_from_wire(reply)?)
    }

    /// Fetches an artefact of at most `most_bytes` chunk by chunk, after what there is of it, and checks its hash.
    ///
    /// What came of it is in `bytes` when the coordinator cannot be reached any more, to be gone on with; nothing is when
    /// it is not what was asked for.
    pub async fn fetch(
        &mut self,
        digest: Digest,
        most_bytes: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let done = self.fetch_on(digest, most_bytes, bytes).await;
        if matches!(done, Err(TransportError::Artifact { .. })) {
            bytes.clear();
        }
        done
    }

    async fn fetch_on(
        &mut self,
        digest: Digest,
        most_bytes: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let bad = |why: String| TransportError::Artifact { digest, why };
        loop {
            let chunk = self.part(digest, bytes.len() as u64).await?;
            if chunk.total_bytes > most_bytes {
                let found = chunk.total_bytes;
                return Err(bad(format!("it has {found} bytes, at most {most_bytes} are fetched")));
            }
            bytes.extend_from_slice(&chunk.bytes);
            if bytes.len() as u64 == chunk.total_bytes {
                break;
            }
        }
        if Digest::of(bytes) == digest { Ok(()) } else { Err(bad("its hash is another".to_owned())) }
    }

    /// The next part of what has this hash, from `offset` on: at least one byte where there is one, and none beyond the
    /// end that it states.
    pub(crate) async fn part(&mut self, digest: Digest, offset: u64) -> Result<Chunk, TransportError> {
        let bad = |why: String| TransportError::Artifact { digest, why };
        let chunk = match self.send(&Request::Fetch { digest, offset }).await? {
            Reply::Chunk(chunk) => chunk,
            other @ (Reply::Wait { .. }
            | Reply::Assignment(_)
            | Reply::Offer { .. }
            | Reply::Roster { .. }
            | Reply::Drawn(_)
            | Reply::Inbox { .. }
            | Reply::Received
            | Reply::Survivors(_)
            | Reply::Evidence(_)
            | Reply::Over(_)) => return Err(bad(format!("the answer is `{}`", other.name()))),
        };
        let empty = chunk.bytes.is_empty() && offset < chunk.total_bytes;
        let over = offset.saturating_add(chunk.bytes.len() as u64) > chunk.total_bytes;
        if chunk.offset != offset || empty || over {
            return Err(bad(format!("a chunk at {} came for {offset}", chunk.offset)));
        }
        Ok(chunk)
    }

    /// The files of a base that the coordinator serves. A coordinator that does not serve it turns the question away.
    pub(crate) async fn describe_base(&mut self, base: Digest) -> Result<Vec<BaseFile>, TransportError> {
        let reply = self.client.describe_base(describe_base_to_wire(base)).await;
        let reply = self.heard(reply).map_err(|status| {
            // One that is older than this device serves none.
            if status.code() == Code::Unimplemented {
                return TransportError::Rejected(Rejection::UnknownArtifact);
            }
            self.failure(&status)
        })?;
        Ok(base_files_from_wire(reply)?)
    }

    /// The entries of the enrollment log from a place on, and its newest head.
    pub(crate) async fn read_log(&mut self, from: u64) -> Result<LogPart, TransportError> {
        let reply = self.client.read_log(wire::ReadLogRequest { from }).await;
        let reply = self.heard(reply).map_err(|status| self.failure(&status))?;
        Ok(log_part_from_wire(reply))
    }

    /// When the coordinator answered last, and what its clock says; none where it did not yet.
    pub fn answered(&self) -> Option<Answered> {
        self.way.clock.last()
    }

    /// How long ago it did what it was asked for; none where it did not yet.
    pub(crate) fn served_ago(&self) -> Option<Duration> {
        self.way.clock.served_ago()
    }

    fn heard<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Status> {
        self.way.clock.hear(match &answer {
            Ok(reply) => reply.metadata(),
            Err(status) => status.metadata(),
        });
        if answer.is_ok() {
            self.way.clock.is_served();
        }
        answer.map(Response::into_inner)
    }

    fn failure(&self, status: &Status) -> TransportError {
        if !status.details().is_empty() {
            return match rejection_from_bytes(status.details()) {
                Ok(rejection) => TransportError::Rejected(rejection),
                Err(error) => TransportError::Answer(error),
            };
        }
        if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) {
            return TransportError::Rejected(Rejection::NotEnrolled);
        }
        let address = self.way.address.clone();
        let why = describe(status);
        if alert_in(&why) == Some(AlertDescription::CertificateExpired) {
            return TransportError::CertificateEnded { address };
        }
        let advice = advice(status, &why).map_or(String::new(), |advice| format!("; {advice}"));
        TransportError::Unreachable { address, why: why + advice.as_str() }
    }
}

/// A status with the causes that tonic keeps below it.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The alert by which a coordinator refused this device's certificate, if it is the cause of a failure.
///
/// In TLS 1.3 it comes after the device's handshake, to whoever reads then, which is HTTP/2: of its error there is only the
/// text left.
fn alert_in(why: &str) -> Option<AlertDescription> {
    use AlertDescription::{BadCertificate, CertificateExpired, CertificateUnknown, DecryptError, UnknownCA};

    [CertificateExpired, UnknownCA, BadCertificate, CertificateUnknown, DecryptError]
        .into_iter()
        .find(|alert| why.contains(&rustls::Error::AlertReceived(*alert).to_string()))
}

/// What to do where the two sides do not take each other's certificates.
fn advice(status: &Status, why: &str) -> Option<&'static str> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(tls) = tls {
            return advice_on(tls);
        }
        cause = error.source();
    }
    alert_in(why).map(|_| {
        "the coordinator does not take this device's certificate: it was installed anew, or its clock is wrong; ask its \
         operator, who may give a new token for `nightshift-agent enroll`"
    })
}

/// What to do where this device does not take the coordinator's certificate.
fn advice_on(error: &rustls::Error) -> Option<&'static str> {
    let stranger = is_of_others(error).then_some(
        "it is not the coordinator with which this device enrolled: it was installed anew, or somebody else answers there; \
         ask its operator, who may give a new token for `nightshift-agent enroll`",
    );
    advice_on_its_certificate(error).or(stranger)
}

/// What to do where a device that has a token does not take the coordinator's certificate.
fn advice_on_pinned(error: &rustls::Error) -> Option<&'static str> {
    let stranger = is_of_others(error).then_some(
        "it is not the coordinator that the token is for: the token was made by another one, it was installed anew since then, or \
         somebody else answers there; ask its operator for a new token",
    );
    advice_on_its_certificate(error).or(stranger)
}

/// Whether the certificate is of another authority.
fn is_of_others(error: &rustls::Error) -> bool {
    use rustls::{CertificateError, Error};

    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Revoked
        )
    )
}

/// What to do where the coordinator's certificate is its own, and not valid here and now.
fn advice_on_its_certificate(error: &rustls::Error) -> Option<&'static str> {
    advice_on_time(error).or_else(|| advice_on_name(error))
}

/// What to do where the coordinator's certificate does not hold the name by which this device reaches it.
fn advice_on_name(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{CertificateError, Error};

    let of_other_names = matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    );
    of_other_names.then_some(
        "the coordinator's certificate does not hold the name by which this device reaches it: its operator adds the name to \
         `public_names` in coordinator.toml and starts the coordinator again; or reach it by a name that the certificate \
         holds, which `coordinator` in agent.toml, or `enroll --coordinator`, gives",
    )
}

/// What to do where the coordinator's certificate is not valid now.
fn advice_on_time(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{CertificateError, Error};

    let at_other_time = matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    );
    at_other_time.then_some(
        "the coordinator's certificate is not valid at this device's time: see whether this clock is right, else tell the \
         coordinator's operator",
    )
}

/// The coordinator's authority, known only by the SHA-256 of its certificate.
pub async fn pinned_authority(
    address: &str,
    pin: [u8; 32],
    proxy: Proxy,
) -> Result<CertificateDer<'static>, TransportError> {
    let unreachable = |why: String| TransportError::Unreachable { address: address.to_owned(), why };
    let setup = |why: String| TransportError::Setup { address: address.to_owned(), why };
    let config = client_config(Trust::Pin(pin), None).map_err(|error| setup(error.to_string()))?;
    let uri = format!("https://{address}").parse::<Uri>().map_err(|error| setup(error.to_string()))?;
    let dialed = Connector::new(config, CONNECT_TIMEOUT).through(proxy).dial(&uri).await;
    let stream = dialed.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let advice = tls.and_then(advice_on_pinned).map_or(String::new(), |advice| format!("; {advice}"));
        let why = format!("{error}{advice}");
        if error.kind() == ErrorKind::InvalidInput { setup(why) } else { unreachable(why) }
    })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let found = chain.iter().find(|certificate| matches_pin(certificate, &pin));
    found
        .map(|certificate| certificate.clone().into_owned())
        .ok_or_else(|| setup("its certificates are not of the authority that the token names".to_owned()))
}
