//! Whether an authority vouches for the key of a TPM.

use std::time::Duration;

use proto::attestation::Quote;
use proto::tpm::Public;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// tcg-kp-AIKCertificate, 2.23.133.8.3: a key that signs what a TPM says, in DER without its head.
const ATTESTATION_KEY: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

/// Fails, with words for the device, unless the quote's first certificate is of this key and leads to one of `roots`.
pub(crate) fn check(
    quote: &Quote,
    key: &Public,
    roots: &[CertificateDer<'static>],
    now_unix_secs: u64,
) -> Result<(), String> {
    let chain: Vec<CertificateDer<'_>> =
        quote.certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let [first, between @ ..] = chain.as_slice() else {
        return Err("no certificate came with it".to_owned());
    };
    if !is_of(first, key) {
        return Err("the certificate that came with it is of another key".to_owned());
    }
    if !is_for_attestation(first) {
        return Err(
            "the certificate that came with it is not for keys of attestation (2.23.133.8.3)".to_owned()
        );
    }
    let anchors: Result<Vec<_>, _> = roots.iter().map(anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|error| error.to_string())?;
    let refused = |error: webpki::Error| format!("the certificate that came with it is not taken: {error}");
    let certificate = EndEntityCert::try_from(first).map_err(refused)?;
    let verified = certificate.verify_for_usage(
        default_provider().signature_verification_algorithms.all,
        &anchors,
        between,
        UnixTime::since_unix_epoch(Duration::from_secs(now_unix_secs)),
        // Authorities need not say what they vouch for; the key's own certificate has to.
        KeyUsage::required_if_present(ATTESTATION_KEY),
        None,
        None,
    );
    verified.map(drop).map_err(refused)
}

fn is_for_attestation(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.other.iter().any(|oid| oid.as_bytes() == ATTESTATION_KEY))
}

fn is_of(certificate: &[u8], key: &Public) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    match (certificate.public_key().parsed(), key) {
        (Ok(PublicKey::EC(point)), Public::Ecdsa { x, y }) => point.data() == [&[4], &x[..], y].concat(),
        (Ok(PublicKey::RSA(public)), Public::Rsa { modulus, exponent }) => {
            trimmed(public.modulus) == trimmed(modulus)
                && trimmed(public.exponent) == trimmed(&exponent.to_be_bytes())
        }
        (Ok(_) | Err(_), Public::Ecdsa { .. } | Public::Rsa { .. }) => false,
    }
}

/// A number without the zeros before it.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
