//! An enrollment authority apart from its coordinator, as processes over TLS on loopback: who is enrolled, and what a
//! coordinator that lies cannot do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes are waited for")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};

use aggregation::IdentityKey;
use authority::asking::{AskError, Link};
use authority::bundle::Bundle;
use client::store::DeviceStore;
use proto::authority::{AuthorityReply, AuthorityRequest, Issued};
use proto::convert::{Enrollment, Renewal};
use proto::ids::DeviceId;
use proto::message::Rejection;
use proto::token::BootstrapToken;
use stage::{Running, output, short_lines, start, text};

#[path = "common/stage.rs"]
#[expect(dead_code, reason = "here an authority makes the tokens")]
mod stage;

#[path = "authority/renewal.rs"]
mod renewal;
#[path = "authority/witnesses.rs"]
mod witnesses;
#[path = "authority/world.rs"]
mod world;

use world::{World, device, said};

#[test]
fn three_devices_of_an_authority_apart_make_a_version_and_rounds_go_on_without_it() {
    let world = World::new();
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let home = world.stage.path("home");
    assert!(!home.join("enrolment.seed").exists() && home.join("publishing.seed").exists());
    let refused = output(world.stage.nightshift().args(["device", "token", "--label", "anna"]));
    assert!(said(&refused).contains("nightshift-authority token --label"));

    let devices = ["anna", "bela", "cem"];
    let mut names = Vec::new();
    for (i, name) in devices.iter().enumerate() {
        names.push(device(&text(&world.enroll(name, &world.token(name)))));
        let lines: Vec<String> =
            short_lines(i).iter().map(|line| serde_json::json!({ "text": line }).to_string()).collect();
        fs::write(world.stage.path(&format!("{name}.jsonl")), lines.join("\n")).unwrap();
    }
    let known = |devices: Vec<serde_json::Value>| -> Vec<String> {
        let mut ids: Vec<String> =
            devices.iter().map(|device| device["device"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    names.sort();
    assert_eq!((known(world.devices()), known(world.coordinator_devices())), (names.clone(), names.clone()));

    // The authority goes away. What it stated holds.
    drop(authority);
    let base = world.stage.path("base");
    world.stage.operator(&[
        "task",
        "create",
        "--name",
        "owl",
        "--base",
        base.to_str().unwrap(),
        "--cohort",
        "3",
        "--report-goal",
        "3",
        "--versions",
        "1",
        "--privacy",
        "off",
        "--clip",
        "4",
    ]);
    let mut agents: Vec<Running> = devices.iter().map(|name| world.stage.run(name, &["--once"])).collect();
    world.stage.operator(&["task", "watch", "owl"]);
    for agent in &mut agents {
        assert!(agent.0.wait().unwrap().success());
    }
    assert_eq!(world.stage.task()["versions"][0]["survivors"].as_u64(), Some(3));

    // The version is signed by the coordinator's own key, which is not the authority's, and a device takes it by that.
    let out = world.stage.path("pulled");
    world.stage.operator(&["model", "pull", "--task", "owl", "--as", "peft", "--out", out.to_str().unwrap()]);
    let release = out.join(formats::MANIFEST_FILE);
    let exported = world.stage.path("exported");
    let mut export = world.stage.agent("anna");
    export.args(["export", "--release", release.to_str().unwrap(), "--out", exported.to_str().unwrap()]);
    text(&output(&mut export));
    let manifest =
        formats::Manifest::parse(&fs::read(exported.join(formats::MANIFEST_FILE)).unwrap()).unwrap();
    let formats::Origin::Release(signed) = manifest.origin else { panic!("it is signed") };
    let vouches = Bundle::load(&world.stage.path("authority-file.toml")).unwrap().enrollment_key;
    assert_ne!(signed.key, vouches);
}

#[test]
fn without_the_authority_nobody_enrolls_and_the_token_stays_good() {
    let world = World::new();
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let token = world.token("anna");
    drop(authority);
    let why = said(&world.enroll("anna", &token));
    assert!(
        why.contains("the enrollment authority does not answer") && why.contains("nothing is lost"),
        "{why}"
    );
    assert!(world.coordinator_devices().is_empty());
    let _authority = world.start_authority("authority");
    assert!(world.devices().is_empty());
    let enrolled = text(&world.enroll("anna", &token));
    assert_eq!(world.devices()[0]["device"].as_str().unwrap(), device(&enrolled));
}

/// The keys and the request of a device, as the coordinator sees them.
fn seen(token: &str, seed: u8) -> Enrollment {
    let token: BootstrapToken = token.parse().unwrap();
    Enrollment::new(&token.key(), "a request".into(), &IdentityKey::from_seed(&[seed; 32]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_lies_redirects_no_token_and_may_not_make_one() {
    let world = World::new();
    let _authority = world.start_authority("authority");
    let file = world.give_file("authority");
    // All that a coordinator has: its file.
    let bundle = Bundle::load(&file).unwrap();
    let link = Link::new(&bundle.address, &bundle.identity).unwrap();
    let introduction =
        proto::authority::Introduction { address: "localhost:1".into(), pin: [7; 32], revocations_from: 0 };
    link.ask(AuthorityRequest::Introduce(introduction.clone())).await.unwrap();
    let token = world.token("anna");
    let proof = seen(&token, 1);

    // It puts its own identity into what it saw.
    let liar = IdentityKey::from_seed(&[9; 32]);
    let own = Enrollment::new(&liar, proof.certificate_request_pem.clone(), &liar);
    for forged in [
        Enrollment { identity: liar.public(), ..proof.clone() },
        Enrollment { token: proof.token, token_proof: proof.token_proof, ..own.clone() },
        own,
    ] {
        let refused = link.ask(AuthorityRequest::Enroll(Box::new(forged))).await.unwrap_err();
        let AskError::Rejected(Rejection::Unacceptable { .. }) = refused else { panic!("{refused}") };
    }
    // What only operators may.
    for asked in [
        AuthorityRequest::IssueToken { label: "mine".into(), lifetime_secs: 60, coordinator: String::new() },
        AuthorityRequest::ListTokens,
        AuthorityRequest::ListIssued { after: None },
        AuthorityRequest::RevokeDevice(DeviceId([1; 16])),
        AuthorityRequest::AddCoordinator { name: "two".into(), certificate_request_pem: String::new() },
    ] {
        let refused = link.ask(asked).await.unwrap_err().to_string();
        assert!(refused.contains("for operators of the authority"), "{refused}");
    }
    // The token was not used up by any of it; a repeated request is answered as before.
    let AuthorityReply::Issued(first) =
        link.ask(AuthorityRequest::Enroll(Box::new(proof.clone()))).await.unwrap()
    else {
        panic!("it is enrolled")
    };
    let again = link.ask(AuthorityRequest::Enroll(Box::new(proof))).await.unwrap();
    assert_eq!(again, AuthorityReply::Issued(first.clone()));
    let Issued { credential, .. } = first;
    credential.verify(&bundle.enrollment_key, 0).unwrap();
    // Nor is a renewal one for whoever has not the device's key.
    let renewal = Renewal::new(DeviceId(credential.device), "a request".into(), &liar);
    let refused = link.ask(AuthorityRequest::Renew(renewal)).await.unwrap_err().to_string();
    assert!(refused.contains("no such device"), "{refused}");
    assert_eq!(world.devices().len(), 1);

    // The next file makes this one worthless.
    let again = || AuthorityRequest::Introduce(introduction.clone());
    assert!(link.ask(again()).await.is_ok());
    world.give_file("authority");
    assert_eq!(link.ask(again()).await, Err(AskError::Rejected(Rejection::NotEnrolled)));
}

/// A coordinator that has a key of its own, and hands out tokens that name the authority.
#[test]
fn a_credential_by_the_coordinator_s_own_key_is_refused_by_devices() {
    let world = World::new();
    let _coordinator = world.stage.coordinator();
    let own = world.stage.operator(&["device", "token", "--label", "anna"]);
    let own: BootstrapToken = own.parse().unwrap();
    let _authority = world.start_authority("authority");
    let file = world.stage.path("file.toml");
    let out = file.to_str().unwrap();
    text(&output(&mut world.authority_command("authority", &["coordinator-file", "--out", out])));
    let vouches = Bundle::load(&file).unwrap().enrollment_key;
    assert_ne!(vouches, own.authority());
    // The same token, as the authority would have made it.
    let text_of = own.to_text();
    let bytes =
        base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, &text_of.reveal()[5..]).unwrap();
    let secret: [u8; 32] = bytes[32..64].try_into().unwrap();
    let theirs = BootstrapToken::new(own.address(), own.pin(), vouches, zeroize::Zeroizing::new(secret));
    let why = said(&world.enroll("anna", theirs.to_text().reveal()));
    assert!(why.contains("another enrollment authority") && why.contains(&hex(&vouches.0)), "{why}");
    let store = DeviceStore::open(&world.stage.path("anna")).unwrap();
    assert!(client::enrollment::enrolled_as(&store).unwrap().is_none(), "nothing of it is kept");
}

fn hex(bytes: &[u8]) -> String {
    proto::ids::Digest(bytes.try_into().unwrap()).to_string()
}

#[test]
fn a_revocation_on_either_side_is_known_on_the_other() {
    let world = World::new();
    let _authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let anna = device(&text(&world.enroll("anna", &world.token("anna"))));
    let bela = device(&text(&world.enroll("bela", &world.token("bela"))));
    text(&output(&mut world.authority_command("authority", &["device", "revoke", &anna])));
    world.stage.operator(&["device", "revoke", &bela]);
    let revoked = |devices: Vec<serde_json::Value>, id: &str| {
        let one = devices.into_iter().find(|device| device["device"] == id).unwrap();
        one["revoked"].as_bool() == Some(true) || one["revoked_unix_secs"].is_u64()
    };
    world.until(|| revoked(world.coordinator_devices(), &anna) && revoked(world.devices(), &bela));
    // Neither comes again, with a good token and its own keys.
    for name in ["anna", "bela"] {
        let token = world.token(name);
        let again = output(world.stage.agent(name).args(["enroll", "--again", "--token", &token]));
        assert!(said(&again).contains("was revoked"));
    }
}

#[test]
fn a_file_that_is_none_or_of_another_authority_is_refused_in_words() {
    let world = World::new();
    let authority = world.start_authority("authority");
    let file = world.give_file("authority");
    let whole = fs::read_to_string(&file).unwrap();
    // Cut.
    proto::files::write(&file, &whole.as_bytes()[..whole.len() / 2], proto::files::Audience::Owner).unwrap();
    assert!(world.refused_to_start().contains("coordinator-file"));
    // Not there.
    fs::remove_file(&file).unwrap();
    assert!(world.refused_to_start().contains("authority-file.toml"));
    proto::files::write(&file, whole.as_bytes(), proto::files::Audience::Owner).unwrap();
    // Beside a key of its own.
    let seed = world.stage.path("home").join("enrolment.seed");
    proto::files::write(&seed, &[1; 32], proto::files::Audience::Owner).unwrap();
    let both = world.refused_to_start();
    assert!(both.contains("two cannot say which devices exist"), "{both}");
    fs::remove_file(&seed).unwrap();
    // Of this authority: it starts, and is bound to it.
    drop(world.stage.coordinator());
    world.configure_authority("other", "127.0.0.1:0");
    text(&output(&mut world.authority_command("other", &["init"])));
    let other_authority = world.start_authority("other");
    let other = world.give_file("other");
    let refused = world.refused_to_start();
    assert!(refused.contains("use a file of that authority"), "{refused}");
    // Without any file it would begin to enroll by itself.
    let config = world.stage.path("home").join("coordinator.toml");
    let text_of = fs::read_to_string(&config).unwrap();
    fs::write(&config, text_of.split("[authority]").next().unwrap()).unwrap();
    assert!(world.refused_to_start().contains("name its file in the configuration"));

    // A file that leads to another authority than the one that it is of: nobody enrolls there.
    let (ours, theirs) = (Bundle::load(&file).unwrap(), Bundle::load(&other).unwrap());
    let token_file = Bundle { address: theirs.address.clone(), ..ours };
    token_file.save(&file).unwrap();
    world.configure_coordinator(&file);
    let _coordinator = world.stage.coordinator();
    let log = world.stage.path("coordinator.log");
    world.until(|| fs::read_to_string(&log).unwrap().contains("another authority than that of the file"));
    drop((authority, other_authority));
}

#[cfg(unix)]
#[test]
fn a_coordinator_that_dies_between_the_authority_s_commit_and_its_own_loses_no_device() {
    let world = World::new();
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let relay = Relay::before(&world);
    let coordinator = world.stage.coordinator();
    // Once the coordinator has asked by way of the relay.
    let token = world.token("anna");
    relay.held.store(true, Ordering::SeqCst);
    let mut enrolling = world.stage.agent("anna");
    let enrolling = enrolling.args(["enroll", "--token", &token]);
    let mut enrolling = start(enrolling.stdout(Stdio::null()).stderr(Stdio::null()));
    world.until(|| !world.devices().is_empty());
    // kill -9, while the answer is held back.
    drop(coordinator);
    assert!(!enrolling.wait().unwrap().success());
    drop(relay);
    drop(authority);
    let _authority = world.start_authority("authority");
    let _coordinator = world.stage.coordinator();
    assert!(world.coordinator_devices().is_empty());
    let enrolled = device(&text(&world.enroll("anna", &token)));
    let known = world.devices();
    assert_eq!((known.len(), known[0]["device"].as_str()), (1, Some(enrolled.as_str())));
    assert_eq!(world.coordinator_devices()[0]["device"], enrolled);
    // Nobody else enrolls with that token.
    assert!(said(&world.enroll("bela", &token)).contains("used before"));
}

/// The way from the coordinator to its authority. It hands on what is asked, and answers until they are held back.
#[cfg(unix)]
struct Relay {
    file: PathBuf,
    whole: String,
    held: Arc<AtomicBool>,
}

#[cfg(unix)]
impl Relay {
    fn before(world: &World) -> Self {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};

        let file = world.stage.path("authority-file.toml");
        let whole = fs::read_to_string(&file).unwrap();
        let bundle = Bundle::load(&file).unwrap();
        let to = bundle.address.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        Bundle { address: here.to_string(), ..bundle }.save(&file).unwrap();
        let relay = Self { file, whole, held: Arc::default() };
        let held = Arc::clone(&relay.held);
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for asking in listener.incoming().map_while(Result::ok) {
                let answering = TcpStream::connect(&to).unwrap();
                let (mut from, mut into) = (asking.try_clone().unwrap(), answering.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut into));
                let (mut from, mut into) = (answering, asking);
                let held = Arc::clone(&held);
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(read) = from.read(&mut bytes) {
                        // What is held back is gone.
                        let is_held = held.load(Ordering::SeqCst);
                        if read == 0 || (!is_held && into.write_all(&bytes[..read]).is_err()) {
                            return;
                        }
                    }
                });
            }
        });
        relay
    }
}

#[cfg(unix)]
impl Drop for Relay {
    fn drop(&mut self) {
        proto::files::write(&self.file, self.whole.as_bytes(), proto::files::Audience::Owner).unwrap();
    }
}
