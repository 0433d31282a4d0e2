//! Why hooks cannot be used, which is said before anything is served; and what is read then.

use std::path::{Path, PathBuf};

use proto::files;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The most bytes of a file of certificates.
const MOST_BYTES: u64 = 1 << 20;

/// Why hooks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read, or does not hold what it should.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An address leads to nobody who may be asked.
    #[error(
        "{0:?} is no address of a service: https://HOST/PATH, or http://127.0.0.1:PORT/PATH on this machine"
    )]
    Address(String),
    /// A value of a register cannot be read.
    #[error("attestation.registers: {0}")]
    Register(String),
}

/// All certificates of a file in PEM; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let unusable = |why: String| OpenError::Unusable { path: path.to_owned(), why };
    let pem = files::read_regular(path, MOST_BYTES).map_err(|error| unusable(error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read = read.map_err(|error| unusable(format!("it is not in PEM: {error}")))?;
    if read.is_empty() { Err(unusable("it holds no certificate in PEM".to_owned())) } else { Ok(read) }
}
