//! Both ends of TLS against each other: who gets in, as whom, and who does not.
#![expect(clippy::disallowed_methods, reason = "IO shell: the tests run a server beside themselves")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: clippy knows the tests only, not their helpers")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::client::keys::DeviceKeys;
use ::client::transport::{Transport, pinned_authority};
use aggregation::IdentityPublic;
use coordinator::{
    listener::{self, Admits, Limits},
    operators::Operators,
    peer::{ConnectInfo, Peer},
    pki::{Authority, Identity, Validity},
    tls::{Audience, server_config},
    tokens,
};
use http_body_util::BodyExt;
use operator::admin_channel;
use proto::message::{CheckIn, Request as Asked};
use proto::role::Role;
use proto::token::BootstrapToken;
use ring::rand::SystemRandom;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use shell::{
    store::{Batch, Store},
    tls::{ClientIdentity, Connector, Trust, client_config},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    transport::{Channel, Endpoint},
};
use tower::{Service, ServiceExt};

#[path = "tls/world.rs"]
mod world;

use world::*;

const DEVICE: [u8; 16] = [0xd7; 16];

/// What everybody may call.
const ENROLL: &str = "/nightshift.v1.Device/Enroll";

const LONG: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 4_000_000_000 };

const PAST: Validity = Validity { not_before_unix_secs: 1_600_000_000, not_after_unix_secs: 1_700_000_000 };

#[tokio::test]
async fn a_peer_without_a_certificate_is_anonymous() {
    let world = World::start().await;
    let seen = world.connect(world.trust(), None).await.unwrap();
    assert_eq!(seen, format!("{:?} until None", Peer::Anonymous));
}

