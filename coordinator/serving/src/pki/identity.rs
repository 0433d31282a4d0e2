//! Who shows a certificate: its chain and the key to it.

use std::fmt;
use std::path::{Path, PathBuf};

use proto::files::{self, Audience};
use proto::ids::Serial;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use shell::keys::load_tls_key;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::{PkiError, pem};
use crate::peer::read_certificate;

/// A certificate chain, the authority's own at its end, and the key of its
/// first certificate.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// A key whose certificate is asked for.
pub struct IdentityRequest(Zeroizing<Vec<u8>>);

impl IdentityRequest {
    /// The identity of this key and the certificates that came for it, in PEM, the authority's at the end.
    pub fn with_chain(self, pem: &str) -> Result<Identity, PkiError> {
        let malformed = || PkiError::Malformed {
            path: PathBuf::from("the coordinator's answer"),
            expected: "a PEM certificate and its authority's",
        };
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| chain.len() >= 2).ok_or_else(malformed)?;
        Ok(Identity { chain, key: self.0 })
    }
}

impl fmt::Debug for IdentityRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityRequest").finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads what [`Identity::save`] wrote: `<name>.pem` and `<name>.key` in a
    /// folder. Fails when the key is readable by others than its owner.
    pub fn load(folder: &Path, name: &str) -> Result<Self, PkiError> {
        let (chain_path, key_path) = Self::paths(folder, name);
        let pem = files::read(&chain_path)?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| chain.len() >= 2)
            .ok_or_else(|| PkiError::Malformed {
                path: chain_path.clone(),
                expected: "a PEM certificate and its authority's",
            })?;
        let key = load_tls_key(&key_path)?;
        // A crash while they were written may have left one of each.
        if !fits(&chain, &key) {
            return Err(PkiError::KeyMismatch { path: chain_path });
        }
        Ok(Self { chain, key: Zeroizing::new(key.serialize_der()) })
    }

    /// A new key, and the request to sign it, in PEM.
    pub fn request() -> Result<(IdentityRequest, String), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok((IdentityRequest(Zeroizing::new(key.serialize_der())), request))
    }

    /// Writes `<name>.pem` and `<name>.key` (mode 0600) into a folder.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), PkiError> {
        let (chain_path, key_path) = Self::paths(folder, name);
        files::create_folder(folder)?;
        let (chain, key_pem) = self.to_pem()?;
        files::write(&key_path, key_pem.as_bytes(), Audience::Owner)?;
        files::write(&chain_path, chain.as_bytes(), Audience::Anyone)?;
        Ok(())
    }

    /// An identity of a certificate and its authority's, in PEM, and the key, in PEM (PKCS #8). Fails where they are not that, or
    /// the key is another certificate's; `path` is for messages only.
    pub fn from_pem(chain_pem: &str, key_pem: &str, path: &Path) -> Result<Self, PkiError> {
        let malformed = |expected| PkiError::Malformed { path: path.to_owned(), expected };
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| chain.len() >= 2);
        let chain = chain.ok_or_else(|| malformed("a PEM certificate and its authority's"))?;
        let key = KeyPair::from_pem(key_pem).ok().filter(|key| key.is_compatible(&PKCS_ECDSA_P256_SHA256));
        let key = key.ok_or_else(|| malformed("a PEM private key (PKCS #8, ECDSA P-256)"))?;
        if !fits(&chain, &key) {
            return Err(PkiError::KeyMismatch { path: path.to_owned() });
        }
        Ok(Self { chain, key: Zeroizing::new(key.serialize_der()) })
    }

    /// The chain and the key, in PEM.
    pub fn to_pem(&self) -> Result<(String, Zeroizing<String>), PkiError> {
        let key = KeyPair::try_from(self.key.as_slice())?;
        Ok((self.chain.iter().map(|der| pem(der)).collect(), Zeroizing::new(key.serialize_pem())))
    }

    /// The certificate, then its authority's.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The number by which the certificate is revoked, where it has one.
    pub fn serial(&self) -> Option<Serial> {
        read_certificate(self.chain.first()?).ok()?.serial
    }

    /// When the certificate ends, in seconds since 1970, and when that of its authority does; `None` where one cannot be read.
    pub fn ends_unix_secs(&self) -> Option<(u64, u64)> {
        let ends = |certificate: &[u8]| {
            let (_, read) = X509Certificate::from_der(certificate).ok()?;
            u64::try_from(read.validity().not_after.timestamp()).ok()
        };
        Some((ends(self.chain.first()?)?, ends(self.chain.last()?)?))
    }

    /// The authority's certificate, with which the chain ends.
    pub fn authority(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// A copy of the key, for TLS.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }

    fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let file = |end| folder.join(format!("{name}.{end}"));
        (file("pem"), file("key"))
    }
}

/// Whether the first certificate is of this key.
fn fits(chain: &[CertificateDer<'_>], key: &KeyPair) -> bool {
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    leaf.is_some_and(|(_, leaf)| *leaf.public_key().subject_public_key.data == *key.der_bytes())
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
