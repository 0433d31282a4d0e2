//! Whether a device's machine is one that may come.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proto::attestation::{self, Attestation};
use proto::convert::Enrollment;
use proto::ids::Digest;
use proto::message::Rejection;
use proto::shown::shown;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::allow_list::AllowList;
use crate::config::{AttestationKeys, AttestationKind};
use crate::failure::HookError;
use crate::gate::Gate;
use crate::open::{OpenError, certificates};
use crate::quote::{self, QuoteError, Registers, Wanted};
use crate::vouched;
use crate::webhook::Webhook;

/// What is asked of a device's machine before it enrolls.
#[derive(Debug)]
pub enum AttestationVerifier {
    /// Nothing.
    None,
    /// Something.
    Demanded(Box<Demand>),
}

/// What is asked, and how it is called.
#[derive(Debug)]
pub struct Demand {
    how: How,
    policy: Policy,
    gate: Gate,
    limit: Duration,
}

#[derive(Clone, Debug)]
enum How {
    AllowList(AllowList),
    Webhook(Webhook),
    Tpm(Box<Tpm>),
}

/// What a TPM has to say, and whose key has to have signed it.
#[derive(Clone, Debug)]
struct Tpm {
    registers: Registers,
    least_firmware: u64,
    roots: Vec<CertificateDer<'static>>,
    listed: Option<AllowList>,
}

/// How a policy is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is asked, as it stands in a configuration.
    pub kind: &'static str,
    /// SHA-256 of the kind and of the parameters. Of a list, a file with a token and a service it is where they are, and not
    /// what they say: that changes with every device.
    pub digest: Digest,
}

/// What a device shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its name, which is new where it was never enrolled.
    pub device: [u8; 16],
    /// Its identity key.
    pub identity: Digest,
    /// The label of its token.
    pub label: String,
    /// Its request for a certificate, in PEM.
    pub request_pem: String,
    /// What a statement about its machine has to repeat.
    pub challenge: Digest,
    /// The statement, if there is one.
    pub attestation: Option<Attestation>,
    /// Now.
    pub now_unix_secs: u64,
}

impl Shown {
    /// What a device shows that asks to enroll, under this name and the label of its token.
    pub fn by(asked: &Enrollment, (device, label): ([u8; 16], &str), now_unix_secs: u64) -> Self {
        Self {
            device,
            identity: Digest(asked.identity.0),
            label: label.to_owned(),
            request_pem: asked.certificate_request_pem.clone(),
            challenge: asked.challenge(),
            attestation: asked.attestation.clone(),
            now_unix_secs,
        }
    }
}

/// Why a device is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It does not fulfill what is asked; in words for whoever has the device.
    #[error("{0}")]
    NotAdmitted(String),
    /// It is not known whether it does.
    #[error(transparent)]
    Hook(#[from] HookError),
}

impl AttestationError {
    /// What the device is told, by `who`: a coordinator, or an authority apart from it.
    pub fn rejection(self, who: &str) -> Rejection {
        match self {
            Self::NotAdmitted(why) => Rejection::Unacceptable { request: "attestation".into(), why },
            Self::Hook(error) => error.rejection("whether this device may come is not known", who),
        }
    }
}

/// What a service is asked.
#[derive(Serialize)]
struct Question<'a> {
    hook: &'static str,
    device: String,
    identity: Digest,
    label: &'a str,
    request_pem: &'a str,
    challenge: Digest,
    tpm: Option<TpmShown>,
}

/// A quote, each part in base64.
#[derive(Serialize)]
struct TpmShown {
    key: String,
    statement: String,
    signature: String,
    registers: BTreeMap<u8, Digest>,
    certificates: Vec<String>,
}

/// What a service answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    admit: bool,
    #[serde(default)]
    why: String,
}

impl AttestationVerifier {
    /// Whatever the configuration says. Fails where a file that it names cannot be used; nobody is asked yet.
    pub fn open(keys: &AttestationKeys) -> Result<Self, OpenError> {
        let limit = Duration::from_secs(keys.timeout_secs.into());
        let list = || {
            let list = AllowList(keys.allow_list.clone());
            let unusable = |error: HookError| OpenError::Unusable {
                path: keys.allow_list.clone(),
                why: error.to_string(),
            };
            list.read().map_err(unusable)?;
            Ok::<_, OpenError>(list)
        };
        let list_path = keys.allow_list.as_os_str().as_encoded_bytes();
        let (kind, how, digest) = match keys.kind {
            AttestationKind::None => return Ok(Self::None),
            AttestationKind::AllowList => {
                let digest = named("allow-list", &[list_path]);
                ("allow-list", How::AllowList(list()?), digest)
            }
            AttestationKind::Webhook => {
                let webhook = Webhook::open(&keys.url, &keys.ca, &keys.bearer_file)?;
                ("webhook", How::Webhook(webhook), named("webhook", &[keys.url.as_bytes()]))
            }
            AttestationKind::Tpm => {
                let registers = Registers::read(&keys.registers).map_err(OpenError::Register)?;
                let is_empty = keys.roots.as_os_str().is_empty();
                let roots = if is_empty { Vec::new() } else { certificates(&keys.roots)? };
                let listed = if list_path.is_empty() { None } else { Some(list()?) };
                let each = registers.0.iter().map(|(register, values)| {
                    let values: Vec<u8> = values.iter().flat_map(|value| value.0).collect();
                    named("register", &[&[*register], &values]).0
                });
                let registers_hash = named("registers", &[each.collect::<Vec<_>>().concat().as_slice()]);
                let each: Vec<u8> = roots.iter().flat_map(|root| Digest::of(root).0).collect();
                let firmware = keys.least_firmware.to_be_bytes();
                let digest = named("tpm", &[&registers_hash.0, &each, &firmware, list_path]);
                let least_firmware = keys.least_firmware;
                ("tpm", How::Tpm(Box::new(Tpm { registers, least_firmware, roots, listed })), digest)
            }
        };
        let (policy, gate) = (Policy { kind, digest }, Gate::default());
        Ok(Self::Demanded(Box::new(Demand { how, policy, gate, limit })))
    }

