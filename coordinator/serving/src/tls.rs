//! The listening side of TLS: version 1.3 only, client certificates of our authority.
//!
//! At the listener for devices a peer may come without a certificate (it has none before it has enrolled); what it
//! then may do is for the [listener](crate::listener) to decide. At the listener for operators nobody gets through the
//! handshake whose certificate our authority did not make for an operator. One that has ended, or was revoked, passes: an alert
//! says little and may be lost, so its holder is told at its first call, and may do nothing else. Everywhere else a
//! certificate that has ended does not get in, nor one that is not ours, names nobody, or somebody who belongs to the other
//! listener. Sessions are never resumed, so each connection verifies its certificate anew.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::Serial;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::peer::{self, Certified, Peer};
use crate::pki::Identity;

/// Why a configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The identity does not fit together, or TLS cannot use it.
    #[error("the server's certificate or key cannot be used: {0}")]
    Identity(rustls::Error),
    /// The authority's certificate cannot be used to verify others.
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(#[from] VerifierBuilderError),
}

/// Whether whoever has a certificate with this number may connect: it is known, and was not revoked.
pub type Knows = Arc<dyn Fn(&Peer, Serial) -> bool + Send + Sync>;

/// Whom a listener is for.
#[derive(Clone)]
pub enum Audience {
    /// Devices, and such as want to become one and have no certificate yet.
    Devices,
    /// Operators of a coordinator. Whether the certificate holds still, and was not revoked, is asked at each call.
    Operators,
    /// Such as have a certificate that is known.
    Known(Knows),
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Devices => "Devices",
            Self::Operators => "Operators",
            Self::Known(_) => "Known",
        })
    }
}

/// Makes the configuration of a listener: `identity` is shown to peers, and
/// peers' certificates must come from `authority` and name somebody of the `audience`.
pub fn server_config(
    identity: &Identity,
    authority: &CertificateDer<'static>,
    audience: Audience,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_of(identity, std::slice::from_ref(authority), audience)
}

/// The same where peers' certificates may come from any of several authorities.
pub fn server_config_of(
    identity: &Identity,
    authorities: &[CertificateDer<'static>],
    audience: Audience,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(TlsError::Identity)?;
    }
    let ours = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let ours = match &audience {
        Audience::Devices => ours.allow_unauthenticated(),
        Audience::Operators | Audience::Known(_) => ours,
    };
    let verifier = AudienceVerifier { ours: ours.build()?, audience };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain().to_vec(), identity.key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Verifies that a certificate is our authority's, and whom it names.
#[derive(Debug)]
struct AudienceVerifier {
    ours: Arc<dyn ClientCertVerifier>,
    audience: Audience,
}

impl Audience {
    /// Whether a certificate is one of those who belong here.
    fn is_for(&self, certificate: &Certified) -> bool {
        match (self, &certificate.peer) {
            (Self::Devices, Peer::Device(_)) | (Self::Operators, Peer::Admin(_)) => true,
            (Self::Known(knows), peer) => certificate.serial.is_some_and(|serial| knows(peer, serial)),
            (Self::Devices, Peer::Admin(_) | Peer::Coordinator(_) | Peer::Anonymous)
            | (Self::Operators, Peer::Device(_) | Peer::Coordinator(_) | Peer::Anonymous) => false,
        }
    }

    /// The time by which a certificate is verified: an operator's that has ended is verified by its end.
    fn asks_at(&self, certificate: &Certified, now: UnixTime) -> UnixTime {
        match self {
            Self::Devices | Self::Known(_) => now,
            Self::Operators => {
                let end = UnixTime::since_unix_epoch(Duration::from_secs(certificate.not_after_unix_secs));
                now.min(end)
            }
        }
    }
}

impl ClientCertVerifier for AudienceVerifier {
    fn offer_client_auth(&self) -> bool {
        self.ours.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.ours.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.ours.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let read = peer::read_certificate(end_entity);
        let at = read.as_ref().map_or(now, |certified| self.audience.asks_at(certified, now));
        let verified = self.ours.verify_client_cert(end_entity, intermediates, at)?;
        match read {
            Ok(certified) if self.audience.is_for(&certified) => Ok(verified),
            Ok(_) | Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.ours.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.ours.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ours.supported_verify_schemes()
    }
}
