//! The file by which a coordinator finds its enrollment authority: where it is, the key that verifies what it states, and a
//! certificate with its key by which the coordinator may call. TOML, mode 0600. Whoever has it may enroll devices by tokens, renew
//! them by their keys, read the log, have versions written into it, say where new tokens of its name lead, and revoke any
//! device.

use std::fmt;
use std::io::{ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

use aggregation::IdentityPublic;
use proto::files::{self, Audience, FileError};
use serde::{Deserialize, Serialize};
use serving::pki::{Identity, PkiError};
use zeroize::Zeroizing;

const MOST_BYTES: usize = 64 << 10;

/// More than a file that is written has: two certificates and a key.
const MOST_WRITTEN_BYTES: usize = 16 << 10;

/// Why such a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read or written, or is readable by others.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its certificate or key cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It is something else.
    #[error(
        "{} is no file of `nightshift-authority coordinator-file`: {why}; make another one, or copy it again", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Something else is there that would be lost.
    #[error(
        "{} is there already, and is no file of this authority for a coordinator (mode 0600): it is left as it is; name another file, or \
         remove it", .0.display()
    )]
    Taken(PathBuf),
}

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError<E> {
    /// It cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// There is nothing to write.
    #[error(transparent)]
    Made(E),
}

impl<E> From<FileError> for SaveError<E> {
    fn from(error: FileError) -> Self {
        Self::Bundle(error.into())
    }
}

/// What such a file holds.
#[derive(Debug)]
pub struct Bundle {
    /// Where the authority listens, `host:port`.
    pub address: String,
    /// The key that verifies what it states of devices.
    pub enrollment_key: IdentityPublic,
    /// What a coordinator shows to it; the authority's certificate is the last of its chain.
    pub identity: Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    address: String,
    enrollment_key: String,
    ca_certificate: String,
    certificate: String,
    key: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads a file. Fails where it is another one, or is readable by others than its owner.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        let bytes = Zeroizing::new(files::read_secret(path)?);
        let malformed = |why: String| BundleError::Malformed { path: path.to_owned(), why };
        if bytes.len() > MOST_BYTES {
            return Err(malformed(format!("it has more than {MOST_BYTES} bytes")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed("it is not text".to_owned()))?;
        // What the parser says may repeat a line of it, where the key is.
        let written: Written = toml::from_str(text)
            .map_err(|error: toml::de::Error| malformed(format!("it cannot be read: {}", error.message())))?;
        let mut key = [0; 32];
        hex::decode_to_slice(&written.enrollment_key, &mut key)
            .map_err(|_| malformed("enrollment_key is not 64 hexadecimal digits".to_owned()))?;
        let enrollment_key = IdentityPublic(key);
        enrollment_key.check().map_err(|error| malformed(error.to_string()))?;
        let chain = format!("{}{}", written.certificate, written.ca_certificate);
        let identity = Identity::from_pem(&chain, &written.key, path)?;
        Ok(Self { address: written.address.clone(), enrollment_key, identity })
    }

    /// Writes the file, mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), BundleError> {
        Ok(files::write(path, self.text(path)?.as_bytes(), Audience::Owner)?)
    }