    /// How what is asked is called; `None` where nothing is.
    pub fn policy(&self) -> Option<&Policy> {
        match self {
            Self::None => None,
            Self::Demanded(demand) => Some(&demand.policy),
        }
    }

    /// Whether a device fulfills what is asked. Fails where it does not, and where that cannot be known.
    pub async fn verify(&self, shown: Shown) -> Result<(), AttestationError> {
        match self {
            Self::None => Ok(()),
            Self::Demanded(demand) => demand.verify(shown).await,
        }
    }
}

fn named(kind: &str, parameters: &[&[u8]]) -> Digest {
    let parts: Vec<&[u8]> = [kind.as_bytes()].into_iter().chain(parameters.iter().copied()).collect();
    attestation::hash("nightshift v1 attestation policy", &parts)
}

impl Demand {
    async fn verify(&self, shown: Shown) -> Result<(), AttestationError> {
        let (pass, left) = self.gate.enter(shown.challenge, self.limit).await?;
        let blocking = match &self.how {
            How::Webhook(webhook) => return answered(&webhook.ask(&Question::of(&shown), left).await?),
            How::AllowList(list) => {
                let list = list.clone();
                spawn_blocking(move || {
                    let _pass = pass;
                    listed(&list, &shown)
                })
            }
            How::Tpm(tpm) => {
                let tpm = tpm.clone();
                spawn_blocking(move || {
                    let _pass = pass;
                    tpm.verify(&shown)
                })
            }
        };
        blocking.await.map_err(|error| HookError::Failed { why: error.to_string() })?
    }
}

fn answered(answer: &Answer) -> Result<(), AttestationError> {
    if answer.admit {
        return Ok(());
    }
    let why = if answer.why.is_empty() {
        "whoever is asked for it does not admit this device".to_owned()
    } else {
        format!("whoever is asked for it does not admit this device: {}", shown(&answer.why))
    };
    Err(AttestationError::NotAdmitted(why))
}

/// The device's identity key is listed, or its TPM's key, with which it then has signed.
fn listed(list: &AllowList, shown: &Shown) -> Result<(), AttestationError> {
    let keys = list.read()?;
    if keys.identities.contains(&shown.identity) {
        return Ok(());
    }
    let identity = shown.identity;
    let key = match &shown.attestation {
        None => String::new(),
        Some(Attestation::Tpm(quote)) => {
            let any = Wanted { registers: None, least_firmware: 0 };
            let key = quote::verify(quote, &shown.challenge, any).map_err(refused)?.fingerprint;
            if keys.tpms.contains(&key) {
                return Ok(());
            }
            format!(", nor its TPM's key {key}")
        }
    };
    let why = format!(
        "the device's identity key {identity} is not in the list of who may come{key}; ask the operator to list it"
    );
    Err(AttestationError::NotAdmitted(why))
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn refused(error: QuoteError) -> AttestationError {
    AttestationError::NotAdmitted(error.to_string())
}

impl Tpm {
    fn verify(&self, shown: &Shown) -> Result<(), AttestationError> {
        let Some(Attestation::Tpm(quote)) = &shown.attestation else {
            let why = "a statement of a TPM is asked for; enroll with --attest tpm".to_owned();
            return Err(AttestationError::NotAdmitted(why));
        };
        let wanted = Wanted { registers: Some(&self.registers), least_firmware: self.least_firmware };
        let key = quote::verify(quote, &shown.challenge, wanted).map_err(refused)?;
        let is_listed = match &self.listed {
            None => false,
            Some(list) => list.read()?.tpms.contains(&key.fingerprint),
        };
        if is_listed {
            return Ok(());
        }
        let why = if self.roots.is_empty() {
            "it is not in the list of who may come; ask the operator to list it".to_owned()
        } else {
            match vouched::check(quote, &key.public, &self.roots, shown.now_unix_secs) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            }
        };
        Err(refused(QuoteError::Unknown { fingerprint: key.fingerprint, why }))
    }
}

impl<'a> Question<'a> {
    fn of(shown: &'a Shown) -> Self {
        let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Self {
            hook: "attest",
            device: hex::encode(shown.device),
            identity: shown.identity,
            label: &shown.label,
            request_pem: &shown.request_pem,
            challenge: shown.challenge,
            tpm: shown.attestation.as_ref().map(|attestation| match attestation {
                Attestation::Tpm(quote) => TpmShown {
                    key: encoded(&quote.key),
                    statement: encoded(&quote.statement),
                    signature: encoded(&quote.signature),
                    registers: quote.registers.iter().copied().collect(),
                    certificates: quote.certificates.iter().map(|certificate| encoded(certificate)).collect(),
                },
            }),
        }
    }
}
