//! Certificates that somebody else makes: what is taken, and what of a service or a program that fails.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nightshift_hooks::config::{IssuerKeys, IssuerKind};
use nightshift_hooks::{CertIssuer, HookError, Outside, Signed, ToSign};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::common::{Authority, DAY, NAME, NOW, answer, at, file, key, nowhere, secret, service, silent};

fn to_sign(key: &KeyPair) -> ToSign {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    ToSign {
        device: [7; 16],
        name: NAME.to_owned(),
        request_der: request.der().to_vec(),
        request_pem: request.pem().unwrap(),
        not_before_unix_secs: NOW - DAY,
        not_after_unix_secs: NOW + 30 * DAY,
        now_unix_secs: NOW,
    }
}

fn outside(keys: &IssuerKeys) -> Box<Outside> {
    keys.check().map_err(|error| format!("{error:?}")).unwrap();
    let CertIssuer::Outside(outside) = CertIssuer::open(keys).unwrap() else { panic!("it is another's") };
    outside
}

fn by_webhook(folder: &Path, authority: &Authority, url: String) -> IssuerKeys {
    let authority = file(folder, "authority.pem", &authority.pem);
    IssuerKeys { kind: IssuerKind::Webhook, url, authority, timeout_secs: 1, ..IssuerKeys::default() }
}

fn by_command(folder: &Path, authority: &Authority, script: &str) -> IssuerKeys {
    let authority = file(folder, "authority.pem", &authority.pem);
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    IssuerKeys { kind: IssuerKind::Command, command, authority, timeout_secs: 1, ..IssuerKeys::default() }
}

/// What comes of it where a service answers with this chain.
async fn taken(authority: &Authority, asked: &ToSign, chain: String) -> Result<Signed, HookError> {
    let folder = tempfile::tempdir().unwrap();
    let body = serde_json::json!({ "chain_pem": chain }).to_string();
    let (address, _asked) = service(move |_| answer("200 OK", &body), Duration::ZERO);
    outside(&by_webhook(folder.path(), authority, format!("http://{address}/sign"))).sign(asked.clone()).await
}