    /// Writes the file of what is made, mode 0600. It is made once it is known that it can be written: there is room for it, and nothing
    /// at `path` but a file of the same authority, which has `enrollment_key`. Where it is not made, all is as it was. Blocks.
    pub fn save_made<E>(
        path: &Path,
        enrollment_key: IdentityPublic,
        make: impl FnOnce() -> Result<Self, E>,
    ) -> Result<Self, SaveError<E>> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::io("look at", path)(error).into()),
            Ok(_) => {
                let there = Self::load(path).ok();
                let is_ours = there.is_some_and(|there| there.enrollment_key == enrollment_key);
                if !is_ours {
                    return Err(BundleError::Taken(path.to_owned()).into());
                }
            }
        }
        let mut made = None;
        files::write_with(path, Audience::Owner, |file| {
            let unwritten = FileError::io("write", path);
            let room = file.write_all(&[b'\n'; MOST_WRITTEN_BYTES]).and_then(|()| file.sync_all());
            room.and_then(|()| file.rewind()).map_err(unwritten)?;
            let bundle = make().map_err(SaveError::Made)?;
            let text = bundle.text(path)?;
            let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
            written.map_err(FileError::io("write", path))?;
            made = Some(bundle);
            Ok::<(), SaveError<E>>(())
        })?;
        made.ok_or_else(|| BundleError::Taken(path.to_owned()).into())
    }

    fn text(&self, path: &Path) -> Result<Zeroizing<String>, BundleError> {
        let malformed = |why: String| BundleError::Malformed { path: path.to_owned(), why };
        let (chain, key) = self.identity.to_pem()?;
        let end = "-----END CERTIFICATE-----\n";
        let at = chain.find(end).map_or(chain.len(), |at| at + end.len());
        let (certificate, ca_certificate) = chain.split_at(at);
        let written = Written {
            address: self.address.clone(),
            enrollment_key: hex::encode(self.enrollment_key.0),
            ca_certificate: ca_certificate.to_owned(),
            certificate: certificate.to_owned(),
            key: key.as_str().to_owned(),
        };
        let text = toml::to_string(&written).map_err(|error| malformed(error.to_string()))?;
        Ok(Zeroizing::new(format!(
            "# By this file a coordinator asks its enrollment authority. Keep it secret: whoever has it may call in its place.\n{text}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityKey;
    use ring::rand::SystemRandom;
    use serving::pki::{Authority, Validity};

    use super::*;

    fn bundle(folder: &Path) -> Bundle {
        let validity = Validity::lasting(1000, 1_800_000_000);
        let authority = Authority::open_or_create(folder, validity).unwrap();
        let (key, request) = Identity::request().unwrap();
        let name = "owl".parse().unwrap();
        let signed = authority.sign_coordinator(&request, &name, validity, &SystemRandom::new()).unwrap();
        let identity = key.with_chain(&authority.chain_pem(&signed)).unwrap();
        let enrollment_key = IdentityKey::from_seed(&[1; 32]).public();
        Bundle { address: "localhost:7445".into(), enrollment_key, identity }
    }

    #[test]
    fn a_file_is_read_back_and_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (made, path) = (bundle(folder.path()), folder.path().join("owl.toml"));
        made.save(&path).unwrap();
        let read = Bundle::load(&path).unwrap();
        assert_eq!((&read.address, read.enrollment_key), (&made.address, made.enrollment_key));
        assert_eq!(read.identity.chain(), made.identity.chain());
        assert_eq!(read.identity.key(), made.identity.key());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(Bundle::load(&path), Err(BundleError::File(_))));
        }
    }

    #[test]
    fn nothing_is_made_where_it_cannot_be_written_or_something_else_would_be_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("owl.toml"), folder.path().join("authority.toml"));
        let ours = bundle(folder.path()).enrollment_key;
        let mut times = 0;
        let mut make = |path: &Path, key| {
            Bundle::save_made(path, key, || {
                times += 1;
                Ok::<_, BundleError>(bundle(folder.path()))
            })
        };
        std::fs::write(&other, "listen = '127.0.0.1:1'").unwrap();
        for refused in [&folder.path().join("nowhere/owl.toml"), &other, &folder.path().to_owned()] {
            let error = make(refused, ours).unwrap_err();
            assert!(matches!(error, SaveError::Bundle(_)), "{error}");
        }
        let taken = make(&other, ours).unwrap_err().to_string();
        assert!(taken.contains("authority.toml is there already"), "{taken}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "listen = '127.0.0.1:1'");
        let made = make(&path, ours).unwrap();
        assert_eq!(Bundle::load(&path).unwrap().identity.chain(), made.identity.chain());
        // Its own file is replaced, that of another authority is not.
        make(&path, ours).unwrap();
        assert!(make(&path, IdentityKey::from_seed(&[2; 32]).public()).is_err());
        assert_eq!(times, 2, "only what could be written was made");
        // What is not made leaves what was there.
        let before = std::fs::read(&path).unwrap();
        let refused = Bundle::save_made(&path, ours, || Err("refused"));
        assert!(matches!(refused, Err(SaveError::Made("refused"))));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|at| at.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with("aside")), "{left:?}");
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_refused_and_its_key_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owl.toml");
        bundle(folder.path()).save(&path).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let (_, secret) = whole.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
        let secret = secret.trim().lines().next().unwrap();
        let refused = |text: &str| {
            files::write(&path, text.as_bytes(), Audience::Owner).unwrap();
            let error = Bundle::load(&path).unwrap_err().to_string();
            assert!(error.contains("owl.toml") && !error.contains(secret), "{error}");
            error
        };
        assert!(refused(&whole[..whole.len() / 2]).contains("coordinator-file"));
        assert!(refused(&whole.replace("address", "adress")).contains("unknown field"));
        assert!(
            refused(&whole.replace("enrollment_key = \"", "enrollment_key = \"zz"))
                .contains("64 hexadecimal")
        );
        let at = whole.find(secret).unwrap() + 20;
        let mut flipped = whole.clone().into_bytes();
        flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
        refused(&String::from_utf8(flipped).unwrap());
        refused("");
    }
}
