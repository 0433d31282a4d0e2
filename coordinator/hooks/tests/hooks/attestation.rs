//! What is asked of a device's machine: who is admitted, and what of a statement that was forged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use nightshift_hooks::config::{AttestationKeys, AttestationKind};
use nightshift_hooks::{AttestationError, AttestationVerifier, Shown};
use proto::attestation::{Attestation, Quote, challenge};
use proto::ids::Digest;
use proto::tpm::{ATTEST_QUOTE, ECC, ECDSA, GENERATED, NULL, OF_ATTESTATION, P_256, SHA_256, selection};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::common::{Authority, NOW, answer, attestation_usage, file, key, nowhere, secret, service, silent};

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn words<const N: usize>(words: [u16; N]) -> Vec<u8> {
    words.map(u16::to_be_bytes).concat()
}

/// What stands in for a TPM: a key of its own, and what its registers hold.
struct Tpm {
    key: KeyPair,
    registers: BTreeMap<u8, Digest>,
    firmware: u64,
    attributes: u32,
}

impl Tpm {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let registers = BTreeMap::from([(0, Digest([1; 32])), (7, Digest([2; 32]))]);
        Self { key, registers, firmware: 5, attributes: OF_ATTESTATION }
    }

    fn public(&self) -> Vec<u8> {
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let attributes = self.attributes.to_be_bytes();
        let scheme = words([NULL, ECDSA, SHA_256, P_256, NULL]);
        [&words([ECC, SHA_256])[..], &attributes, &sized(&[]), &scheme, &sized(x), &sized(y)].concat()
    }

    fn fingerprint(&self) -> Digest {
        Digest::of(&self.public())
    }

    fn statement(&self, challenge: &[u8]) -> Vec<u8> {
        let registers: BTreeSet<u8> = self.registers.keys().copied().collect();
        let values: Vec<u8> = self.registers.values().flat_map(|value| value.0).collect();
        [
            &GENERATED.to_be_bytes()[..],
            &ATTEST_QUOTE.to_be_bytes(),
            &sized(&[3; 34]),
            &sized(challenge),
            &[0, 0, 0, 0, 0, 0, 1, 0],
            &[0; 8],
            &[1],
            &self.firmware.to_be_bytes(),
            &selection(&registers),
            &sized(&Digest::of(&values).0),
        ]
        .concat()
    }

    fn sign(&self, statement: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.key.serialize_der(), &random);
        let signature = key.unwrap().sign(&random, statement).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        [&words([ECDSA, SHA_256])[..], &sized(r), &sized(s)].concat()
    }

    fn quote(&self, challenge: &Digest) -> Quote {
        let statement = self.statement(&challenge.0);
        Quote {
            key: self.public(),
            signature: self.sign(&statement),
            statement,
            registers: self.registers.iter().map(|(register, value)| (*register, *value)).collect(),
            certificates: Vec::new(),
        }
    }
}

fn shown(attestation: Option<Quote>) -> Shown {
    let identity = Digest([9; 32]);
    Shown {
        device: [7; 16],
        identity,
        label: "attic".to_owned(),
        request_pem: "request".to_owned(),
        challenge: challenge(&[4; 32], &identity.0, "request"),
        attestation: attestation.map(Attestation::Tpm),
        now_unix_secs: NOW,
    }
}

/// What a quote repeats that is made for it.
fn asked() -> Digest {
    shown(None).challenge
}

fn verifier(keys: &AttestationKeys) -> AttestationVerifier {
    keys.check().map_err(|error| format!("{error:?}")).unwrap();
    AttestationVerifier::open(keys).unwrap()
}

fn by_tpm(folder: &Path, tpm: &Tpm, listed: &str) -> AttestationKeys {
    let value = |value: &Digest| vec![Digest([8; 32]).to_string(), value.to_string()];
    AttestationKeys {
        kind: AttestationKind::Tpm,
        allow_list: file(folder, "list", listed),
        registers: tpm.registers.iter().map(|(name, one)| (name.to_string(), value(one))).collect(),
        least_firmware: 5,
        ..AttestationKeys::default()
    }
}