#[tokio::test]
async fn a_chain_with_an_intermediate_is_taken_and_says_until_when() {
    let (root, key) = (Authority::new("root"), key());
    let between = root.below("between");
    let asked = to_sign(&key);
    let chain = format!("Subject: whoever\n{}{}", between.sign(&key, |_| {}), between.pem);
    let signed = taken(&root, &asked, chain).await.unwrap();
    assert_eq!(signed.not_after_unix_secs, NOW + 30 * DAY);
    assert_eq!(signed.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!signed.chain_pem.contains("whoever"), "what is not a certificate is not passed on");
    // Without what is between it leads nowhere.
    let cut = taken(&root, &asked, between.sign(&key, |_| {})).await.unwrap_err();
    assert!(cut.to_string().contains("does not lead to an authority"), "{cut}");
    // One that ends a little later than was asked, within the slack, and one that begins a little earlier.
    let late = root.sign(&key, |params| params.not_after = at(NOW + 30 * DAY + 300));
    assert_eq!(taken(&root, &asked, late).await.unwrap().not_after_unix_secs, NOW + 30 * DAY + 300);
    let early = root.sign(&key, |params| params.not_before = at(NOW - DAY - 300));
    taken(&root, &asked, early).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_this_devices_is_refused_in_words() {
    let (root, key) = (Authority::new("root"), key());
    let asked = to_sign(&key);
    let other = super::common::key();
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let strange = Authority::new("root");
    for (chain, words) in [
        (root.sign(&other, |_| {}), "of another key"),
        (root.sign(&key, |params| params.subject_alt_names = vec![uri("nightshift:device:ff")]), "URI names"),
        (
            root.sign(&key, |params| params.subject_alt_names.push(uri("nightshift:admin:anna"))),
            "nightshift:admin:anna",
        ),
        (root.sign(&key, |params| params.subject_alt_names.clear()), "URI names []"),
        (root.sign(&key, |params| params.not_after = at(NOW + 31 * DAY)), "give or take 300 seconds"),
        (root.sign(&key, |params| params.not_before = at(NOW - 2 * DAY)), "give or take 300 seconds"),
        (root.sign(&key, |params| params.not_before = at(NOW + 60)), "give or take 300 seconds"),
        (root.sign(&key, |params| params.not_after = at(NOW + 14 * DAY)), "less than half"),
        (root.sign(&key, |params| params.extended_key_usages.clear()), "clientAuth"),
        (
            root.sign(&key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "clientAuth",
        ),
        (
            root.sign(&key, |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            "an authority's",
        ),
        (strange.sign(&key, |_| {}), "does not lead to an authority"),
        (String::new(), "it has 0 certificates"),
        ("certificate".to_owned(), "it has 0 certificates"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "not in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "cannot be read"),
        (root.sign(&key, |_| {}) + &key.serialize_pem(), "something else than certificates"),
        (root.sign(&key, |_| {}).repeat(5), "it has 5 certificates"),
    ] {
        let refused = taken(&root, &asked, chain).await.unwrap_err();
        assert_eq!(refused.word(), "garbage", "{words}");
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    // Both usages are no fault, as authorities give them, and another name that is no URI.
    let both = root.sign(&key, |params| {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::DnsName("attic.example".try_into().unwrap()));
    });
    taken(&root, &asked, both).await.unwrap();
}

#[tokio::test]
async fn a_service_is_asked_with_the_request_and_the_token_that_its_file_holds_now() {
    let folder = tempfile::tempdir().unwrap();
    let (root, key) = (Authority::new("root"), key());
    let asked = to_sign(&key);
    let body = serde_json::json!({ "chain_pem": root.sign(&key, |_| {}) }).to_string();
    let (address, questions) = service(move |_| answer("200 OK", &body), Duration::ZERO);
    let bearer_file = secret(folder.path(), "bearer", "s3cret\n");
    let keys = IssuerKeys {
        bearer_file,
        ..by_webhook(folder.path(), &root, format!("http://{address}/v1/sign?x=1"))
    };
    let outside = outside(&keys);
    outside.sign(asked.clone()).await.unwrap();
    let question = questions.recv().unwrap();
    let (head, body) = question.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/sign?x=1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("authorization: bearer s3cret"), "{head}");
    assert!(head.contains(&format!("host: {address}")), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["hook"], "sign");
    assert_eq!(
        (body["name"].as_str(), body["device"].as_str()),
        (Some(NAME), Some("07".repeat(16).as_str()))
    );
    assert_eq!(body["request_pem"].as_str(), Some(asked.request_pem.as_str()));
    assert_eq!(body["not_after_unix_secs"], NOW + 30 * DAY);
    secret(folder.path(), "bearer", "next");
    outside.sign(asked).await.unwrap();
    assert!(questions.recv().unwrap().to_ascii_lowercase().contains("authorization: bearer next"));
    assert!(!format!("{outside:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_service_that_fails_gives_nothing_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let (root, key) = (Authority::new("root"), key());
    let asked = to_sign(&key);
    let large = "x".repeat(100_000);
    for (bytes, word) in [
        (answer("500 Oh", "{}"), "failed"),
        (answer("302 Found", ""), "failed"),
        (answer("200 OK", "no json"), "garbage"),
        (answer("200 OK", "{}"), "garbage"),
        (answer("200 OK", r#"{"chain_pem":"","more":1}"#), "garbage"),
        (answer("200 OK", &large), "too_much"),
        (
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n186a0\r\n{large}\r\n0\r\n\r\n")
                .into_bytes(),
            "too_much",
        ),
        (b"SSH-2.0-x\r\n".to_vec(), "unreachable"),
        (Vec::new(), "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(), "failed"),
    ] {
        let shown = String::from_utf8_lossy(&bytes).chars().take(60).collect::<String>();
        let (address, _questions) = service(move |_| bytes.clone(), Duration::ZERO);
        let outside = outside(&by_webhook(folder.path(), &root, format!("http://{address}/")));
        let error = outside.sign(asked.clone()).await.unwrap_err();
        assert_eq!(error.word(), word, "{shown}: {error}");
    }
    let outside = |address| outside(&by_webhook(folder.path(), &root, format!("http://{address}/")));
    assert_eq!(outside(nowhere()).sign(asked.clone()).await.unwrap_err().word(), "unreachable");
    let (address, _kept) = silent();
    let began = Instant::now();
    assert_eq!(outside(address).sign(asked).await.unwrap_err().word(), "slow");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_service_by_tls_is_the_one_that_the_configured_authority_vouches_for() {
    let folder = tempfile::tempdir().unwrap();
    let (root, key, web) = (Authority::new("root"), key(), Authority::new("web"));
    let server_key = super::common::key();
    let certificate = web.sign(&server_key, |params| {
        // By the clock of this machine, since that is who connects.
        (params.not_before, params.not_after) = (at(0), at(4_000_000_000));
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let private = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let body = answer("200 OK", &serde_json::json!({ "chain_pem": root.sign(&key, |_| {}) }).to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            if !super::common::read_request(&mut stream).is_empty() {
                drop(std::io::Write::write_all(&mut stream, &body));
                stream.conn.send_close_notify();
                drop(std::io::Write::flush(&mut stream));
            }
        }
    });
    let url = |host: &str| format!("https://{host}:{port}/sign");
    let keys = |ca: &Authority, name: &str, url: String| IssuerKeys {
        ca: file(folder.path(), name, &ca.pem),
        timeout_secs: 5,
        ..by_webhook(folder.path(), &root, url)
    };
    let asked = to_sign(&key);
    outside(&keys(&web, "web.pem", url("localhost"))).sign(asked.clone()).await.unwrap();
    for keys in [keys(&root, "other.pem", url("localhost")), keys(&web, "web.pem", url("127.0.0.1"))] {
        let error = outside(&keys).sign(asked.clone()).await.unwrap_err();
        assert_eq!(error.word(), "unreachable", "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_is_given_the_request_and_answers_with_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (root, key) = (Authority::new("root"), key());
    let asked = to_sign(&key);
    let chain = file(folder.path(), "chain.pem", &root.sign(&key, |_| {}));
    let told = folder.path().join("told");
    let script = format!(
        "/bin/cat > {0}; echo $NIGHTSHIFT_DEVICE $NIGHTSHIFT_NAME $NIGHTSHIFT_NOT_BEFORE $NIGHTSHIFT_NOT_AFTER $NIGHTSHIFT_SECS >> {0}; /bin/cat {1}",
        told.display(),
        chain.display()
    );
    let outside = outside(&IssuerKeys { timeout_secs: 6, ..by_command(folder.path(), &root, &script) });
    outside.sign(asked.clone()).await.unwrap();
    let told = std::fs::read_to_string(told).unwrap();
    let words = format!("{} {NAME} {} {} {}\n", "07".repeat(16), NOW - DAY, NOW + 30 * DAY, 30 * DAY);
    assert_eq!(told, asked.request_pem + &words);
}

#[cfg(unix)]
#[tokio::test]
async fn one_that_is_slow_keeps_nobody_waiting_who_asks_for_another_device_and_is_asked_once_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let (root, key) = (Authority::new("root"), key());
    let asked = to_sign(&key);
    let chain = file(folder.path(), "chain.pem", &root.sign(&key, |_| {}));
    // Slow for one device only.
    let slow = "ff".repeat(16);
    let script =
        format!("if [ $NIGHTSHIFT_DEVICE = {slow} ]; then /bin/sleep 600; fi; /bin/cat {}", chain.display());
    let outside =
        Arc::new(*outside(&IssuerKeys { timeout_secs: 3, ..by_command(folder.path(), &root, &script) }));
    let waits = {
        let (outside, asked) = (Arc::clone(&outside), ToSign { device: [0xff; 16], ..asked.clone() });
        async move { outside.sign(asked).await }
    };
    let waits = tokio::spawn(waits);
    // Until it is inside, the same may still be asked once more.
    let again = loop {
        let again = outside.sign(ToSign { device: [0xff; 16], now_unix_secs: NOW, ..asked.clone() });
        match tokio::time::timeout(Duration::from_millis(50), again).await {
            Ok(answered) => break answered,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(again.unwrap_err(), HookError::Busy);
    outside.sign(asked).await.unwrap();
    assert!(waits.await.unwrap().is_err());
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::new("root");
    let good = by_webhook(folder.path(), &root, "http://127.0.0.1:1/".to_owned());
    CertIssuer::open(&good).unwrap();
    let exposed = file(folder.path(), "exposed", "token");
    let two_words = secret(folder.path(), "words", "two words");
    for (keys, words) in [
        (
            IssuerKeys { authority: folder.path().join("absent.pem"), ..good.clone() },
            "absent.pem cannot be used",
        ),
        (IssuerKeys { authority: exposed.clone(), ..good.clone() }, "it holds no certificate in PEM"),
        (IssuerKeys { bearer_file: exposed, ..good.clone() }, "exposed cannot be used"),
        (IssuerKeys { bearer_file: two_words, ..good.clone() }, "which a bearer token is"),
        (
            IssuerKeys { kind: IssuerKind::Command, command: vec!["/nonexistent/sign".to_owned()], ..good },
            "/nonexistent/sign cannot be used",
        ),
    ] {
        let error = CertIssuer::open(&keys).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
