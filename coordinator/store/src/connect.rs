//! Connections: to whom, over what, and how long each step may take.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use shell::store::StoreError;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::Address;
use crate::error::{no_connection, told};

/// How long a connection may take to be there, and what waits for one.
const CONNECT: Duration = Duration::from_secs(10);

/// What a client waits for beyond what the server does, so that the server's own word comes first.
const BEYOND: Duration = Duration::from_secs(3);

/// Where nothing vouches for the server, and who may read along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Only on the way that stays on this machine.
    Local,
    /// Over any network: somebody said so.
    Anywhere,
}

/// How a database is used.
#[derive(Clone)]
pub struct Settings {
    /// Which one.
    pub address: Address,
    /// The user's password, where it needs one.
    pub password: Option<Zeroizing<String>>,
    /// The authorities that vouch for the server, in PEM: then the way is TLS, and the server's certificate has to name the host.
    pub authorities: Option<Vec<u8>>,
    /// Where it may be asked without TLS.
    pub plain: Plain,
    /// The most connections, beside the one that listens.
    pub connections: usize,
    /// How long a statement may take, and what it waits for.
    pub statement: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What protects the way.
#[derive(Clone)]
enum Tls {
    None,
    Verified(MakeRustlsConnect),
}

/// Connections that are shared, and what makes another.
pub(crate) struct Connections {
    pool: Pool,
    config: tokio_postgres::Config,
    tls: Tls,
    pub(crate) place: String,
    /// How long a client waits for the answer to one statement.
    pub(crate) answer: Duration,
    /// How long is asked what became of a transaction.
    pub(crate) patience: Duration,
    most: usize,
}

impl Connections {
    pub(crate) fn new(settings: &Settings) -> Result<Self, StoreError> {
        let place = settings.address.to_string();
        let refused = |why: String| StoreError::Refused { place: place.clone(), why };
        let tls = tls(settings).map_err(refused)?;
        let mut config = settings.address.config().clone();
        if let Some(password) = &settings.password {
            config.password(password.as_bytes());
        }
        config.ssl_mode(match tls {
            Tls::None => SslMode::Disable,
            Tls::Verified(_) => SslMode::Require,
        });
        config.application_name("nightshift").connect_timeout(CONNECT);
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(30));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &tls {
            Tls::None => Manager::from_config(config.clone(), NoTls, recycling),
            Tls::Verified(tls) => Manager::from_config(config.clone(), tls.clone(), recycling),
        };
        let set = session(settings.statement);
        let set_up = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let set = set.clone();
            Box::pin(async move { client.batch_execute(&set).await.map_err(HookError::Backend) })
        });
        let timeouts = Timeouts {
            wait: Some(settings.statement + CONNECT),
            create: Some(CONNECT),
            recycle: Some(CONNECT),
        };
        let pool = Pool::builder(manager)
            .max_size(settings.connections)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(set_up)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            pool,
            config,
            tls,
            place,
            answer: settings.statement + BEYOND,
            patience: 6 * settings.statement,
            most: settings.connections,
        })
    }

    /// A connection of the pool.
    pub(crate) async fn get(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| no_connection(&self.place, self.most, &error))
    }

    /// What is said of a failure.
    pub(crate) fn told(&self, error: &tokio_postgres::Error) -> StoreError {
        told(&self.place, error)
    }

    /// What is said where no answer comes.
    pub(crate) fn silent(&self) -> StoreError {
        let why =
            format!("no answer came within {} s; look whether the server is reached", self.answer.as_secs());
        StoreError::Unavailable { place: self.place.clone(), why }
    }

    /// A connection beside the pool, and what the server says on it by itself, until it ends.
    pub(crate) async fn apart(
        &self,
        hears: impl Fn(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, Driven), StoreError> {
        match &self.tls {
            Tls::None => {
                let made = timeout(CONNECT, self.config.connect(NoTls)).await.map_err(|_| self.silent())?;
                let (client, connection) = made.map_err(|error| self.told(&error))?;
                Ok((client, driven(connection, hears)))
            }
            Tls::Verified(tls) => {
                let made =
                    timeout(CONNECT, self.config.connect(tls.clone())).await.map_err(|_| self.silent())?;
                let (client, connection) = made.map_err(|error| self.told(&error))?;
                Ok((client, driven(connection, hears)))
            }
        }
    }
}

/// What carries the bytes of a connection, until it ends.
pub(crate) type Driven = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn driven<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    hears: impl Fn(AsyncMessage) + Send + 'static,
) -> Driven
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            hears(message);
        }
    })
}

/// What every connection of the pool is told first. Look-ups go by index, so that what a serializable transaction read is exactly
/// that and no whole table; and a server on which a commit is not durable when it is answered is told otherwise.
fn session(statement: Duration) -> String {
    let millis = statement.as_millis();
    format!(
        "SET statement_timeout = {millis}; SET lock_timeout = {millis}; SET idle_in_transaction_session_timeout = {};\
         SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;\
         SET client_min_messages = warning;\
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        3 * millis
    )
}

fn tls(settings: &Settings) -> Result<Tls, String> {
    let Some(pem) = &settings.authorities else {
        if settings.address.is_local() || settings.plain == Plain::Anywhere {
            return Ok(Tls::None);
        }
        return Err("the way to it leaves this machine and nothing vouches for the server; name the authorities of its certificate \
                    as ca_file, or say allow_plain = true"
            .to_owned());
    };
    if settings.address.socket().is_some() {
        return Err(
            "it is reached by a socket in a folder, where there is no TLS; leave ca_file out".to_owned()
        );
    }
    let certificates = pem::parse_many(pem).map_err(|error| format!("ca_file is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates.iter().filter(|block| block.tag() == "CERTIFICATE") {
        let der = CertificateDer::from_slice(certificate.contents());
        roots
            .add(der.into_owned())
            .map_err(|error| format!("ca_file holds a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("ca_file holds no certificate".to_owned());
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    Ok(Tls::Verified(MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth())))
}
