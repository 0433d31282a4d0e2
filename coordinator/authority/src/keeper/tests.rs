use proto::authority::{AttestedBy, Issued};
use proto::convert::{Enrollment, Renewal};
use proto::token::BootstrapToken;
use serving::pki::Validity;

use super::*;
use crate::decide::{self, Attested, Refusal};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const TERMS: Terms =
    Terms { credential_secs: 30 * DAY, renewal_grace_secs: 10 * DAY, most_enrolled_a_day: 3 };

fn keeper(folder: &Path) -> Keeper {
    let validity = Validity { not_before_unix_secs: NOW - DAY, not_after_unix_secs: NOW + 3650 * DAY };
    Keeper::open(folder, TERMS, Authority::open_or_create(folder, validity).unwrap()).unwrap()
}

fn introduced(keeper: &Keeper, from: u64) -> Introduced {
    let introduction =
        Introduction { address: "localhost:7443".into(), pin: [7; 32], revocations_from: from };
    keeper.introduce(&"coordinator".parse().unwrap(), &introduction).unwrap()
}

fn token(keeper: &Keeper) -> BootstrapToken {
    introduced(keeper, 0);
    keeper.issue_token(("anna", 3600), "", NOW).unwrap().parse().unwrap()
}

/// Enrolls whoever asks, of whose machine nothing is asked.
fn enroll(keeper: &Keeper, asked: &Enrollment, now_unix_secs: u64) -> Result<Issued, Rejection> {
    let applicant = keeper.applicant(asked, now_unix_secs)?;
    keeper.enroll(asked, (applicant.id, None), now_unix_secs)
}

fn asked(token: &BootstrapToken, seed: u8) -> Enrollment {
    Enrollment::new(&token.key(), "request".into(), &IdentityKey::from_seed(&[seed; 32]))
}

#[test]
fn a_device_is_enrolled_once_and_its_lost_answer_is_the_same_after_a_crash_and_for_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let first = keeper(folder.path());
    let token = token(&first);
    assert_eq!(
        (token.address(), token.pin(), token.authority()),
        ("localhost:7443", [7; 32], first.public())
    );
    let answer = enroll(&first, &asked(&token, 1), NOW).unwrap();
    answer.credential.verify(&first.public(), NOW + 30 * DAY - 1).unwrap();
    assert_eq!(answer.label, "anna");
    drop(first);

    let again = keeper(folder.path());
    assert_eq!(enroll(&again, &asked(&token, 1), NOW + 5).unwrap(), answer);
    let other = enroll(&again, &asked(&token, 2), NOW + 5).unwrap_err();
    assert!(other.to_string().contains("used before"), "{other}");
    assert_eq!(again.log_part(0).unwrap().entries.len(), 1, "what is repeated is not stated again");
    assert_eq!(again.devices(None).unwrap().0.len(), 1);
}

#[test]
fn a_day_takes_as_many_new_devices_as_it_may_and_the_token_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    for seed in 1..=3 {
        enroll(&keeper, &asked(&token(&keeper), seed), NOW).unwrap();
    }
    let late = token(&keeper);
    assert!(matches!(enroll(&keeper, &asked(&late, 4), NOW), Err(Rejection::Unavailable(_))));
    // One that was there comes again on the same day.
    let before = keeper.devices(None).unwrap().0;
    let again = enroll(&keeper, &asked(&token(&keeper), 1), NOW + 1).unwrap();
    assert!(before.iter().any(|device| device.device.0 == again.credential.device));
    let tomorrow = (decide::day(NOW) + 1) * DAY;
    let longer = keeper.issue_token(("late", 2 * DAY), "", NOW).unwrap().parse().unwrap();
    enroll(&keeper, &asked(&longer, 4), tomorrow).unwrap();
}

