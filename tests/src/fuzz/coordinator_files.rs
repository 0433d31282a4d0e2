//! What a coordinator reads from its own disk, from its operator, and from a device that enrols.

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;

use coordinator::pki::{Authority, Identity, Validity};
use coordinator::records::{DeviceRecord, TaskHeader};
use coordinator::tokens::Token;
use proto::admin::{TaskStatus, VersionStatus};
use proto::ids::DeviceId;
use proto::message::Published;
use ring::rand::SystemRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::with_folder;
use super::tape::Tape;

const VALIDITY: Validity =
    Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 1_800_000_000 };

/// The payload of a record in the store.
pub fn coordinator_record(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    match tape.byte() % 7 {
        0 => json::<TaskHeader>(tape.rest()),
        1 => json::<DeviceRecord>(tape.rest()),
        2 => json::<VersionStatus>(tape.rest()),
        3 => json::<Token>(tape.rest()),
        4 => json::<Vec<DeviceId>>(tape.rest()),
        5 => json::<TaskStatus>(tape.rest()),
        _ => json::<Published>(tape.rest()),
    }
}

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let again: T = serde_json::from_slice(&serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(value, again);
    }
}

/// A configuration file, as either side reads it.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(config) = nightshift_agent::config::Config::parse(&text, Path::new("agent.toml")) {
        assert!((2..=config.policy.smallest_cohort).contains(&config.policy.smallest_report_goal));
        assert!(config.policy.largest_delta < 1.0);
    }
    if let Ok(config) = coordinator::config::Config::parse(&text, Path::new("coordinator.toml")) {
        let limits = config.limits.devices();
        assert!(limits.connections > 0 && limits.handshakes > 0);
    }
}

/// A device's signing request, in PEM and in DER.
pub fn signing_request(bytes: &[u8]) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let authority =
        AUTHORITY.get_or_init(|| with_folder(|folder| Authority::open_or_create(folder, VALIDITY).unwrap()));
    let (mut tape, rng) = (Tape::new(bytes), SystemRandom::new());
    if tape.byte() % 2 == 0 {
        let pem = String::from_utf8_lossy(tape.rest());
        if let Ok(signed) = authority.sign_device_pem(&pem, &[7; 16], VALIDITY, &rng) {
            assert!(signed.starts_with("-----BEGIN CERTIFICATE-----\n"));
        }
    } else if let Ok(signed) = authority.sign_device(tape.rest(), &[7; 16], VALIDITY, &rng) {
        assert!(!signed.is_empty());
    }
}

/// The files of keys and certificates, on either side.
pub fn key_files(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let kind = tape.byte() % 4;
    with_folder(|folder| {
        let write = |name: &str, bytes: &[u8]| {
            proto::files::write(&folder.join(name), bytes, proto::files::Audience::Owner).unwrap();
        };
        match kind {
            0 => {
                write("ca.pem", tape.part());
                write("ca.key", tape.rest());
                drop(Authority::open_or_create(folder, VALIDITY));
            }
            1 => {
                write("server.pem", tape.part());
                write("server.key", tape.rest());
                drop(Identity::load(folder, "server"));
            }
            2 => {
                write("tls.key", tape.part());
                write("identity.seed", tape.rest());
                if let Ok(keys) = client::keys::DeviceKeys::open_or_create(folder, &SystemRandom::new()) {
                    drop(keys.signing_request());
                    keys.identity_public_key().unwrap();
                }
            }
            _ => {
                write("enrolment.seed", tape.rest());
                let opened = coordinator::pki::EnrollmentKey::open_or_create(
                    &folder.join("enrolment.seed"),
                    &SystemRandom::new(),
                );
                assert_eq!(opened.is_ok(), tape.rest().len() == 32);
            }
        }
    });
}
