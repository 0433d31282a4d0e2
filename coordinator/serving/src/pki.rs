//! A certificate authority for development and small installations.
//!
//! All keys are ECDSA P-256.
//! Certificates say by their key usage what they are good for: a server's
//! cannot pose as a device, nor a device's as a server. What a device asks for
//! in its signing request is ignored but for the key.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use proto::files::{self, Audience, FileError};
use proto::role::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use ring::rand::SecureRandom;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};
use shell::keys::{self, KeyFileError};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::peer::{self, AdminName};

mod identity;

pub use identity::{Identity, IdentityLock, IdentityRequest};

const CA_CERTIFICATE_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";

/// Why a certificate or a key could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{} does not hold {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The authority's certificate belongs to another key.
    #[error("{} is not the certificate of the key beside it", path.display())]
    KeyMismatch {
        /// The certificate's file.
        path: PathBuf,
    },
    /// A device's signing request is malformed, or its signature is wrong.
    #[error("the certificate signing request is refused: {0}")]
    Request(rcgen::Error),
    /// A device's key is of another kind than ECDSA P-256.
    #[error("the certificate signing request has a key that is not ECDSA P-256")]
    RequestKey,
    /// The times are out of order, or beyond what a certificate can say.
    #[error("a certificate cannot be valid from {not_before_unix_secs} to {not_after_unix_secs}")]
    Validity {
        /// The first second.
        not_before_unix_secs: u64,
        /// The last second.
        not_after_unix_secs: u64,
    },
    /// A name cannot stand in a certificate.
    #[error("the server name {0:?} cannot stand in a certificate")]
    ServerName(String),
    /// Making a certificate failed.
    #[error("a certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error("the system gave no randomness")]
    Randomness,
}

/// From when to when a certificate is valid, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before_unix_secs: u64,
    /// The last second.
    pub not_after_unix_secs: u64,
}

/// A certificate that lasts so much longer than one of now was made by a clock that was ahead, in seconds. Clocks of peers
/// may be this much behind ours: a day.
pub const CLOCK_SLACK_SECS: u64 = 24 * 3600;

impl Validity {
    /// For so many seconds from now on, and a little before for clocks that are behind.
    pub fn lasting(secs: u64, now_unix_secs: u64) -> Self {
        Self {
            not_before_unix_secs: now_unix_secs.saturating_sub(CLOCK_SLACK_SECS),
            not_after_unix_secs: now_unix_secs.saturating_add(secs),
        }
    }
}

/// Whether a certificate is to be made anew: two thirds of its life are over, or its life begins only later, because it was
/// made by a clock that was ahead.
pub fn is_due(expires_unix_secs: u64, life_secs: u64, now_unix_secs: u64) -> bool {
    let left = expires_unix_secs.saturating_sub(now_unix_secs);
    left <= life_secs / 3 || left > life_secs.saturating_add(CLOCK_SLACK_SECS)
}

/// A certificate authority: it vouches for servers, devices and administrators.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    expires_unix_secs: u64,
}

impl Authority {
    /// Loads the authority from a folder (`ca.pem`, `ca.key`), or makes it
    /// there with the given validity. Fails when the key is readable by
    /// others, when a file is malformed, or when the two do not belong
    /// together.
    pub fn open_or_create(folder: &Path, validity: Validity) -> Result<Self, PkiError> {
        files::create_folder(folder)?;
        let key = keys::load_or_create_tls_key(&folder.join(CA_KEY_FILE))?;
        let path = folder.join(CA_CERTIFICATE_FILE);
        let certificate = match files::read(&path) {
            Ok(pem) => CertificateDer::from_pem_slice(&pem)
                .map_err(|_| PkiError::Malformed { path: path.clone(), expected: "a PEM certificate" })?,
            Err(error) if error.is_absent() => {
                let certificate = authority_params(validity)?.self_signed(&key)?;
                files::write(&path, certificate.pem().as_bytes(), Audience::Anyone)?;
                certificate.into()
            }
            Err(error) => return Err(error.into()),
        };
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| PkiError::Malformed { path: path.clone(), expected: "a certificate" })?;
        if *parsed.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(PkiError::KeyMismatch { path });
        }
        // One that ended before 1970 has ended.
        let expires_unix_secs = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, expires_unix_secs })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When its certificate ends, and with it everything that it signed.
    pub fn expires_unix_secs(&self) -> u64 {
        self.expires_unix_secs
    }

    /// Makes a key and a certificate for a server with these names or
    /// addresses, and always `localhost`, `127.0.0.1` and `::1`.
    pub fn issue_server(
        &self,
        names: &[String],
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<Identity, PkiError> {
        let mut params = leaf_params("nightshift coordinator", validity, rng)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let always = ["localhost", "127.0.0.1", "::1"];
        for name in always.into_iter().chain(names.iter().map(String::as_str)) {
            let name = server_name(name)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        self.issue(&params)
    }

    /// Makes a key and a certificate for an administrator in a role.
    pub fn issue_admin(
        &self,
        (name, role): (&AdminName, Role),
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<Identity, PkiError> {
        let params = admin_params((name, role), validity, rng)?;
        self.issue(&params)
    }

    /// The same as [`Authority::sign_device`], for a request in PEM, and the certificate in PEM.
    pub fn sign_device_pem(
        &self,
        request_pem: &str,
        device: &[u8; 16],
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<String, PkiError> {
        Ok(pem(&self.sign_device(&request_der(request_pem)?, device, validity, rng)?))
    }

    /// Signs a device's request: the certificate names the device and is good
    /// for connecting to us only. Fails when the request does not prove that
    /// the device has the key, or the key is not ECDSA P-256.
    pub fn sign_device(
        &self,
        request_der: &[u8],
        device: &[u8; 16],
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let params = client_params(&hex::encode(device), &peer::device_uri(device), validity, rng)?;
        self.sign(request_der, params)
    }

    /// Signs an administrator's request, in PEM, as [`Authority::sign_device`] does a device's.
    pub fn sign_admin(
        &self,
        request_pem: &str,
        (name, role): (&AdminName, Role),
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let params = admin_params((name, role), validity, rng)?;
        self.sign(&request_der(request_pem)?, params)
    }

    /// Signs the request of a coordinator that is to call an enrollment authority, in PEM, as [`Authority::sign_device`] does a
    /// device's.
    pub fn sign_coordinator(
        &self,
        request_pem: &str,
        name: &AdminName,
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let params = client_params(name.as_str(), &peer::coordinator_uri(name), validity, rng)?;
        self.sign(&request_der(request_pem)?, params)
    }

    /// A certificate and this authority's own, in PEM.
    pub fn chain_pem(&self, certificate: &CertificateDer<'_>) -> String {
        pem(certificate) + &pem(&self.certificate)
    }

    /// Of a request nothing counts but the key.
    fn sign(
        &self,
        request_der: &[u8],
        params: CertificateParams,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let request = CertificateSigningRequestDer::from(request_der);
        let mut request = CertificateSigningRequestParams::from_der(&request).map_err(PkiError::Request)?;
        if !is_p256(request_der) {
            return Err(PkiError::RequestKey);
        }
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.into())
    }

    fn issue(&self, params: &CertificateParams) -> Result<Identity, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            chain: vec![certificate.into(), self.certificate.clone()],
            key: Zeroizing::new(key.serialize_der()),
        })
    }
}

