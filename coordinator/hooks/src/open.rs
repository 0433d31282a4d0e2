//! Why hooks cannot be used, which is said before anything is served; and what is read then.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serving::post;

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
    post::certificates(path).map_err(|why| OpenError::Unusable { path: path.to_owned(), why })
}
