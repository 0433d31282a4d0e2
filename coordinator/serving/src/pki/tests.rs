use ring::rand::SystemRandom;

use super::*;
use crate::peer::{Peer, read_certificate};

const YEAR: Validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 1_731_536_000 };

#[test]
fn an_authority_is_the_same_after_a_restart_and_its_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let first = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let second = Authority::open_or_create(folder.path(), YEAR).unwrap();
    assert_eq!(first.certificate(), second.certificate());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(folder.path().join(CA_KEY_FILE)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_certificate_beside_a_foreign_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Authority::open_or_create(folder.path(), YEAR).unwrap();
    std::fs::remove_file(folder.path().join(CA_KEY_FILE)).unwrap();
    let error = Authority::open_or_create(folder.path(), YEAR).unwrap_err();
    assert!(matches!(error, PkiError::KeyMismatch { .. }));
}

#[test]
fn a_device_certificate_names_the_device_whatever_its_request_says() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut asked = CertificateParams::default();
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    asked.subject_alt_names = vec![SanType::URI("nightshift:admin:owl".try_into().unwrap())];
    let request = asked.serialize_request(&key).unwrap();

    let certificate = authority.sign_device(request.der(), &[7; 16], YEAR, &SystemRandom::new()).unwrap();
    let certified = read_certificate(&certificate).unwrap();
    assert_eq!(certified.peer, Peer::Device([7; 16]));
    assert_eq!(certified.not_after_unix_secs, YEAR.not_after_unix_secs);
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    assert!(!parsed.is_ca());
    assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert_eq!(*parsed.public_key().subject_public_key.data, *key.der_bytes());
}

#[test]
fn a_request_with_a_wrong_signature_or_another_kind_of_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let rng = SystemRandom::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let mut forged = request.der().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let error = authority.sign_device(&forged, &[7; 16], YEAR, &rng).unwrap_err();
    assert!(matches!(error, PkiError::Request(_)));

    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let error = authority.sign_device(request.der(), &[7; 16], YEAR, &rng).unwrap_err();
    assert!(matches!(error, PkiError::RequestKey), "{error}");
}

/// A request for a P-384 key that is signed with SHA-256, as for P-256:
/// `openssl ecparam -name secp384r1 -genkey -noout -out k; openssl req -new -sha256 -key k -subj /CN=x`.
const REQUEST_OF_P384: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIIBAzCBiwIBADAMMQowCAYDVQQDDAF4MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE
90Y6rG71PyTC3zXJNn14oDfXw99ulC973GQQ6K35LnYaS92eDqGs9ioPXzl1nukF
NvKHpR1GsPwcwosI1wYzKA/QRbzfY7fGvhUFlLE3cHkjs1VM2z+0dHba2MXbGExG
oAAwCgYIKoZIzj0EAwIDZwAwZAIwOflgivQTmMhBRYGuYewrqksnG8Psb0ZZLVND
N8TWAMpvaANva1MeHuaTHcO1Hj96AjAzn3qa/5QVckOFwn5UoP/ct6r+cG+gQHQu
2EIW6J1iygyNxiJLpnpe0PCqZtRAB20=
-----END CERTIFICATE REQUEST-----
";

#[test]
fn a_key_on_another_curve_is_refused_whatever_it_is_signed_with() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let refused = authority.sign_device_pem(REQUEST_OF_P384, &[7; 16], YEAR, &SystemRandom::new());
    assert!(matches!(refused, Err(PkiError::RequestKey)), "{refused:?}");
}

#[test]
fn an_admin_identity_is_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let name: AdminName = "owl".parse().unwrap();
    let identity = authority.issue_admin((&name, Role::Viewer), YEAR, &SystemRandom::new()).unwrap();
    identity.save(folder.path(), "admin").unwrap();
    let loaded = Identity::load(folder.path(), "admin").unwrap();
    assert_eq!(loaded.chain(), identity.chain());
    assert_eq!(loaded.key(), identity.key());
    assert_eq!(loaded.authority(), Some(authority.certificate()));
    let certified = read_certificate(&loaded.chain()[0]).unwrap();
    assert_eq!((certified.peer, certified.role), (Peer::Admin(name), Some(Role::Viewer)));
}

#[test]
fn a_server_certificate_names_nobody_as_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(folder.path(), YEAR).unwrap();
    let names = ["fleet.example".to_owned(), "10.0.0.7".to_owned()];
    let identity = authority.issue_server(&names, YEAR, &SystemRandom::new()).unwrap();
    assert!(read_certificate(&identity.chain()[0]).is_err());
    let bad = ["not a name".to_owned()];
    let error = authority.issue_server(&bad, YEAR, &SystemRandom::new()).unwrap_err();
    assert!(matches!(error, PkiError::ServerName(_)));
}

#[test]
fn times_out_of_order_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let backwards = Validity { not_before_unix_secs: 2, not_after_unix_secs: 1 };
    let error = Authority::open_or_create(folder.path(), backwards).unwrap_err();
    assert!(matches!(error, PkiError::Validity { .. }));
}

#[test]
fn a_certificate_is_due_when_two_thirds_of_its_life_are_over_or_its_clock_was_ahead() {
    const DAY: u64 = 24 * 3600;
    let is_due = |left_days: u64| is_due((1000 + left_days) * DAY, 90 * DAY, 1000 * DAY);
    assert!(!is_due(31) && !is_due(90) && !is_due(91));
    assert!(is_due(30) && is_due(0) && is_due(92) && is_due(400));
}
