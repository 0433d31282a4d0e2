//! Who signs a device's certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::Digest;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::chain::{self, Signed, ToSign};
use crate::config::{IssuerKeys, IssuerKind};
use crate::failure::HookError;
use crate::gate::Gate;
use crate::open::{OpenError, certificates};
use crate::program::Program;
use crate::webhook::Webhook;

/// Who signs a device's certificate.
#[derive(Debug)]
pub enum CertIssuer {
    /// The coordinator's own authority.
    Own,
    /// Somebody else.
    Outside(Box<Outside>),
}

/// Somebody else who signs devices' certificates.
#[derive(Debug)]
pub struct Outside {
    way: Way,
    roots: Vec<CertificateDer<'static>>,
    /// As the listener will verify what they signed.
    verifier: Arc<dyn ClientCertVerifier>,
    slack_secs: u64,
    gate: Gate,
    limit: Duration,
}

#[derive(Debug)]
enum Way {
    Command(Program),
    Webhook(Webhook),
}

/// What a service is asked.
#[derive(Serialize)]
struct Question<'a> {
    hook: &'static str,
    device: String,
    name: &'a str,
    request_pem: &'a str,
    not_before_unix_secs: u64,
    not_after_unix_secs: u64,
}

/// What a service answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    chain_pem: String,
}

impl CertIssuer {
    /// Whoever the configuration says. Fails where a file that it names cannot be used; nobody is asked yet.
    pub fn open(keys: &IssuerKeys) -> Result<Self, OpenError> {
        let limit = Duration::from_secs(keys.timeout_secs.into());
        let way = match keys.kind {
            IssuerKind::Own => return Ok(Self::Own),
            IssuerKind::Command => {
                let mut words = keys.command.iter();
                let path = PathBuf::from(words.next().map_or("", String::as_str));
                let unusable = |why: String| OpenError::Unusable { path: path.clone(), why };
                proto::files::open_regular(&path).map_err(|error| unusable(error.to_string()))?;
                Way::Command(Program { path, arguments: words.cloned().collect() })
            }
            IssuerKind::Webhook => Way::Webhook(Webhook::open(&keys.url, &keys.ca, &keys.bearer_file)?),
        };
        let roots = certificates(&keys.authority)?;
        let unusable = |why: String| OpenError::Unusable { path: keys.authority.clone(), why };
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| unusable(error.to_string()))?;
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
        let verifier = verifier.map_err(|error| unusable(error.to_string()))?;
        let (slack_secs, gate) = (keys.slack_secs.into(), Gate::default());
        Ok(Self::Outside(Box::new(Outside { way, roots, verifier, slack_secs, gate, limit })))
    }

    /// The authorities, beside the coordinator's own, whose certificates of devices are good.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Own => &[],
            Self::Outside(outside) => &outside.roots,
        }
    }

    /// When the first of their certificates ends, in seconds since 1970, where there are such.
    pub fn roots_end_unix_secs(&self) -> Option<u64> {
        let ends = |root: &CertificateDer<'static>| {
            let (_, read) = X509Certificate::from_der(root).ok()?;
            u64::try_from(read.validity().not_after.timestamp()).ok()
        };
        self.roots().iter().filter_map(ends).min()
    }
}

impl Outside {
    /// Asks for a certificate. What comes is given only where the listener would take it for this device.
    pub async fn sign(&self, asked: ToSign) -> Result<Signed, HookError> {
        let (pass, left) = self.gate.enter(Digest::of(&asked.device), self.limit).await?;
        let pem = match &self.way {
            Way::Webhook(webhook) => {
                let answer: Answer = webhook.ask(&Question::of(&asked), left).await?;
                answer.chain_pem.into_bytes()
            }
            Way::Command(program) => {
                let (program, asked) = (program.clone(), asked.clone());
                let ran = spawn_blocking(move || {
                    // Somebody is inside for as long as the program runs, also where its caller has gone.
                    let _pass = pass;
                    program.run(&variables(&asked), asked.request_pem.as_bytes(), left)
                });
                ran.await.map_err(|error| HookError::Failed { why: error.to_string() })??
            }
        };
        let checked = chain::check(&pem, &asked, &self.verifier, self.slack_secs);
        checked.map_err(|error| HookError::Garbage { why: error.to_string() })
    }
}

impl<'a> Question<'a> {
    fn of(asked: &'a ToSign) -> Self {
        Self {
            hook: "sign",
            device: hex::encode(asked.device),
            name: &asked.name,
            request_pem: &asked.request_pem,
            not_before_unix_secs: asked.not_before_unix_secs,
            not_after_unix_secs: asked.not_after_unix_secs,
        }
    }
}

/// What a program is told beside the request.
fn variables(asked: &ToSign) -> [(&'static str, String); 5] {
    let secs = asked.not_after_unix_secs.saturating_sub(asked.now_unix_secs);
    [
        ("NIGHTSHIFT_DEVICE", hex::encode(asked.device)),
        ("NIGHTSHIFT_NAME", asked.name.clone()),
        ("NIGHTSHIFT_NOT_BEFORE", asked.not_before_unix_secs.to_string()),
        ("NIGHTSHIFT_NOT_AFTER", asked.not_after_unix_secs.to_string()),
        ("NIGHTSHIFT_SECS", secs.to_string()),
    ]
}
