//! Who shows a certificate: its chain and the key to it.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use proto::files::{self, Audience, FileError};
use proto::ids::Serial;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use shell::keys::load_tls_key;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::{PkiError, pem};
use crate::peer::{Certified, Peer, read_certificate};

/// A certificate chain, the authority's own at its end, and the key of its
/// first certificate.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// While this is held, nobody else who asks for it changes an identity's files.
#[derive(Debug)]
pub struct IdentityLock(#[expect(dead_code, reason = "closed when it is dropped")] File);

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
    /// Loads what [`Identity::save`] wrote: `<name>.pem` and `<name>.key` in a folder, or what a save has put aside that
    /// broke off between the two, which is then brought to its end. Fails when the key is readable by others than its owner.
    pub fn load(folder: &Path, name: &str) -> Result<Self, PkiError> {
        let Paths { chain, key, next, .. } = Paths::of(folder, name);
        let pair = || Self::read(&chain, &key);
        let error = match pair() {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let Ok(identity) = Self::read(&next, &next) else {
            // Who was between the two files has ended since.
            return pair().map_err(|_| error);
        };
        // A save that is under way ends by itself, and where none can be ended here, the next one does it.
        let Ok(Some(_lock)) = IdentityLock::take(folder, name) else { return Ok(identity) };
        match (pair(), Self::read(&next, &next)) {
            (Ok(ended), _) => Ok(ended),
            (Err(_), Ok(identity)) => {
                drop(identity.save(folder, name));
                Ok(identity)
            }
            (Err(_), Err(_)) => Ok(identity),
        }
    }

    /// An identity from files in PEM, which may be one.
    fn read(chain_path: &Path, key_path: &Path) -> Result<Self, PkiError> {
        let pem = Zeroizing::new(files::read(chain_path)?);
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| chain.len() >= 2)
            .ok_or_else(|| PkiError::Malformed {
                path: chain_path.to_owned(),
                expected: "a PEM certificate and its authority's",
            })?;
        let key = load_tls_key(key_path)?;
        // A crash while they were written may have left one of each.
        if !fits(&chain, &key) {
            return Err(PkiError::KeyMismatch { path: chain_path.to_owned() });
        }
        Ok(Self { chain, key: Zeroizing::new(key.serialize_der()) })
    }

    /// A new key, and the request to sign it, in PEM.
    pub fn request() -> Result<(IdentityRequest, String), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok((IdentityRequest(Zeroizing::new(key.serialize_der())), request))
    }

    /// Writes `<name>.pem` and `<name>.key` (mode 0600) into a folder. Both are put aside as one file before (`<name>.next`), so
    /// that whatever breaks off leaves the identity of before or this one. One at a time: whoever may meet another takes an
    /// [`IdentityLock`] first.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), PkiError> {
        files::create_folder(folder)?;
        for (path, bytes, audience) in self.writes(folder, name)? {
            files::write(&path, &bytes, audience)?;
        }
        let next = Paths::of(folder, name).next;
        fs::remove_file(&next).map_err(FileError::io("remove", &next))?;
        Ok(files::sync_folder(folder)?)
    }

    /// What is written to save it, in this order.
    fn writes(&self, folder: &Path, name: &str) -> Result<[Write; 3], PkiError> {
        let Paths { chain: chain_path, key: key_path, next, .. } = Paths::of(folder, name);
        let key = KeyPair::try_from(self.key.as_slice())?;
        let key = Zeroizing::new(key.serialize_pem().into_bytes());
        let chain: String = self.chain.iter().map(|der| pem(der)).collect();
        let both = Zeroizing::new([key.as_slice(), chain.as_bytes()].concat());
        Ok([
            (next, both, Audience::Owner),
            (key_path, key, Audience::Owner),
            (chain_path, Zeroizing::new(chain.into_bytes()), Audience::Anyone),
        ])
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

    /// Whether the certificate is an operator's.
    pub fn is_operators(&self) -> bool {
        let read = self.chain.first().map(|leaf| read_certificate(leaf));
        matches!(read, Some(Ok(Certified { peer: Peer::Admin(_), .. })))
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
}

/// A file that is written: where, what, and for whom.
type Write = (PathBuf, Zeroizing<Vec<u8>>, Audience);

/// The files of an identity.
struct Paths {
    chain: PathBuf,
    key: PathBuf,
    /// Both, while they are exchanged.
    next: PathBuf,
    lock: PathBuf,
}

impl Paths {
    fn of(folder: &Path, name: &str) -> Self {
        let file = |end| folder.join(format!("{name}.{end}"));
        Self { chain: file("pem"), key: file("key"), next: file("next"), lock: file("lock") }
    }
}

impl IdentityLock {
    /// Takes the lock of an identity in a folder that is there; none where another process, or another part of this one, has it.
    pub fn take(folder: &Path, name: &str) -> Result<Option<Self>, PkiError> {
        let path = Paths::of(folder, name).lock;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&path).map_err(FileError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(FileError::io("lock", &path)(error).into()),
        }
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

#[cfg(test)]
mod tests {
    use proto::role::Role;
    use ring::rand::SystemRandom;

    use super::*;
    use crate::pki::{Authority, Validity};

    #[test]
    fn wherever_a_save_breaks_off_there_is_the_identity_of_before_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let validity = Validity { not_before_unix_secs: 1_700_000_000, not_after_unix_secs: 1_900_000_000 };
        let authority = Authority::open_or_create(folder.path(), validity).unwrap();
        let name = "owl".parse().unwrap();
        let issue = || authority.issue_admin((&name, Role::Viewer), validity, &SystemRandom::new()).unwrap();
        let (before, after) = (issue(), issue());
        assert_ne!(before.serial(), after.serial());
        let serial = |path: &Path| Identity::load(path, "owl").unwrap().serial();
        for writes in 0..=3 {
            for is_locked in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                before.save(folder.path(), "owl").unwrap();
                for (path, bytes, audience) in
                    after.writes(folder.path(), "owl").unwrap().into_iter().take(writes)
                {
                    files::write(&path, &bytes, audience).unwrap();
                }
                let lock = is_locked.then(|| IdentityLock::take(folder.path(), "owl").unwrap().unwrap());
                let expected = if writes < 2 { before.serial() } else { after.serial() };
                assert_eq!(serial(folder.path()), expected, "after {writes} writes");
                drop(lock);
                // And once it is looked at by whoever may write, the two files alone are it.
                assert_eq!(serial(folder.path()), expected);
                let Paths { chain, key, .. } = Paths::of(folder.path(), "owl");
                assert_eq!(Identity::read(&chain, &key).unwrap().serial(), expected);
            }
        }
    }

    #[test]
    fn of_two_who_would_change_an_identity_one_waits() {
        let folder = tempfile::tempdir().unwrap();
        let take = || IdentityLock::take(folder.path(), "owl").unwrap();
        let first = take();
        assert!(first.is_some() && take().is_none());
        drop(first);
        assert!(take().is_some());
    }
}
