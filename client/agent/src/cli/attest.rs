//! What an enrollment shows of this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use client::tpm::{DEVICE, KeyKind, Tpm, certificates};

use super::path;

/// The registers that say with what the machine was started.
const REGISTERS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// What is shown, where the coordinator asks for it.
#[derive(Args)]
pub(super) struct AttestArgs {
    /// Show the coordinator what this machine is, where it asks for that
    #[arg(long, value_name = "KIND")]
    attest: Option<Kind>,
    /// The device of the TPM, or the Unix socket of a simulated one [default: /dev/tpmrm0]
    #[arg(long, value_name = "PATH", value_parser = path(), requires = "attest")]
    tpm: Option<PathBuf>,
    /// The registers of its bank of SHA-256 that are shown, with commas between them; the coordinator says which it asks for
    /// where it turns others away [default: 0,1,2,3,4,5,6,7]
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        value_parser = value_parser!(u8).range(0..24),
        requires = "attest"
    )]
    tpm_registers: Option<Vec<u8>>,
    /// The kind of its key [default: ecc]
    #[arg(long, value_name = "KIND", requires = "attest")]
    tpm_key: Option<Key>,
    /// A file (PEM) with the certificate of its key, and of those that vouch for it, where it has one
    #[arg(long, value_name = "FILE", value_parser = path(), requires = "attest")]
    tpm_certificate: Option<PathBuf>,
}

/// What says what the machine is: its TPM 2.0, by what its registers hold.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Tpm,
}

/// The kind of a key: ECDSA on P-256, or RSA of 2048 bits.
#[derive(Clone, Copy, ValueEnum)]
enum Key {
    Ecc,
    Rsa,
}

impl AttestArgs {
    /// The TPM that is to be asked, if one is. Fails where a file cannot be used.
    pub(super) fn read(&self) -> anyhow::Result<Option<Tpm>> {
        let Some(Kind::Tpm) = self.attest else { return Ok(None) };
        let registers = self.tpm_registers.as_deref().unwrap_or(&REGISTERS);
        let certificates = match &self.tpm_certificate {
            None => Vec::new(),
            Some(path) => certificates(path)?,
        };
        Ok(Some(Tpm {
            path: self.tpm.clone().unwrap_or_else(|| PathBuf::from(DEVICE)),
            registers: registers.iter().copied().collect(),
            key: match self.tpm_key.unwrap_or(Key::Ecc) {
                Key::Ecc => KeyKind::Ecc,
                Key::Rsa => KeyKind::Rsa,
            },
            certificates,
        }))
    }
}