fn refused(answer: Result<(), AttestationError>) -> String {
    match answer {
        Err(AttestationError::NotAdmitted(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_quote_of_a_listed_key_over_what_is_asked_is_admitted_and_every_forgery_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::new();
    let verifier = verifier(&by_tpm(folder.path(), &tpm, &format!("tpm {}", tpm.fingerprint())));
    let good = tpm.quote(&asked());
    verifier.verify(shown(Some(good.clone()))).await.unwrap();

    let other = Tpm { registers: tpm.registers.clone(), ..Tpm::new() };
    let with = |change: &dyn Fn(&mut Tpm)| {
        let key = KeyPair::try_from(tpm.key.serialize_der().as_slice()).unwrap();
        let mut changed = Tpm { key, registers: tpm.registers.clone(), ..Tpm::new() };
        change(&mut changed);
        changed.quote(&asked())
    };
    let mut values = good.clone();
    values.registers[1].1 = Digest([8; 32]);
    let mut fewer = good.clone();
    fewer.registers.pop();
    let flipped = |at: usize| {
        let mut statement = good.statement.clone();
        statement[at] ^= 1;
        Quote { statement, ..good.clone() }
    };
    // A statement that no TPM makes, signed by the key all the same: an unrestricted one would.
    let signed = |statement: Vec<u8>| Quote { signature: tpm.sign(&statement), statement, ..good.clone() };
    let mut certify = good.statement.clone();
    certify[5] = 0x17;
    for (quote, why) in [
        (tpm.quote(&challenge(&[5; 32], &[9; 32], "request")), "made for another enrollment"),
        (tpm.quote(&challenge(&[4; 32], &[8; 32], "request")), "made for another enrollment"),
        (tpm.quote(&challenge(&[4; 32], &[9; 32], "other")), "made for another enrollment"),
        (other.quote(&asked()), "is not known here: it is not in the list of who may come"),
        (Quote { key: other.public(), ..good.clone() }, "did not sign this statement"),
        (Quote { signature: other.quote(&asked()).signature, ..good.clone() }, "did not sign this statement"),
        (flipped(60), "did not sign this statement"),
        (with(&|tpm| tpm.registers.extend([(7, Digest([3; 32]))])), "register 7 of the TPM holds 0303"),
        (
            with(&|tpm| tpm.registers.retain(|register, _| *register != 7)),
            "the registers 0,7 are asked for, the TPM's statement is about 0;",
        ),
        (with(&|tpm| tpm.registers.extend([(8, Digest([3; 32]))])), "is about 0,7,8"),
        (with(&|tpm| tpm.firmware = 4), "firmware is version 0x4"),
        (with(&|tpm| tpm.attributes &= !(1 << 16)), "its attributes is"),
        (values, "values of the registers are not those"),
        (fewer, "values of the registers are not those"),
        (signed(certify), "its type is 0x8017"),
        (signed(good.statement[..90].to_vec()), "the TPM's statement is not taken: it ends"),
        (signed([&good.statement[..], &[0]].concat()), "1 bytes follow its end"),
        (signed(Vec::new()), "the TPM's statement is not taken: it ends"),
        (Quote { key: good.key[..20].to_vec(), ..good.clone() }, "the TPM's key is not taken: it ends"),
        (
            Quote { signature: good.signature[..40].to_vec(), ..good.clone() },
            "the TPM's signature is not taken: it ends",
        ),
        (Quote::default(), "the TPM's key is not taken"),
    ] {
        let said = refused(verifier.verify(shown(Some(quote))).await);
        assert!(said.contains(why), "{why}: {said}");
    }
    assert!(refused(verifier.verify(shown(None)).await).contains("enroll with --attest tpm"));
    // Of two values that a register may hold either is good.
    let second = with(&|tpm| tpm.registers.extend([(7, Digest([8; 32]))]));
    verifier.verify(shown(Some(second))).await.unwrap();
}

#[tokio::test]
async fn a_key_that_an_authority_vouches_for_is_admitted_and_with_another_certificate_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::new();
    let (root, stranger) = (Authority::new("maker"), Authority::new("maker"));
    let between = root.below("between");
    let roots = file(folder.path(), "roots.pem", &root.pem);
    let keys = AttestationKeys { allow_list: "".into(), roots, ..by_tpm(folder.path(), &tpm, "") };
    let verifier = verifier(&keys);
    let der = |pem: String| {
        use rustls::pki_types::pem::PemObject as _;
        rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    };
    let for_tpm = |params: &mut CertificateParams| params.extended_key_usages = vec![attestation_usage()];
    let quote = |certificates| Quote { certificates, ..tpm.quote(&asked()) };
    let leaf = der(between.sign(&tpm.key, for_tpm));
    let chain = vec![leaf.clone(), between.certificate.to_vec()];
    verifier.verify(shown(Some(quote(chain)))).await.unwrap();
    for (certificates, why) in [
        (Vec::new(), "no certificate came with it"),
        (vec![leaf], "is not taken"),
        (vec![vec![1, 2, 3]], "is of another key"),
        (vec![der(root.sign(&key(), for_tpm))], "is of another key"),
        (vec![der(stranger.sign(&tpm.key, for_tpm))], "is not taken"),
        (vec![der(root.sign(&tpm.key, |_| {}))], "not for keys of attestation"),
        (
            vec![der(root.sign(&tpm.key, |params| {
                for_tpm(params);
                params.not_after = super::common::at(NOW - 1);
            }))],
            "is not taken",
        ),
    ] {
        let said = refused(verifier.verify(shown(Some(quote(certificates)))).await);
        assert!(said.contains(why) && said.contains(&tpm.fingerprint().to_string()), "{why}: {said}");
    }
}

#[tokio::test]
async fn a_list_admits_whom_it_holds_now_by_identity_or_by_the_key_that_signed() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::new();
    let list = file(folder.path(), "list", "# nobody yet\n");
    let keys = AttestationKeys {
        kind: AttestationKind::AllowList,
        allow_list: list.clone(),
        ..AttestationKeys::default()
    };
    let verifier = verifier(&keys);
    let bare = || verifier.verify(shown(None));
    let said = refused(bare().await);
    assert!(said.contains(&format!("identity key {} is not", Digest([9; 32]))), "{said}");
    std::fs::write(&list, format!("identity {}\n", Digest([9; 32]))).unwrap();
    bare().await.unwrap();
    std::fs::write(&list, format!("tpm {}\n", tpm.fingerprint())).unwrap();
    refused(bare().await);
    verifier.verify(shown(Some(tpm.quote(&asked())))).await.unwrap();
    // Whoever knows a key's public half has not signed with it.
    let said = refused(
        verifier
            .verify(shown(Some(Quote {
                signature: Tpm::new().quote(&asked()).signature,
                ..tpm.quote(&asked())
            })))
            .await,
    );
    assert!(said.contains("did not sign"), "{said}");
    let said = refused(verifier.verify(shown(Some(Tpm::new().quote(&asked())))).await);
    assert!(said.contains("nor its TPM's key"), "{said}");
    // A list that cannot be read admits nobody.
    for text in ["identity nobody\n", "ek 00\n"] {
        std::fs::write(&list, text).unwrap();
        assert!(matches!(bare().await, Err(AttestationError::Hook(error)) if error.word() == "failed"));
        assert!(AttestationVerifier::open(&keys).is_err());
    }
    std::fs::remove_file(&list).unwrap();
    assert!(matches!(bare().await, Err(AttestationError::Hook(_))));
}

#[tokio::test]
async fn a_service_is_told_what_the_device_shows_and_decides() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::new();
    let keys = |address: std::net::SocketAddr| AttestationKeys {
        kind: AttestationKind::Webhook,
        url: format!("http://{address}/attest"),
        timeout_secs: 1,
        ..AttestationKeys::default()
    };
    let (address, questions) = service(|_| answer("200 OK", r#"{"admit":true}"#), Duration::ZERO);
    let bearer_file = secret(folder.path(), "bearer", "tok");
    verifier(&AttestationKeys { bearer_file, ..keys(address) })
        .verify(shown(Some(tpm.quote(&asked()))))
        .await
        .unwrap();
    let question = questions.recv().unwrap();
    let body = question.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((body["hook"].as_str(), body["label"].as_str()), (Some("attest"), Some("attic")));
    assert_eq!(body["challenge"].as_str(), Some(asked().to_string().as_str()));
    assert_eq!(body["tpm"]["registers"]["7"].as_str(), Some("02".repeat(32).as_str()));
    assert!(!question.contains(&"04".repeat(32)), "the token's secret is not told");

    let verify = async |bytes: Vec<u8>| {
        let (address, _questions) = service(move |_| bytes.clone(), Duration::ZERO);
        verifier(&keys(address)).verify(shown(None)).await
    };
    let said = refused(
        verify(answer("200 OK", "{\"admit\":false,\"why\":\"not in the\\u001b[2J inventory\"}")).await,
    );
    assert!(said.ends_with(r"does not admit this device: not in the\u{1b}[2J inventory"), "{said}");
    refused(verify(answer("200 OK", r#"{"admit":false}"#)).await);
    for (bytes, word) in [
        (answer("200 OK", "{}"), "garbage"),
        (answer("200 OK", "true"), "garbage"),
        (answer("200 OK", r#"{"admit":"yes"}"#), "garbage"),
        (answer("403 No", r#"{"admit":true}"#), "failed"),
        (answer("200 OK", &" ".repeat(70_000)), "too_much"),
    ] {
        let error = verify(bytes).await.unwrap_err();
        assert!(matches!(&error, AttestationError::Hook(error) if error.word() == word), "{word}: {error}");
    }
    for address in [nowhere(), silent().0] {
        let error = verifier(&keys(address)).verify(shown(None)).await.unwrap_err();
        assert!(matches!(error, AttestationError::Hook(_)), "{error}");
    }
}

#[test]
fn a_policy_is_known_by_its_kind_and_its_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::new();
    let base = by_tpm(folder.path(), &tpm, "");
    let digest = |keys: &AttestationKeys| verifier(keys).policy().unwrap().digest;
    assert_eq!(digest(&base), digest(&base));
    let mut fewer = base.clone();
    fewer.registers.remove("7");
    let mut values = base.clone();
    values.registers.get_mut("7").unwrap().pop();
    let roots = file(folder.path(), "roots.pem", &Authority::new("root").pem);
    let others = [
        fewer,
        values,
        AttestationKeys { least_firmware: 6, ..base.clone() },
        AttestationKeys { roots, ..base.clone() },
        AttestationKeys { allow_list: file(folder.path(), "other", ""), ..base.clone() },
        AttestationKeys {
            kind: AttestationKind::AllowList,
            registers: BTreeMap::new(),
            least_firmware: 0,
            ..base.clone()
        },
    ];
    let all: BTreeSet<Digest> = others.iter().chain([&base]).map(digest).collect();
    assert_eq!(all.len(), 7);
    // What is in a list is not a parameter.
    std::fs::write(&base.allow_list, format!("tpm {}", tpm.fingerprint())).unwrap();
    assert!(all.contains(&digest(&base)));
    assert!(AttestationVerifier::open(&AttestationKeys::default()).unwrap().policy().is_none());
}