#[tokio::test]
async fn a_device_is_known_by_the_id_in_its_certificate() {
    let world = World::start().await;
    let device = world.home.device(LONG);
    let seen = world.connect(world.trust(), Some(device)).await.unwrap();
    let until = LONG.not_after_unix_secs;
    let expected = format!("{:?} until Some({until})", Peer::Device(DEVICE));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_administrator_is_known_by_name() {
    let home = Home::new();
    let (_, identity) = home.operator("owl");
    let world = World::with(home, operators_config).await;
    let address = format!("localhost:{}", world.address.port());
    let channel = admin_channel::connect(&address, &identity).await.unwrap();
    let seen = who_am_i(channel).await.unwrap();
    assert!(seen.starts_with(&format!("{:?} ", Peer::Admin("owl".parse().unwrap()))));
}

#[tokio::test]
async fn an_operator_who_was_shut_out_or_comes_late_is_told_so_at_the_first_call() {
    let home = Home::new();
    let (operators, revoked) = home.operator("owl");
    let authority = &home.authority;
    let name = "owl".parse().unwrap();
    let issue =
        |validity| authority.issue_admin((&name, Role::Admin), validity, &SystemRandom::new()).unwrap();
    // Written down by nobody, ended, and revoked.
    let (unknown, ended) = (issue(LONG), issue(PAST));
    assert!(operators.revoke(revoked.serial().unwrap()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admits = move |info: &ConnectInfo| info.serial.is_some_and(|serial| operators.admits(serial));
    let world = World::admitting(listener, home, operators_config, Limits::default(), Arc::new(admits));
    let address = format!("localhost:{}", world.address.port());
    for identity in [unknown, ended, revoked] {
        let channel = admin_channel::connect(&address, &identity).await.unwrap();
        for (kind, status) in [(Some("application/grpc"), 200), (None, 403)] {
            let mut request = Request::get("/").body(Body::empty()).unwrap();
            if let Some(kind) = kind {
                request.headers_mut().insert("content-type", kind.parse().unwrap());
            }
            let mut channel = channel.clone();
            let response = channel.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            assert!(!response.headers().contains_key("seen"));
            if kind.is_some() {
                assert_eq!(response.headers()["grpc-status"], "16");
            } else {
                let said = response.into_body().collect().await.unwrap().to_bytes();
                assert!(said.starts_with(b"this operator's certificate is not taken here"), "{said:?}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_but_operators_gets_through_the_handshake_of_their_listener() {
    let home = Home::new();
    let world = World::with(home, operators_config).await;
    assert!(world.connect(world.trust(), None).await.is_err());
    let device = world.home.device(LONG);
    assert!(world.connect(world.trust(), Some(device)).await.is_err());
}

#[tokio::test]
async fn an_operator_is_nobody_where_devices_connect() {
    let world = World::start().await;
    let operator = world
        .home
        .authority
        .issue_admin((&"owl".parse().unwrap(), Role::Admin), LONG, &SystemRandom::new())
        .unwrap();
    let posing = ClientIdentity { chain: vec![operator.chain()[0].clone()], key: operator.key() };
    assert!(world.connect(world.trust(), Some(posing)).await.is_err());
}

#[tokio::test]
async fn a_peer_without_a_certificate_calls_nothing_but_enroll() {
    let world = World::start().await;
    let config = client_config(world.trust(), None).unwrap();
    let mut channel = connect(config, &world.uri()).await.unwrap();
    for path in ["/nightshift.v1.Device/Send", "/nightshift.v1.Device/enroll", "/"] {
        let request =
            Request::post(path).header("content-type", "application/grpc").body(Body::empty()).unwrap();
        let response = channel.ready().await.unwrap().call(request).await.unwrap();
        // UNAUTHENTICATED, and the service has not seen it.
        assert_eq!(response.headers()["grpc-status"], "16", "{path}");
        assert!(!response.headers().contains_key("seen"));
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let world = World::start().await;
    let stranger = Home::new().device(LONG);
    assert!(world.connect(world.trust(), Some(stranger)).await.is_err());
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let world = World::start().await;
    let late = world.home.device(PAST);
    assert!(world.connect(world.trust(), Some(late)).await.is_err());
}

#[tokio::test]
async fn a_servers_certificate_does_not_make_a_peer() {
    let world = World::start().await;
    let server = world.home.server();
    let posing = ClientIdentity { chain: vec![server.chain()[0].clone()], key: server.key() };
    assert!(world.connect(world.trust(), Some(posing)).await.is_err());
}

#[tokio::test]
async fn a_device_takes_no_server_of_another_authority() {
    let world = World::start().await;
    let other = Trust::Authority(Home::new().authority.certificate().clone());
    let refusal = world.connect(other, None).await.unwrap_err();
    // Both authorities have the same name, so it is the signature that fails.
    assert!(refusal.contains("BadSignature"), "{refusal}");
}

#[tokio::test]
async fn a_devices_certificate_does_not_make_a_server() {
    let home = Home::new();
    let device = home.device(LONG);
    let chain = vec![device.chain[0].clone(), home.authority.certificate().clone()];
    let world = World::with(home, |_| plain_config(chain, device.key)).await;
    for trust in [world.trust(), world.pin()] {
        let refusal = world.connect(trust, None).await.unwrap_err();
        assert!(refusal.contains("InvalidPurpose"), "{refusal}");
    }
}

#[tokio::test]
async fn the_right_pin_finds_the_coordinator() {
    let world = World::start().await;
    let seen = world.connect(world.pin(), None).await.unwrap();
    assert_eq!(seen, format!("{:?} until None", Peer::Anonymous));
}

#[tokio::test]
async fn a_wrong_pin_is_refused() {
    let world = World::start().await;
    let leaf = pin_of(&world.identity.chain()[0]);
    for pin in [[1; 32], leaf] {
        let refusal = world.connect(Trust::Pin(pin), None).await.unwrap_err();
        assert!(refusal.contains("UnknownIssuer"), "{refusal}");
    }
}

#[tokio::test]
async fn a_pin_does_not_vouch_for_a_stranger_who_shows_our_authority_too() {
    let stranger = Home::new().server();
    let home = Home::new();
    let chain = vec![stranger.chain()[0].clone(), home.authority.certificate().clone()];
    let world = World::with(home, |_| plain_config(chain, stranger.key())).await;
    let refusal = world.connect(world.pin(), None).await.unwrap_err();
    assert!(refusal.contains("BadSignature"), "{refusal}");
}

#[tokio::test]
async fn a_pin_does_not_vouch_for_another_name() {
    // An address of the loopback that is not in the certificate.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let world = World::on(listener, Home::new(), own_config, Limits::default());
    let refusal = world.connect(world.pin(), None).await.unwrap_err();
    assert!(refusal.contains("NotValidForName"), "{refusal}");
}

#[tokio::test]
async fn tls_1_2_is_refused_by_the_coordinator() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A fatal (2) alert: protocol_version (70).
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn a_device_offers_tls_1_3_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}", listener.local_addr().unwrap());
    let config = client_config(Trust::Pin([1; 32]), None).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).await.unwrap();
        hello.truncate(length);
        hello
    };
    let (refused, hello) = tokio::join!(connect(config, &uri), server);
    assert!(refused.is_err());
    // The extension supported_versions (43) with one version, 3.4.
    let offered = [0, 43, 0, 3, 2, 3, 4];
    assert!(hello.windows(offered.len()).any(|part| part == offered));
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_cut_off() {
    let limits = Limits { first_byte_timeout: Duration::from_millis(50), ..Limits::default() };
    let world = World::with_limits(Home::new(), own_config, limits).await;
    assert_cut_off(TcpStream::connect(world.address).await.unwrap()).await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off() {
    let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let world = World::with_limits(Home::new(), own_config, limits).await;
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    // The first byte of a record that never ends.
    slow.write_all(&[22]).await.unwrap();
    assert_cut_off(slow).await;
}

#[tokio::test]
async fn silent_peers_do_not_keep_others_out() {
    let limits = Limits { handshakes: 1, first_byte_timeout: Duration::from_secs(3600), ..Limits::default() };
    let world = World::with_limits(Home::new(), own_config, limits).await;
    let mut silent = Vec::new();
    // Eight that are silent for each that shakes hands.
    for _ in 0..16 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    world.connect(world.trust(), None).await.unwrap();
    // The oldest made room.
    assert_cut_off(silent.remove(0)).await;
}

#[tokio::test]
async fn peers_without_a_certificate_give_way_to_newer_ones_and_devices_do_not() {
    let limits = Limits { anonymous: 1, connections: 1, ..Limits::default() };
    let world = World::with_limits(Home::new(), own_config, limits).await;
    let as_device = |id: u8| {
        let device = world.home.device_called([id; 16], LONG);
        let config = client_config(world.trust(), Some(device)).unwrap();
        let uri = world.uri();
        async move { connect(config, &uri).await }
    };
    let device = as_device(1).await.unwrap();
    let config = client_config(world.trust(), None).unwrap();
    let mut connector = Connector::new(Arc::clone(&config), Duration::from_secs(10));
    let mut first = connector.call(world.uri().parse().unwrap()).await.unwrap().into_inner();
    let second = connect(config, &world.uri()).await.unwrap();
    who_am_i(second).await.unwrap();
    // The server's settings may lie in it, and then it has ended.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), first.read_to_end(&mut rest)).await;
    assert!(ended.is_ok());
    // There is no place for another device, and the one that is there stays.
    match as_device(2).await {
        Err(_) => {}
        Ok(channel) => assert!(who_am_i(channel).await.is_err()),
    }
    who_am_i(device).await.unwrap();
}

#[tokio::test]
async fn an_exchanged_configuration_counts_from_the_next_connection_on() {
    let world = World::start().await;
    let next = Home::new();
    let trust_next = Trust::Authority(next.authority.certificate().clone());
    let config = client_config(world.trust(), None).unwrap();
    let open = connect(config, &world.uri()).await.unwrap();
    assert!(world.connect(trust_next.clone(), None).await.is_err());

    world.config.send_replace(
        server_config(&next.server(), next.authority.certificate(), Audience::Devices).unwrap(),
    );
    world.connect(trust_next, None).await.unwrap();
    assert!(world.connect(world.trust(), None).await.is_err());
    who_am_i(open).await.unwrap();
}

#[tokio::test]
async fn a_token_brings_a_device_to_its_coordinator() {
    let world = World::start().await;
    let store = Store::open(&world.home.folder.path().join("store")).unwrap();
    let address = format!("localhost:{}", world.address.port());
    let new = tokens::NewToken {
        label: "phone",
        address: &address,
        pin: pin_of(world.home.authority.certificate()),
        authority: IdentityPublic([8; 32]),
        lifetime_secs: 100,
    };
    let text = tokens::issue(&store, new, 0, &SystemRandom::new()).await.unwrap();

    let token: BootstrapToken = text.reveal().parse().unwrap();
    assert_eq!(token.address(), address);
    let config = client_config(Trust::Pin(token.pin()), None).unwrap();
    let uri = format!("https://{}", token.address());
    let channel = connect(config, &uri).await.unwrap();
    who_am_i(channel).await.unwrap();
    let by = (IdentityPublic([9; 32]), 1);
    let redeemed = tokens::redeem(&store, token.key().public(), by, Batch::new());
    assert_eq!(redeemed.unwrap().label, "phone");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_that_the_certificate_does_not_hold_is_said_with_what_the_operator_sets() {
    // Only there does the whole of 127.0.0.0/8 lead to this machine.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let world = World::on(listener, Home::new(), own_config, Limits::default());
    let (address, pin) = (world.address.to_string(), pin_of(world.home.authority.certificate()));
    let none = ::client::Proxy::none;
    let enrolling = pinned_authority(&address, pin, none()).await.unwrap_err().to_string();
    let mut transport = Transport::new(&address, world.trust(), None, none()).unwrap();
    let taking_part = transport.send(&Asked::CheckIn(CheckIn::default())).await.unwrap_err().to_string();
    for why in [enrolling, taking_part] {
        assert!(why.contains("does not hold the name") && why.contains("`public_names`"), "{why}");
    }
}
