//! An authority, and a server that tells each peer how it sees them.

use super::*;

/// An authority in a folder of its own.
pub(super) struct Home {
    pub(super) folder: tempfile::TempDir,
    pub(super) authority: Authority,
}

impl Home {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(folder.path(), LONG).unwrap();
        Self { folder, authority }
    }

    pub(super) fn server(&self) -> Identity {
        self.authority.issue_server(&[], LONG, &SystemRandom::new()).unwrap()
    }

    /// An operator whose certificate is written down.
    pub(super) fn operator(&self, name: &str) -> (Arc<Operators>, Identity) {
        let store = Store::open(&self.folder.path().join("operators")).unwrap();
        let operators = Operators::open(store).unwrap();
        let folder = self.folder.path().join("operator");
        operators.ensure(&folder, &name.parse().unwrap(), &self.authority, (LONG, &|_| false)).unwrap();
        (Arc::new(operators), Identity::load(&folder, name).unwrap())
    }

    pub(super) fn device(&self, validity: Validity) -> ClientIdentity {
        self.device_called(DEVICE, validity)
    }

    pub(super) fn device_called(&self, id: [u8; 16], validity: Validity) -> ClientIdentity {
        let rng = SystemRandom::new();
        let keys = DeviceKeys::open_or_create(&self.folder.path().join("device"), &rng).unwrap();
        let request = keys.signing_request().unwrap();
        ClientIdentity {
            chain: vec![self.authority.sign_device(&request, &id, validity, &rng).unwrap()],
            key: keys.tls_key(),
        }
    }
}

/// A server that tells each peer how it sees them.
pub(super) struct World {
    pub(super) home: Home,
    pub(super) identity: Identity,
    pub(super) address: SocketAddr,
    pub(super) config: watch::Sender<Arc<ServerConfig>>,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::with(Home::new(), own_config).await
    }

    pub(super) async fn with(
        home: Home,
        config: impl FnOnce((&Home, &Identity)) -> Arc<ServerConfig>,
    ) -> Self {
        Self::with_limits(home, config, Limits::default()).await
    }

    pub(super) async fn with_limits(
        home: Home,
        config: impl FnOnce((&Home, &Identity)) -> Arc<ServerConfig>,
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, home, config, limits)
    }

    pub(super) fn on(
        listener: TcpListener,
        home: Home,
        config: impl FnOnce((&Home, &Identity)) -> Arc<ServerConfig>,
        limits: Limits,
    ) -> Self {
        let identity = home.server();
        let (sender, receiver) = watch::channel(config((&home, &identity)));
        let address = listener.local_addr().unwrap();
        tokio::spawn(listener::serve(
            listener,
            receiver,
            (limits, Arc::default(), Arc::new(|_| true)),
            WhoAmI,
            CancellationToken::new(),
        ));
        Self { home, identity, address, config: sender }
    }

    pub(super) fn trust(&self) -> Trust {
        Trust::Authority(self.home.authority.certificate().clone())
    }

    pub(super) fn pin(&self) -> Trust {
        Trust::Pin(pin_of(self.home.authority.certificate()))
    }

    pub(super) fn uri(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) async fn connect(
        &self,
        trust: Trust,
        identity: Option<ClientIdentity>,
    ) -> Result<String, String> {
        let config = client_config(trust, identity).unwrap();
        who_am_i(connect(config, &self.uri()).await?).await
    }
}

pub(super) fn own_config((home, identity): (&Home, &Identity)) -> Arc<ServerConfig> {
    server_config(identity, home.authority.certificate(), Audience::Devices).unwrap()
}

pub(super) fn operators_config(
    (home, identity): (&Home, &Identity),
    operators: &Arc<Operators>,
) -> Arc<ServerConfig> {
    let operators = Arc::clone(operators);
    let known = move |peer: &Peer, serial| matches!(peer, Peer::Admin(_)) && operators.admits(serial);
    server_config(identity, home.authority.certificate(), Audience::Known(Arc::new(known))).unwrap()
}

/// A server that shows whatever it likes.
pub(super) fn plain_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Arc<ServerConfig> {
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Fails if the other side does not end the connection within ten seconds.
pub(super) async fn assert_cut_off(mut stream: TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
    // A reset is an end too.
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
}

pub(super) async fn connect(config: Arc<rustls::ClientConfig>, uri: &str) -> Result<Channel, String> {
    Endpoint::from_shared(uri.to_owned())
        .unwrap()
        .connect_with_connector(Connector::new(config, Duration::from_secs(10)))
        .await
        .map_err(|error| format!("{error:?}"))
}

pub(super) async fn who_am_i(mut channel: Channel) -> Result<String, String> {
    let request = Request::post(ENROLL).body(Body::empty()).unwrap();
    let channel = channel.ready().await.map_err(|error| format!("{error:?}"))?;
    let response = channel.call(request).await.map_err(|error| format!("{error:?}"))?;
    Ok(response.headers()["seen"].to_str().unwrap().to_owned())
}

#[derive(Clone)]
struct WhoAmI;

impl Service<Request<Body>> for WhoAmI {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let info: &ConnectInfo = request.extensions().get().unwrap();
        assert!(info.remote.ip().is_loopback());
        let seen = format!("{:?} until {:?}", info.peer, info.not_after_unix_secs);
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("seen", seen)
            .body(Body::empty())
            .unwrap();
        ready(Ok(response))
    }
}

pub(super) fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().try_into().unwrap()
}

/// A correct `ClientHello` that does not know of TLS 1.3 (RFC 5246, 7.4.1.2).
pub(super) fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [
        // supported_groups: x25519, secp256r1
        [0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17].as_slice(),
        // ec_point_formats: uncompressed
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
        // application_layer_protocol_negotiation: h2
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'],
    ]
    .concat();
    let body = [
        // version 1.2, random, no session
        [3, 3].as_slice(),
        &[7; 32],
        &[0],
        // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and its RSA sister
        &[0, 4, 0xc0, 0x2b, 0xc0, 0x2f],
        // no compression
        &[1, 0],
        &u16::try_from(extensions.len()).unwrap().to_be_bytes(),
        &extensions,
    ]
    .concat();
    let length = u16::try_from(body.len()).unwrap();
    let handshake = [[1, 0].as_slice(), &length.to_be_bytes(), &body].concat();
    let length = u16::try_from(handshake.len()).unwrap();
    [[0x16, 3, 1].as_slice(), &length.to_be_bytes(), &handshake].concat()
}
