//! Certificates that a service makes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::ids::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde_json::{Value, json};

use super::World;

/// What the service does with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    Silent,
    Garbage,
    AnothersName,
    AnothersKey,
    Long,
    Fails,
    TooMuch,
}

const MOODS: [Mood; 8] = [
    Mood::Good,
    Mood::Silent,
    Mood::Garbage,
    Mood::AnothersName,
    Mood::AnothersKey,
    Mood::Long,
    Mood::Fails,
    Mood::TooMuch,
];

/// A certificate authority of a house: a root that is trusted, and one below it that signs.
struct House {
    root_pem: String,
    between: Issuer<'static, KeyPair>,
    between_pem: String,
}

impl House {
    fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (root_key, root_params) = (key(), params("root of the house"));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let (between_key, between_params) = (key(), params("signer of the house"));
        let between = between_params.signed_by(&between_key, &root_issuer).unwrap();
        Self {
            root_pem: root.pem(),
            between_pem: between.pem(),
            between: Issuer::new(between_params, between_key),
        }
    }

    /// Answers a question in a mood.
    fn answer(&self, question: &Value, mood: Mood) -> String {
        let text = |key: &str| question[key].as_str().unwrap().to_owned();
        // Times of a certificate, in seconds since 1970.
        let time = |key: &str| question[key].as_i64().unwrap();
        let mut request = CertificateSigningRequestParams::from_pem(&text("request_pem")).unwrap();
        let mut params = CertificateParams::default();
        let at = |secs: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs.unsigned_abs());
        let more = if mood == Mood::Long { 400 * 24 * 3600 } else { 0 };
        (params.not_before, params.not_after) =
            (at(time("not_before_unix_secs")), at(time("not_after_unix_secs") + more));
        let name = match mood {
            Mood::AnothersName => "nightshift:device:ffffffffffffffffffffffffffffffff".to_owned(),
            Mood::Good
            | Mood::Silent
            | Mood::Garbage
            | Mood::AnothersKey
            | Mood::Long
            | Mood::Fails
            | Mood::TooMuch => text("name"),
        };
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = if mood == Mood::AnothersKey {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            params.signed_by(&key, &self.between).unwrap()
        } else {
            request.params = params;
            request.signed_by(&self.between).unwrap()
        };
        json!({ "chain_pem": certificate.pem() + &self.between_pem }).to_string()
    }
}