#[test]
fn a_revoked_device_is_renewed_and_enrolled_no_more_and_coordinators_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let device = DeviceId(enroll(&keeper, &asked(&token(&keeper), 1), NOW).unwrap().credential.device);
    let renewal = Renewal::new(device, "request".into(), &IdentityKey::from_seed(&[1; 32]));
    // Early, and however often it is sent, it is what was stated before.
    for secs in [1, 60, 10 * DAY - 1] {
        let early = keeper.renew(&renewal, NOW + secs).unwrap();
        assert_eq!(early.credential.expires_unix_secs, NOW + 30 * DAY);
        early.credential.verify(&keeper.public(), NOW + secs).unwrap();
    }
    assert_eq!(keeper.log_part(0).unwrap().entries.len(), 1);
    let renewed = keeper.renew(&renewal, NOW + 10 * DAY).unwrap();
    assert_eq!(renewed.credential.expires_unix_secs, NOW + 40 * DAY);
    keeper.revoke(device, None, NOW + 10 * DAY + 70).unwrap();
    keeper.revoke(device, None, NOW + 10 * DAY + 71).unwrap();
    assert_eq!(keeper.renew(&renewal, NOW + 25 * DAY), Err(Refusal::NotEnrolled.into()));
    let again = enroll(&keeper, &asked(&token(&keeper), 1), NOW + 80).unwrap_err();
    assert!(again.to_string().contains("was revoked"), "{again}");
    let told = introduced(&keeper, 0);
    assert_eq!((told.revoked, told.more), (vec![device], false));
    assert_eq!(introduced(&keeper, told.revocations_next).revoked, []);
    assert_eq!(introduced(&keeper, 9).revoked, [device], "of another list, it is told of all of this");
    assert_eq!(keeper.log_part(0).unwrap().entries.len(), 3);
    assert!(keeper.revoke(DeviceId([9; 16]), None, NOW).unwrap_err().to_string().contains("device ls"));
}

#[test]
fn a_revocation_says_by_which_coordinator_s_word_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let [by_owl, by_operator] = [1, 2]
        .map(|seed| DeviceId(enroll(&keeper, &asked(&token(&keeper), seed), NOW).unwrap().credential.device));
    let owl: AdminName = "owl".parse().unwrap();
    keeper.revoke(by_owl, Some(&owl), NOW + 1).unwrap();
    keeper.revoke(by_operator, None, NOW + 1).unwrap();
    // Who says it once more changes nothing.
    keeper.revoke(by_owl, Some(&"cat".parse().unwrap()), NOW + 2).unwrap();
    let by = |id| {
        let devices = keeper.devices(None).unwrap().0;
        devices.into_iter().find(|device| device.device == id).unwrap().revoked_by
    };
    assert_eq!((by(by_owl).as_deref(), by(by_operator)), (Some("owl"), None));
}

#[test]
fn tokens_are_for_a_coordinator_that_said_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let none = keeper.issue_token(("anna", 60), "", NOW).unwrap_err().to_string();
    assert!(none.contains("coordinator-file"), "{none}");
    introduced(&keeper, 0);
    let other = Introduction { address: "owl.example:1".into(), pin: [8; 32], revocations_from: 0 };
    keeper.introduce(&"owl".parse().unwrap(), &other).unwrap();
    let both = keeper.issue_token(("anna", 60), "", NOW).unwrap_err().to_string();
    assert!(both.contains("coordinator, owl") && both.contains("--coordinator"), "{both}");
    let owl: BootstrapToken = keeper.issue_token(("anna", 60), "owl", NOW).unwrap().parse().unwrap();
    assert_eq!((owl.address(), owl.pin()), ("owl.example:1", [8; 32]));
    let unknown = keeper.issue_token(("anna", 60), "cat", NOW).unwrap_err().to_string();
    assert!(unknown.contains("`cat`"), "{unknown}");
    let bad = Introduction { address: "nowhere".into(), ..other };
    assert!(keeper.introduce(&"owl".parse().unwrap(), &bad).is_err());
    let long = keeper.issue_token(("anna", u64::MAX), "owl", NOW).unwrap_err().to_string();
    assert!(long.contains("a token lasts 1 to"), "{long}");
}

#[test]
fn a_coordinator_s_next_certificate_makes_the_one_before_worthless() {
    use serving::peer::{Peer, read_certificate};
    use serving::pki::Identity;

    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let validity = Validity::lasting(DAY, NOW);
    let add = |name: &str| {
        let (key, request) = Identity::request().unwrap();
        let pem = keeper.peers.add_coordinator(name, &request, validity).unwrap();
        let identity = key.with_chain(&pem).unwrap();
        read_certificate(&identity.chain()[0]).unwrap()
    };
    let (first, other, next) = (add("owl"), add("cat"), add("owl"));
    let part =
        |certified: &serving::peer::Certified| keeper.peers.part(&certified.peer, certified.serial.unwrap());
    assert_eq!(part(&first), None);
    assert_eq!((part(&other), part(&next)), (Some(peers::Part::Coordinator), Some(peers::Part::Coordinator)));
    // A number of one and the name of another are nobody's.
    let owl = Peer::Coordinator("owl".parse().unwrap());
    assert_eq!(keeper.peers.part(&owl, other.serial.unwrap()), None);
    assert_eq!(keeper.peers.part(&Peer::Admin("owl".parse().unwrap()), next.serial.unwrap()), None);
    keeper.peers.ensure_operator(folder.path(), (validity, &|_| false)).unwrap();
    let operator = Identity::load(folder.path(), peers::OPERATOR).unwrap();
    let operator = read_certificate(&operator.chain()[0]).unwrap();
    assert_eq!(part(&operator), Some(peers::Part::Operator));
}

