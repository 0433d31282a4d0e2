//! Whether a certificate that somebody else made is one of this device, for this coordinator's listener.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use shell::pem;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The most certificates of a chain: the device's own, and those between it and the authority.
const MOST_CERTIFICATES: usize = 4;

/// The most bytes of a chain, in DER: the device shows it in each handshake.
const MOST_CHAIN_BYTES: usize = 16 << 10;

/// A certificate that is to be made.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// The device.
    pub device: [u8; 16],
    /// The one URI name that the certificate must have, by which the listener knows the device.
    pub name: String,
    /// The device's request, in DER, whose signature was checked.
    pub request_der: Vec<u8>,
    /// The same in PEM.
    pub request_pem: String,
    /// Its first second; a day before now, for clocks that are behind.
    pub not_before_unix_secs: u64,
    /// Its last second.
    pub not_after_unix_secs: u64,
    /// Now.
    pub now_unix_secs: u64,
}

/// A certificate that was made, and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// It, and those between it and its authority, in PEM.
    pub chain_pem: String,
    /// Its last second.
    pub not_after_unix_secs: u64,
}

/// Why a chain of certificates is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It is not in PEM.
    #[error("it is not in PEM")]
    Pem,
    /// Something else stands in it, such as a private key.
    #[error("it holds something else than certificates: {0}")]
    Section(String),
    /// It is too short or too long.
    #[error("it has {0} certificates, expected 1 to {MOST_CERTIFICATES}")]
    Count(usize),
    /// It is too large.
    #[error("it has {0} bytes, more than {MOST_CHAIN_BYTES}")]
    Large(usize),
    /// The first certificate cannot be read.
    #[error("the first certificate cannot be read")]
    Malformed,
    /// It is another's key.
    #[error("the first certificate is of another key than the request's")]
    Key,
    /// It names somebody else, or others too.
    #[error("the first certificate has the URI names {actual:?}, expected {expected:?} alone")]
    Name {
        /// Its names.
        actual: Vec<String>,
        /// The one that it must have.
        expected: String,
    },
    /// It begins or ends at other times than was asked.
    #[error(
        "the first certificate is valid from {from} to {to}, in seconds since 1970; asked was {asked_from} to {asked_to}, give \
         or take {slack} seconds"
    )]
    Validity {
        /// Its first second.
        from: i64,
        /// Its last one.
        to: i64,
        /// The first second that was asked.
        asked_from: u64,
        /// The last one that was asked.
        asked_to: u64,
        /// By how much it may differ.
        slack: u64,
    },
    /// It does not last for half as long as was asked.
    #[error(
        "the first certificate is valid until {to}, less than half of the {asked} seconds that were asked"
    )]
    Short {
        /// Its last second.
        to: i64,
        /// How long it was to last, from now.
        asked: u64,
    },
    /// It is not for whoever connects.
    #[error("the first certificate is not for clients of TLS (extended key usage clientAuth)")]
    Usage,
    /// It could sign further ones.
    #[error("the first certificate is an authority's")]
    Authority,
    /// The listener would not take it.
    #[error("the chain does not lead to an authority in issuer.authority: {0}")]
    Untrusted(String),
}

/// The chain that came for a request, if the listener would take it for this device and nobody else.
pub(crate) fn check(
    pem: &[u8],
    asked: &ToSign,
    verifier: &Arc<dyn ClientCertVerifier>,
    slack_secs: u64,
) -> Result<Signed, ChainError> {
    let chain = read(pem)?;
    let [first, between @ ..] = chain.as_slice() else { return Err(ChainError::Count(0)) };
    let (rest, certificate) = X509Certificate::from_der(first).map_err(|_| ChainError::Malformed)?;
    if !rest.is_empty() {
        return Err(ChainError::Malformed);
    }
    if !is_key_of(&certificate, &asked.request_der) {
        return Err(ChainError::Key);
    }
    check_name(&certificate, &asked.name)?;
    let not_after_unix_secs = check_validity(&certificate, asked, slack_secs)?;
    if certificate.is_ca() {
        return Err(ChainError::Authority);
    }
    let usage = certificate.extended_key_usage().map_err(|_| ChainError::Malformed)?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(ChainError::Usage);
    }
    let now = UnixTime::since_unix_epoch(Duration::from_secs(asked.now_unix_secs));
    let verified = verifier.verify_client_cert(first, between, now);
    verified.map_err(|error| ChainError::Untrusted(error.to_string()))?;
    let chain_pem = chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
    Ok(Signed { chain_pem, not_after_unix_secs })
}

fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|_| ChainError::Pem)? {
            (SectionKind::Certificate, der) => chain.push(CertificateDer::from(der)),
            (other, _) => return Err(ChainError::Section(format!("{other:?}"))),
        }
    }
    if !(1..=MOST_CERTIFICATES).contains(&chain.len()) {
        return Err(ChainError::Count(chain.len()));
    }
    let bytes = chain.iter().map(|der| der.len()).sum();
    if bytes > MOST_CHAIN_BYTES { Err(ChainError::Large(bytes)) } else { Ok(chain) }
}

fn is_key_of(certificate: &X509Certificate<'_>, request_der: &[u8]) -> bool {
    X509CertificationRequest::from_der(request_der).is_ok_and(|(_, request)| {
        request.certification_request_info.subject_pki.raw == certificate.public_key().raw
    })
}

/// As the listener reads who a peer is: exactly one URI, whatever other names there are.
fn check_name(certificate: &X509Certificate<'_>, expected: &str) -> Result<(), ChainError> {
    let names = certificate.subject_alternative_name().map_err(|_| ChainError::Malformed)?;
    let uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
    let actual: Vec<String> = uris.collect();
    if actual == [expected] {
        Ok(())
    } else {
        Err(ChainError::Name { actual, expected: expected.to_owned() })
    }
}

/// When it ends.
fn check_validity(
    certificate: &X509Certificate<'_>,
    asked: &ToSign,
    slack_secs: u64,
) -> Result<u64, ChainError> {
    let (from, to) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let unfit = || ChainError::Validity {
        from,
        to,
        asked_from: asked.not_before_unix_secs,
        asked_to: asked.not_after_unix_secs,
        slack: slack_secs,
    };
    let (begins, ends) = (u64::try_from(from).map_err(|_| unfit())?, u64::try_from(to).map_err(|_| unfit())?);
    let is_within = begins >= asked.not_before_unix_secs.saturating_sub(slack_secs)
        && begins <= asked.now_unix_secs
        && ends <= asked.not_after_unix_secs.saturating_add(slack_secs);
    if !is_within {
        return Err(unfit());
    }
    let wanted = asked.not_after_unix_secs.saturating_sub(asked.now_unix_secs);
    if ends < asked.now_unix_secs.saturating_add(wanted / 2) {
        return Err(ChainError::Short { to, asked: wanted });
    }
    Ok(ends)
}