/// A service for a house, in the mood that is said. Gives its port.
fn serve(house: House, mood: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mood = MOODS[mood.load(Ordering::SeqCst)];
            if mood == Mood::Silent {
                kept.push(stream);
                continue;
            }
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            let question: Value = loop {
                let read = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&bytes);
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                if let Ok(question) = serde_json::from_str(body) {
                    break question;
                }
                assert!(read > 0, "{text}");
            };
            let (status, body) = match mood {
                Mood::Garbage => ("200 OK", "certificate".to_owned()),
                Mood::Fails => ("503 No", String::new()),
                Mood::TooMuch => ("200 OK", " ".repeat(1 << 20)),
                Mood::Good | Mood::Silent | Mood::AnothersName | Mood::AnothersKey | Mood::Long => {
                    ("200 OK", house.answer(&question, mood))
                }
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            // Whoever asked for less has gone.
            drop(stream.write_all((head + &body).as_bytes()));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_another_authority_connects_and_one_that_fails_lets_nobody_in_and_uses_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new();
    let root = folder.path().join("house.pem");
    std::fs::write(&root, &house.root_pem).unwrap();
    let mood = Arc::new(AtomicUsize::new(0));
    let port = serve(house, Arc::clone(&mood));
    let lines = format!(
        "[issuer]\nkind = 'webhook'\nurl = 'http://127.0.0.1:{port}/sign'\nauthority = '{}'\ntimeout_secs = 1",
        root.display()
    );
    let mut world = World::new(folder, &lines).await;

    // The certificate with the one between is shown in the handshake of a renewal, and again after it.
    let token = world.token().await;
    let anna = world.enroll("anna", &token, None).await.unwrap();
    world.renew("anna").await.unwrap();
    assert_eq!(world.show(anna).await.attested, None);
    let again = world.renew("anna").await.unwrap_err();
    assert!(again.contains("within the last minute"), "it got through the handshake: {again}");

    let token = world.token().await;
    for (number, bad) in MOODS.iter().enumerate().skip(1) {
        mood.store(number, Ordering::SeqCst);
        let began = Instant::now();
        let refused = world.enroll("bela", &token, None).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(30), "{bad:?}");
        assert!(refused.contains("no certificate was made for this device"), "{bad:?}: {refused}");
        assert!(refused.contains("nothing is lost"), "{bad:?}: {refused}");
        assert_eq!((world.open_tokens().await, world.devices().await), (1, 1), "{bad:?}");
    }
    // With the same token, as soon as the service is well.
    mood.store(0, Ordering::SeqCst);
    world.enroll("bela", &token, None).await.unwrap();
    assert_eq!((world.open_tokens().await, world.devices().await), (0, 2));
    world.renew("bela").await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_slow_service_keeps_no_enrolled_device_and_no_operator_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new();
    let root = folder.path().join("house.pem");
    std::fs::write(&root, &house.root_pem).unwrap();
    let silent = MOODS.iter().position(|mood| *mood == Mood::Silent).unwrap();
    let port = serve(house, Arc::new(AtomicUsize::new(silent)));
    let lines = format!(
        "[attestation]\nkind = 'webhook'\nurl = 'http://127.0.0.1:{port}/attest'\ntimeout_secs = 5\n\
         [issuer]\nkind = 'own'\n"
    );
    let mut world = World::new(folder, &lines).await;
    let tokens = [world.token().await, world.token().await];
    let began = Instant::now();
    let waiting = async {
        let (one, other) =
            tokio::join!(world.enroll("one", &tokens[0], None), world.enroll("two", &tokens[1], None));
        (one, other, began.elapsed())
    };
    let home = world.home("coordinator");
    let asks = async {
        let identity = super::Identity::load(&home, super::OPERATOR).unwrap();
        let address = std::fs::read_to_string(home.join("admin.address")).unwrap();
        let mut admin = super::AdminClient::connect(address.trim(), &identity).await.unwrap();
        for _ in 0..5 {
            admin.call(super::AdminRequest::ListTasks).await.unwrap();
        }
        began.elapsed()
    };
    let ((one, other, waited), answered) = tokio::join!(waiting, asks);
    for refused in [one.unwrap_err(), other.unwrap_err()] {
        assert!(refused.contains("did not answer in time; nothing is lost"), "{refused}");
    }
    assert!(waited >= Duration::from_secs(5) && answered < waited, "{waited:?} {answered:?}");
    assert_eq!((world.open_tokens().await, world.devices().await), (2, 0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_identity_keys_turns_a_device_away_with_the_line_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    std::fs::write(&list, "# nobody yet\n").unwrap();
    let lines = format!("[attestation]\nkind = 'allow-list'\nallow_list = '{}'", list.display());
    let mut world = World::new(folder, &lines).await;
    let token = world.token().await;
    let refused = world.enroll("anna", &token, None).await.unwrap_err();
    let key = refused.split("identity key ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let _: Digest = key.parse().unwrap();
    assert_eq!(world.open_tokens().await, 1);
    std::fs::write(&list, format!("identity {key}\n")).unwrap();
    let anna = world.enroll("anna", &token, None).await.unwrap();
    let attested = world.show(anna).await.attested.unwrap();
    assert_eq!((attested.kind.as_str(), attested.is_current), ("allow-list", true));
    // What was asked at the enrollment is not asked again at a renewal, and stays known.
    std::fs::write(&list, "# nobody any more\n").unwrap();
    world.renew("anna").await.unwrap();
    assert_eq!(world.show(anna).await.attested, Some(attested));
    world.end().await;
}