#[test]
fn by_what_a_machine_was_admitted_is_in_each_of_its_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let token = token(&keeper);
    let asked = asked(&token, 1);
    let applicant = keeper.applicant(&asked, NOW).unwrap();
    assert!(!applicant.is_known && applicant.label == "anna");
    assert_eq!(keeper.devices(None).unwrap().0, [], "who asks is no device yet");
    let by = Attested { policy: Digest([5; 32]), kind: "tpm".into(), at_unix_secs: NOW };
    let issued = keeper.enroll(&asked, (applicant.id, Some(by)), NOW).unwrap();
    assert_eq!(DeviceId(issued.credential.device), applicant.id);
    // Whoever repeats it is known, and is not looked at again.
    let known = keeper.applicant(&asked, NOW + 1).unwrap();
    assert!(known.is_known && known.id == applicant.id);
    let repeated = keeper.enroll(&asked, (known.id, None), NOW + 1).unwrap();
    assert_eq!(repeated, issued);
    let renewal = Renewal::new(applicant.id, "request".into(), &IdentityKey::from_seed(&[1; 32]));
    let renewed = keeper.renew(&renewal, NOW + 15 * DAY).unwrap();
    for stated in [issued, renewed] {
        stated.credential.verify(&keeper.public(), NOW).unwrap();
        assert_eq!(stated.credential.logged.unwrap().attested, [5; 32]);
        assert_eq!(stated.attested, Some(AttestedBy { kind: "tpm".into(), at_unix_secs: NOW }));
    }
    // Looked at under one name and enrolled by another request meanwhile.
    let other = self::token(&keeper);
    let moved = Enrollment::new(&other.key(), "request".into(), &IdentityKey::from_seed(&[1; 32]));
    let refused = keeper.enroll(&moved, (DeviceId([9; 16]), None), NOW + 2).unwrap_err();
    assert!(matches!(refused, Rejection::Unavailable(_)), "{refused}");
}

#[test]
fn a_coordinator_has_so_many_versions_written_on_a_day_and_the_others_wait() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    let [owl, cat]: [AdminName; 2] = ["owl", "cat"].map(|name| name.parse().unwrap());
    let version = |version: u32| {
        let (plan, adapter, roster) = ([0; 32], [0; 32], [0; 32]);
        Leaf::Version { task: [1; 16], version, plan, adapter, roster, survivors: 3, unix_secs: NOW }
            .to_bytes()
    };
    // As if all but one were there.
    let mut batch = Batch::new();
    batch.put(VERSION_DAYS, owl.as_str(), &(decide::day(NOW), MOST_VERSIONS_A_DAY - 1)).unwrap();
    keeper.store.commit_blocking(&batch).unwrap();
    keeper.log_version(&owl, &version(1), NOW).unwrap();
    let refused = keeper.log_version(&owl, &version(2), NOW).unwrap_err();
    assert!(
        matches!(refused, Rejection::Unavailable(_)) && refused.to_string().contains("1000"),
        "{refused}"
    );
    // What is repeated is there, another coordinator has a number of its own, and so has the next day.
    keeper.log_version(&owl, &version(1), NOW).unwrap();
    keeper.log_version(&cat, &version(3), NOW).unwrap();
    keeper.log_version(&owl, &version(2), NOW + DAY).unwrap();
    assert_eq!(keeper.log_part(0).unwrap().entries.len(), 3);
}

#[test]
fn a_full_disk_stops_no_start_and_a_head_is_signed_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    keeper.refresh_head(NOW).unwrap();
    let signed = || keeper.log().log().look(|book| book.head().map(|head| head.head().unix_secs));
    keeper.store.set_free_space_floor(u64::MAX);
    keeper.refresh_head_if_room(NOW + 3600).unwrap();
    assert_eq!(signed(), Some(NOW));
    assert!(keeper.refresh_head(NOW + 3600).is_err());
    keeper.store.set_free_space_floor(0);
    keeper.refresh_head_if_room(NOW + 3600).unwrap();
    assert_eq!(signed(), Some(NOW + 3600));
}
