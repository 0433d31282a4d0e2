use aggregation::IdentityKey;
use proto::token::BootstrapToken;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use task::spool::InMemory;

use super::*;
use crate::artifacts::Artifacts;
use crate::audit;
use crate::known::KnownDevices;
use crate::pki::{EnrollmentKey, Validity};

const DAY: u64 = 24 * 3600;
const NOW: u64 = 1_700_000_000;

/// A registry of which a device's certificate lasts thirty days, and may be renewed for ten days more.
struct World {
    folder: tempfile::TempDir,
    registry: Arc<Registry>,
    device: DeviceId,
}

fn at(secs: u64) -> Timestamp {
    Timestamp(secs * 1000)
}

fn identity() -> IdentityKey {
    IdentityKey::from_seed(&[7; 32])
}

fn request() -> String {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// A registry below this folder.
pub(crate) fn registry(path: &std::path::Path) -> Registry {
    let store = Store::open(&path.join("store")).unwrap();
    let validity = Validity { not_before_unix_secs: NOW, not_after_unix_secs: NOW + 3650 * DAY };
    let enrollment_key =
        EnrollmentKey::open_or_create(&path.join("enrolment.seed"), &SystemRandom::new()).unwrap();
    let artifacts = Artifacts::open(&path.join("artifacts")).unwrap();
    let driver = Driver::open(store.clone(), artifacts, enrollment_key.public(), Arc::new(InMemory)).unwrap();
    let place = audit::Place {
        folder: path.join("audit"),
        seed: path.join("audit.seed"),
        head: std::path::PathBuf::new(),
        most_bytes: 64 << 20,
    };
    let audit = Audit::open(&place, store.clone(), &SystemRandom::new(), at(NOW)).unwrap();
    let log = Arc::new(KeptLog::open(store.clone(), enrollment_key.public()).unwrap());
    Registry {
        audit,
        authority: Authority::open_or_create(path, validity).unwrap(),
        witnesses: Arc::new(Witnesses::open(&[], 0, (&enrollment_key.public(), &log)).unwrap()),
        log,
        enroller: Enroller::Here(enrollment_key),
        address: "localhost:7443".to_owned(),
        device_secs: 30 * DAY,
        renewal_grace_secs: 10 * DAY,
        operators: Arc::new(Operators::open(store.clone()).unwrap()),
        operator_secs: 90 * DAY,
        revocations: Revocations::open(std::path::Path::new("")).unwrap().0,
        store,
        driver,
        seen: LastSeen::default(),
        hooks: Hooks::none(),
    }
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(registry(folder.path()));
    let token: BootstrapToken = registry.issue_token("anna", 60, at(NOW)).await.unwrap().parse().unwrap();
    let enrollment = Enrollment::new(&token.key(), request(), &identity());
    let enrolled = Arc::clone(&registry).enrol(enrollment, at(NOW)).await.unwrap();
    assert_eq!((enrolled.issued_unix_secs, enrolled.credential.expires_unix_secs), (NOW, NOW + 30 * DAY));
    World { folder, registry, device: enrolled.device }
}

impl World {
    async fn renew(&self, key: &IdentityKey, peer: &Peer, secs: u64) -> Result<Enrolled, Rejection> {
        Arc::clone(&self.registry)
            .renew(Renewal::new(self.device, request(), key), peer.clone(), at(secs))
            .await
    }
}

#[tokio::test]
async fn a_device_is_given_its_next_certificate_and_the_record_says_until_when() {
    let world = world().await;
    let later = NOW + 18 * DAY;
    let renewed = world.renew(&identity(), &Peer::Device(world.device.0), later).await.unwrap();
    assert_eq!((renewed.device, renewed.issued_unix_secs), (world.device, later));
    assert_eq!(renewed.credential.expires_unix_secs, later + 30 * DAY);
    renewed.credential.verify(&world.registry.public(), later).unwrap();
    let [listed] = &Arc::clone(&world.registry).devices().await.unwrap()[..] else {
        panic!("not one device")
    };
    assert_eq!((listed.expires_unix_secs, listed.label.as_str()), (later + 30 * DAY, "anna"));

    // Each is a write, so there are not many; and then there is another.
    let again = world.renew(&identity(), &Peer::Device(world.device.0), later + 59).await;
    assert!(matches!(again, Err(Rejection::Unavailable(_))), "{again:?}");
    world.renew(&identity(), &Peer::Device(world.device.0), later + 60).await.unwrap();
}

#[tokio::test]
async fn a_device_that_enrolls_again_is_the_one_that_it_was_and_a_revoked_one_is_nobody() {
    let world = world().await;
    let enroll = async |key: &IdentityKey, label: &str, secs: u64| {
        let token = world.registry.issue_token(label, 60, at(secs)).await.unwrap();
        let token: BootstrapToken = token.parse().unwrap();
        Arc::clone(&world.registry).enrol(Enrollment::new(&token.key(), request(), key), at(secs)).await
    };
    let later = NOW + 400 * DAY;
    let again = enroll(&identity(), "anna's new name", later).await.unwrap();
    assert_eq!((again.device, again.issued_unix_secs), (world.device, later));
    let other = enroll(&IdentityKey::from_seed(&[8; 32]), "bela", later).await.unwrap();
    assert_ne!(other.device, world.device);
    let listed = Arc::clone(&world.registry).devices().await.unwrap();
    assert_eq!(listed.len(), 2);
    let anna = listed.iter().find(|device| device.device == world.device).unwrap();
    assert_eq!((anna.label.as_str(), anna.expires_unix_secs), ("anna's new name", later + 30 * DAY));

    Arc::clone(&world.registry).revoke(world.device, at(NOW)).await.unwrap();
    let revoked = enroll(&identity(), "anna", later).await.unwrap_err();
    assert!(revoked.to_string().contains("was revoked"), "{revoked}");
    assert!(world.registry.check(world.device).is_err());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_and_a_proof_that_was_seen_is_nobody_else_s() {
    let world = world().await;
    let token: BootstrapToken =
        world.registry.issue_token("bela", 60, at(NOW)).await.unwrap().parse().unwrap();
    assert_eq!(token.authority(), world.registry.public());
    let key = IdentityKey::from_seed(&[9; 32]);
    let enroll =
        |enrollment: &Enrollment, secs| Arc::clone(&world.registry).enrol(enrollment.clone(), at(secs));
    let seen = Enrollment::new(&token.key(), request(), &key);
    let liar = Enrollment { identity: identity().public(), ..seen.clone() };
    assert!(enroll(&liar, NOW).await.unwrap_err().to_string().contains("did not sign"));
    let first = enroll(&seen, NOW).await.unwrap();
    let entries = audited(&world.registry).len();
    let again = enroll(&seen, NOW + 59).await.unwrap();
    assert_eq!((again.device, again.credential, again.label), (first.device, first.credential, first.label));
    assert_eq!(audited(&world.registry).len(), entries, "nothing was changed");
    let late = enroll(&seen, NOW + 60).await.unwrap_err().to_string();
    assert!(late.contains("used before"), "{late}");
    let other = Enrollment::new(&token.key(), request(), &IdentityKey::from_seed(&[10; 32]));
    assert!(enroll(&other, NOW + 1).await.unwrap_err().to_string().contains("used before"));
    assert_eq!(Arc::clone(&world.registry).devices().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_device_whose_caller_went_away_half_way_is_known_as_the_store_knows_it() {
    let world = world().await;
    let key = IdentityKey::from_seed(&[9; 32]);
    let token: BootstrapToken =
        world.registry.issue_token("bela", 60, at(NOW)).await.unwrap().parse().unwrap();
    let enrollment = Enrollment::new(&token.key(), request(), &key);
    let enrolling = Arc::clone(&world.registry).enrol(enrollment, at(NOW));
    // Asked once, and dropped.
    let gone = tokio::time::timeout(std::time::Duration::ZERO, enrolling).await;
    let is_known = async {
        loop {
            let found = records::with_identity(&world.registry.store, key.public()).unwrap();
            if found.is_some_and(|(device, _)| world.registry.check(device).is_ok()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), is_known).await.unwrap();
    drop(gone);
}

#[tokio::test]
async fn devices_of_an_earlier_coordinator_are_found_by_their_identity_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let record = |millis| DeviceRecord::new("old".into(), identity().public(), millis, NOW);
    let mut batch = Batch::new();
    // Without the index, and twice with one key, as earlier coordinators enrolled.
    for (id, millis) in [(1, 7), (2, 9), (3, 8)] {
        batch.insert("devices", [id; 16], &record(millis)).unwrap();
    }
    store.commit_blocking(&batch).unwrap();
    let found = || records::with_identity(&store, identity().public()).unwrap().map(|(id, _)| id);
    assert_eq!(found(), None);
    for _ in 0..2 {
        records::index_identities(&store).unwrap();
        assert_eq!(found(), Some(DeviceId([2; 16])));
    }
    // One that was revoked speaks for its key, however old it is.
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut batch = Batch::new();
    batch.insert("devices", [1; 16], &DeviceRecord { revoked: true, ..record(7) }).unwrap();
    batch.insert("devices", [2; 16], &record(9)).unwrap();
    store.commit_blocking(&batch).unwrap();
    records::index_identities(&store).unwrap();
    let (id, kept) = records::with_identity(&store, identity().public()).unwrap().unwrap();
    assert!(id == DeviceId([1; 16]) && kept.unwrap().revoked);
}

/// A year and more, an hour at a time: the device never is without a certificate that TLS takes.
#[tokio::test]
async fn over_four_hundred_days_a_device_is_never_without_a_certificate() {
    let world = world().await;
    let authority = world.registry.authority.certificate().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
    let first = world.renew(&identity(), &Peer::Anonymous, NOW + 60).await.unwrap();
    let (mut held, mut times) = (first, 0);
    for hour in 1..400 * 24 {
        let now = NOW + 60 + hour * 3600;
        // As the session decides, at the middle of what it may draw.
        let life = held.credential.expires_unix_secs - held.issued_unix_secs;
        if now >= held.issued_unix_secs + life * 7 / 12 {
            held = world.renew(&identity(), &Peer::Device(world.device.0), now).await.unwrap();
            times += 1;
        }
        let der = CertificateDer::from_pem_slice(held.certificate_pem.as_bytes()).unwrap();
        // A clock that is a day behind, one that is right, one that is a week ahead.
        for clock in [now - DAY, now, now + 7 * DAY] {
            let at = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(clock));
            verifier.verify_client_cert(&der, &[], at).unwrap();
        }
        held.credential.verify(&world.registry.public(), now).unwrap();
    }
    assert_eq!(times, 22, "every seventeen and a half days");
}

#[tokio::test]
async fn a_device_whose_certificate_has_ended_is_renewed_without_one_but_not_for_ever() {
    let world = world().await;
    let ends = NOW + 30 * DAY;
    world.renew(&identity(), &Peer::Anonymous, ends + 10 * DAY).await.unwrap();
    let late = world.renew(&identity(), &Peer::Anonymous, ends + 50 * DAY + 1).await.unwrap_err();
    let Rejection::Unacceptable { why, .. } = &late else { panic!("{late:?}") };
    assert!(why.contains("ended 10 days ago") && why.contains("new token"), "{why}");
}

#[tokio::test]
async fn whoever_is_another_revoked_or_without_the_identity_key_is_told_nothing() {
    let world = world().await;
    let (other, stranger) = (IdentityKey::from_seed(&[8; 32]), DeviceId([9; 16]));
    let refused = [
        world.renew(&other, &Peer::Anonymous, NOW + 90).await,
        world.renew(&identity(), &Peer::Device(stranger.0), NOW + 90).await,
        world.renew(&identity(), &Peer::Admin("owl".parse().unwrap()), NOW + 90).await,
        Arc::clone(&world.registry)
            .renew(Renewal::new(stranger, request(), &identity()), Peer::Anonymous, at(NOW + 90))
            .await,
        // Somebody else's proof over a request of their own.
        Arc::clone(&world.registry)
            .renew(
                Renewal {
                    certificate_request_pem: request(),
                    ..Renewal::new(world.device, request(), &identity())
                },
                Peer::Anonymous,
                at(NOW + 90),
            )
            .await,
    ];
    for answer in refused {
        assert!(matches!(answer, Err(Rejection::NotEnrolled)), "{answer:?}");
    }
    Arc::clone(&world.registry).revoke(world.device, at(NOW)).await.unwrap();
    let revoked = world.renew(&identity(), &Peer::Anonymous, NOW + 90).await;
    assert!(matches!(revoked, Err(Rejection::NotEnrolled)), "{revoked:?}");
    assert!(world.folder.path().exists());
}

#[tokio::test]
async fn a_revocation_beside_a_renewal_is_never_undone() {
    let world = world().await;
    for turn in 1..=20 {
        let fresh = DeviceRecord::new("anna".into(), identity().public(), NOW * 1000, NOW + 30 * DAY);
        let mut batch = Batch::new();
        let device = DeviceId([turn; 16]);
        batch.insert("devices", device.0, &fresh).unwrap();
        world.registry.store.commit_blocking(&batch).unwrap();
        world.registry.driver.known().enrolled(device);
        let renewal = Renewal::new(device, request(), &identity());
        let (renewed, revoked) = tokio::join!(
            Arc::clone(&world.registry).renew(renewal, Peer::Anonymous, at(NOW + DAY)),
            Arc::clone(&world.registry).revoke(device, at(NOW))
        );
        revoked.unwrap();
        assert!(matches!(renewed, Ok(_) | Err(Rejection::NotEnrolled | Rejection::Unavailable(_))));
        assert!(world.registry.check(device).is_err(), "a revoked device is enrolled again");
        assert!(records::device(&world.registry.store, device).unwrap().unwrap().revoked);
    }
}

#[tokio::test]
async fn a_revocation_beside_an_enrollment_is_never_undone_and_a_restart_says_the_same() {
    let world = world().await;
    let mut revoked = Vec::new();
    for turn in 20..40 {
        let key = IdentityKey::from_seed(&[turn; 32]);
        let mut enrollments = Vec::new();
        for _ in 0..2 {
            let token = world.registry.issue_token("anna", 60, at(NOW)).await.unwrap();
            let token: BootstrapToken = token.parse().unwrap();
            enrollments.push(Enrollment::new(&token.key(), request(), &key));
        }
        let again = enrollments.pop().unwrap();
        let first = Arc::clone(&world.registry).enrol(enrollments.pop().unwrap(), at(NOW)).await.unwrap();
        assert!(world.registry.check(first.device).is_ok());
        let (again, shut_out) = tokio::join!(
            Arc::clone(&world.registry).enrol(again, at(NOW + 1)),
            Arc::clone(&world.registry).revoke(first.device, at(NOW))
        );
        shut_out.unwrap();
        assert!(again.is_err() || again.is_ok_and(|again| again.device == first.device));
        assert!(world.registry.check(first.device).is_err(), "a revoked device is enrolled again");
        revoked.push(first.device);
    }
    let read = KnownDevices::read(&world.registry.store).unwrap();
    assert!(read.is_enrolled(world.device) && revoked.iter().all(|device| !read.is_enrolled(*device)));
}

/// The record as it was before it said anything of renewals.
#[derive(serde::Serialize)]
struct OldRecord {
    label: &'static str,
    identity: proto::ids::Digest,
    expires_unix_secs: u64,
    enrolled_unix_millis: u64,
    revoked: bool,
}

#[tokio::test]
async fn a_device_that_an_earlier_program_enrolled_is_renewed() {
    let world = world().await;
    let old = OldRecord {
        label: "old",
        identity: proto::ids::Digest(identity().public().0),
        expires_unix_secs: NOW + 30 * DAY,
        enrolled_unix_millis: NOW * 1000,
        revoked: false,
    };
    let device = DeviceId([5; 16]);
    let mut batch = Batch::new();
    batch.put("devices", device.0, &old).unwrap();
    world.registry.store.commit_blocking(&batch).unwrap();
    let renewal = Renewal::new(device, request(), &identity());
    Arc::clone(&world.registry).renew(renewal, Peer::Anonymous, at(NOW + DAY)).await.unwrap();
    assert!(KnownDevices::read(&world.registry.store).unwrap().is_enrolled(device));
}

/// What is in the audit log: what, and what came of it.
fn audited(registry: &Registry) -> Vec<(String, String)> {
    let part = registry.audit.read(1).unwrap();
    let lines = part.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |line: &[u8]| {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let text = |name: &str| line["entry"][name].as_str().unwrap().to_owned();
        (text("what"), text("outcome"))
    };
    lines.map(read).collect()
}

#[tokio::test]
async fn on_a_full_disk_nobody_is_enrolled_and_nothing_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    let token: BootstrapToken = registry.issue_token("anna", 60, at(NOW)).await.unwrap().parse().unwrap();
    let registry = Arc::new(registry);
    let enroll =
        || Arc::clone(&registry).enrol(Enrollment::new(&token.key(), request(), &identity()), at(NOW));
    registry.store.set_free_space_floor(u64::MAX);
    let refused = enroll().await;
    assert!(
        matches!(&refused, Err(Rejection::Unavailable(why)) if why.contains("bytes free")),
        "{refused:?}"
    );
    let devices = Arc::clone(&registry).devices().await.unwrap();
    assert_eq!((devices.len(), audited(&registry).len()), (0, 1));
    registry.store.set_free_space_floor(1);
    enroll().await.unwrap();
    // A token that is used up is refused before anything is written.
    let other = Enrollment::new(&token.key(), request(), &IdentityKey::from_seed(&[8; 32]));
    Arc::clone(&registry).enrol(other, at(NOW)).await.unwrap_err();
    let said = |what: &str, outcome: &str| (what.to_owned(), outcome.to_owned());
    let expected = [said("start", "done"), said("enroll", "intent"), said("enroll", "done")];
    assert_eq!(audited(&registry), expected);
}

#[tokio::test]
async fn a_change_is_written_to_its_end_when_its_caller_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    let (begun, goes_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (begins, may_go_on) = (Arc::clone(&begun), Arc::clone(&goes_on));
    let change = async move {
        begins.notify_one();
        may_go_on.notified().await;
        Ok(())
    };
    let what = (Who::Coordinator, What::new("a change", []));
    let changing = registry.audit.change(what, change, |()| With::new(), registry.audit_fails());
    tokio::select! {
        _ = changing => panic!("it is not over"),
        () = begun.notified() => {}
    }
    assert_eq!(audited(&registry).last().unwrap().1, "intent");
    goes_on.notify_one();
    while audited(&registry).last().unwrap().1 != "done" {
        tokio::task::yield_now().await;
    }
}

/// The second place is away: the device is shut out all the same, and the place is written when it is there.
#[tokio::test]
async fn whom_the_authority_revoked_is_shut_out_whatever_else_fails() {
    let World { folder, registry, device } = world().await;
    let mut registry = Arc::into_inner(registry).unwrap();
    let second = folder.path().join("away/revoked.txt");
    registry.revocations = Revocations::open(&second).unwrap().0;
    assert_eq!(registry.check(device), Ok(()));
    for _ in 0..2 {
        let failed = registry.revoke_as_told(&[device], 1).unwrap_err();
        assert!(matches!(failed, Rejection::Unavailable(_)), "{failed}");
        assert_eq!(registry.check(device), Err(Rejection::NotEnrolled));
    }
    std::fs::create_dir(folder.path().join("away")).unwrap();
    for _ in 0..2 {
        registry.revoke_as_told(&[device], 1).unwrap();
        assert_eq!(std::fs::read_to_string(&second).unwrap(), format!("device {device}\n"));
    }
}

fn put_old_device(registry: &Registry, id: u8) {
    let enrolled = NOW - (400 - u64::from(id)) * DAY;
    let record = DeviceRecord::new(
        "old".into(),
        IdentityKey::from_seed(&[id; 32]).public(),
        enrolled * 1000,
        NOW + DAY,
    );
    let mut batch = Batch::new();
    records::insert_device(&mut batch, DeviceId([id; 16]), &record).unwrap();
    registry.store.commit_blocking(&batch).unwrap();
    registry.driver.known().enrolled(DeviceId([id; 16]));
}

fn log_audited(registry: &Registry) -> aggregation::log::Audited {
    let part = registry.log.part(0).unwrap();
    let mut auditor = aggregation::log::Auditor::default();
    for entry in &part.entries {
        auditor.add(&aggregation::log::Leaf::from_bytes(entry).unwrap());
    }
    let head = aggregation::log::SignedHead::parse(&part.head, &registry.public()).unwrap();
    auditor.finish(head.head())
}

/// The process was killed, or the disk was full, after the first of three devices from before the log; then others come first.
#[tokio::test]
async fn devices_from_before_the_log_become_entries_before_anything_later_although_it_was_broken_off() {
    for first in ["renewal", "enrollment", "revocation", "head"] {
        let folder = tempfile::tempdir().unwrap();
        {
            let broken_off = registry(folder.path());
            put_old_device(&broken_off, 1);
            keeping::write(&broken_off.log, broken_off.enroller.here().unwrap(), &broken_off.store).unwrap();
            put_old_device(&broken_off, 2);
            put_old_device(&broken_off, 3);
        }
        let registry = Arc::new(registry(folder.path()));
        assert_eq!(registry.log.log().read().size(), 1);
        let own = Arc::clone(&registry);
        let mut size = 3;
        match first {
            "renewal" => {
                let device = DeviceId([3; 16]);
                let renewal = Renewal::new(device, request(), &IdentityKey::from_seed(&[3; 32]));
                own.renew(renewal, Peer::Device(device.0), at(NOW)).await.unwrap();
                size += 1;
            }
            "enrollment" => {
                let token: BootstrapToken =
                    own.issue_token("anna", 60, at(NOW)).await.unwrap().parse().unwrap();
                let enrollment = Enrollment::new(&token.key(), request(), &identity());
                own.enrol(enrollment, at(NOW)).await.unwrap();
                size += 1;
            }
            "revocation" => {
                own.revoke(DeviceId([1; 16]), at(NOW)).await.unwrap();
                size += 1;
            }
            _ => keeping::write(&own.log, own.enroller.here().unwrap(), &own.store).unwrap(),
        }
        let audited = log_audited(&registry);
        assert_eq!((audited.faults, audited.size), (Vec::new(), size), "{first}");
        assert_eq!(audited.devices, if first == "enrollment" { 4 } else { 3 }, "{first}");
    }
}