/// A device's request in DER, whose signature holds and whose key is ECDSA P-256.
pub fn check_request(request_pem: &str) -> Result<Vec<u8>, PkiError> {
    let request = request_der(request_pem)?;
    CertificateSigningRequestParams::from_der(&request).map_err(PkiError::Request)?;
    if is_p256(&request) { Ok(request.to_vec()) } else { Err(PkiError::RequestKey) }
}

fn request_der(pem: &str) -> Result<CertificateSigningRequestDer<'static>, PkiError> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| PkiError::Request(rcgen::Error::CouldNotParseCertificationRequest))
}

/// Whether the key of a signing request is on the curve P-256. What a request is signed with does not say so: its
/// hash is the same for other curves.
fn is_p256(request_der: &[u8]) -> bool {
    let Ok((_, request)) = X509CertificationRequest::from_der(request_der) else { return false };
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    // Two coordinates of 32 bytes each, not compressed.
    let point = &*key.subject_public_key.data;
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && point.len() == 65
        && point.first() == Some(&4)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate as PEM.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    shell::pem::encode("CERTIFICATE", certificate)
}

fn authority_params(validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, validity)?;
    params.distinguished_name = common_name("nightshift authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The role stands in the certificate as its organizational unit.
fn admin_params(
    (name, role): (&AdminName, Role),
    validity: Validity,
    rng: &dyn SecureRandom,
) -> Result<CertificateParams, PkiError> {
    let mut params = client_params(name.as_str(), &peer::admin_uri(name), validity, rng)?;
    params.distinguished_name.push(DnType::OrganizationalUnitName, role.as_str());
    Ok(params)
}

fn client_params(
    name: &str,
    uri: &str,
    validity: Validity,
    rng: &dyn SecureRandom,
) -> Result<CertificateParams, PkiError> {
    let mut params = leaf_params(name, validity, rng)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}

fn leaf_params(
    name: &str,
    validity: Validity,
    rng: &dyn SecureRandom,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, validity)?;
    let mut serial = [0; 16];
    rng.fill(&mut serial).map_err(|_| PkiError::Randomness)?;
    // RFC 5280, 4.1.2.2: a serial number is positive.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), PkiError> {
    let Validity { not_before_unix_secs, not_after_unix_secs } = validity;
    let refused = || PkiError::Validity { not_before_unix_secs, not_after_unix_secs };
    let time = |unix_secs: u64| {
        let unix_secs = i64::try_from(unix_secs).map_err(|_| refused())?;
        OffsetDateTime::from_unix_timestamp(unix_secs).map_err(|_| refused())
    };
    if not_before_unix_secs > not_after_unix_secs {
        return Err(refused());
    }
    params.not_before = time(not_before_unix_secs)?;
    params.not_after = time(not_after_unix_secs)?;
    Ok(())
}

fn server_name(name: &str) -> Result<SanType, PkiError> {
    let refused = || PkiError::ServerName(name.to_owned());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    rustls::pki_types::DnsName::try_from(name).map_err(|_| refused())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| refused())?))
}

impl From<KeyFileError> for PkiError {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::File(error) => Self::File(error),
            KeyFileError::Malformed { path, expected } => Self::Malformed { path, expected },
            KeyFileError::Make(error) => Self::Issue(error),
            KeyFileError::Randomness => Self::Randomness,
        }
    }
}

#[cfg(test)]
mod tests;
