//! What this machine's TPM 2.0 says of its registers, for a coordinator that asks for it.
//!
//! The TPM is asked directly, by the few commands that a quote takes: the kernel's device (`/dev/tpmrm0`), or a Unix socket
//! behind which a simulated one answers. The key that signs is a primary key of the endorsement hierarchy, which the TPM derives
//! from its seed: it is the same each time, nothing of it is stored, and it signs nothing but what the TPM itself made.
//! The names in code letters are of the TPM 2.0 Library, part 3: Commands.
#![expect(clippy::disallowed_methods, reason = "IO shell: a TPM that is busy is asked again a moment later")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use proto::attestation::{MOST_CERTIFICATE_BYTES, MOST_CERTIFICATES, Quote};
use proto::ids::Digest;
use proto::tpm::{
    self, ECC, ECDSA, NULL, OF_ATTESTATION, P_256, RSA, RSASSA, Reader, SHA_256, Statement, TpmError,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::files;

/// `TPM_ST_NO_SESSIONS`
const NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`
const SESSIONS: u16 = 0x8002;
/// `TPM2_CreatePrimary`
const CREATE_PRIMARY: u32 = 0x0131;
/// `TPM2_Quote`
const QUOTE: u32 = 0x0158;
/// `TPM2_FlushContext`
const FLUSH_CONTEXT: u32 = 0x0165;
/// `TPM2_PCR_Read`
const PCR_READ: u32 = 0x017e;
/// `TPM_RH_ENDORSEMENT`: in a quote by a key of another hierarchy the TPM hides the version of its firmware.
const ENDORSEMENT: u32 = 0x4000_000b;
/// `TPM_RS_PW`: by a password, which is empty.
const BY_PASSWORD: u32 = 0x4000_0009;
/// `TPMA_OBJECT` `userWithAuth`: the empty password is enough to sign.
const USER_WITH_AUTH: u32 = 1 << 6;
/// `TPM_RC_RETRY`, `TPM_RC_YIELDED`, `TPM_RC_TESTING`: it is busy.
const BUSY: [u32; 3] = [0x922, 0x908, 0x90a];

/// The most bytes of an answer.
const MOST_BYTES: usize = 4096;

/// How often a busy TPM is asked, and how long it is left alone in between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Where the kernel has a TPM, which more than one program may use.
pub const DEVICE: &str = "/dev/tpmrm0";

/// A TPM, and what of it is told to whom asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    /// Its device, or the Unix socket of a simulated one.
    pub path: PathBuf,
    /// The registers, of the bank of SHA-256; at least one, below 24.
    pub registers: BTreeSet<u8>,
    /// The kind of its key.
    pub key: KeyKind,
    /// Certificates of its key, its own first; none where it has none.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    Ecc,
    /// RSA of 2048 bits, which a TPM may take long to make.
    Rsa,
}

/// Why a TPM said nothing.
#[derive(Debug, thiserror::Error)]
pub enum TpmDeviceError {
    /// It cannot be spoken to.
    #[error("the TPM at {} cannot be asked: {source}{}", path.display(), hint(source))]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused a command.
    #[error("the TPM refused {command} with {code:#x}{}", meaning(*code))]
    Refused {
        /// The command.
        command: &'static str,
        /// What it answered (`TPM_RC`).
        code: u32,
    },
    /// What it answered cannot be read.
    #[error("the TPM's answer to {command} cannot be read: {source}")]
    Answer {
        /// The command.
        command: &'static str,
        /// Why.
        source: TpmError,
    },
    /// It has no such register.
    #[error("the TPM holds nothing in register {0} of its bank of SHA-256")]
    Register(u8),
    /// A file of certificates cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Registers changed each time while they were read.
    #[error("the TPM's registers changed while they were read; try again, or leave out those that change")]
    Changed,
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound {
        "; say --tpm PATH where it is, or switch it on in the firmware's settings"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; its users are in the group tss"
    } else {
        ""
    }
}

fn meaning(code: u32) -> &'static str {
    // `TPM_RC_BAD_AUTH` of the first session, `TPM_RC_AUTH_FAIL`, and `TPM_RC_HIERARCHY` of the first handle.
    match code {
        0x9a2 | 0x98e => ", since its endorsement hierarchy has a password",
        0x185 => ", since its endorsement hierarchy is switched off",
        _ => "",
    }
}

impl Tpm {
    /// What it says of its registers, repeating this challenge. Blocks.
    pub fn quote(&self, challenge: &Digest) -> Result<Quote, TpmDeviceError> {
        let mut line = Line::open(&self.path)?;
        let (handle, key) = line.create(self.key)?;
        let quoted = line.quote(handle, &self.registers, challenge);
        // A device without a manager of its resources keeps it otherwise until it is full.
        let flushed = line.call("FlushContext", NO_SESSIONS, FLUSH_CONTEXT, &handle.to_be_bytes());
        let (statement, signature, registers) = quoted?;
        flushed?;
        let certificates = self.certificates.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Quote { key, statement, signature, registers, certificates })
    }
}

/// The certificates of a file in PEM; at least one, and at most as many as may be shown with a quote.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TpmDeviceError> {
    let unusable = |why: String| TpmDeviceError::Certificates { path: path.to_owned(), why };
    let most_bytes = 3 * (MOST_CERTIFICATES * MOST_CERTIFICATE_BYTES) as u64;
    let pem = files::read_regular(path, most_bytes).map_err(|error| unusable(error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read: Vec<CertificateDer<'static>> =
        read.map_err(|error| unusable(format!("it is not in PEM: {error}")))?;
    if !(1..=MOST_CERTIFICATES).contains(&read.len()) {
        return Err(unusable(format!(
            "it holds {} certificates in PEM, expected 1 to {MOST_CERTIFICATES}",
            read.len()
        )));
    }
    if let Some(large) = read.iter().find(|certificate| certificate.len() > MOST_CERTIFICATE_BYTES) {
        let bytes = large.len();
        return Err(unusable(format!("a certificate has {bytes} bytes, more than {MOST_CERTIFICATE_BYTES}")));
    }
    Ok(read)
}

/// A connection to a TPM.
struct Line {
    path: PathBuf,
    stream: Box<dyn Stream>,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A statement, its signature, and what the registers hold.
type Quoted = (Vec<u8>, Vec<u8>, Vec<(u8, Digest)>);

impl Line {
    fn open(path: &Path) -> Result<Self, TpmDeviceError> {
        let unreachable = |source| TpmDeviceError::Unreachable { path: path.to_owned(), source };
        let stream = open(path).map_err(unreachable)?;
        Ok(Self { path: path.to_owned(), stream })
    }

    /// Makes the key: its handle, and its public part.
    fn create(&mut self, kind: KeyKind) -> Result<(u32, Vec<u8>), TpmDeviceError> {
        let command = "CreatePrimary";
        let sensitive = sized(&[sized(&[]), sized(&[])].concat());
        let parameters =
            [sensitive, sized(&template(kind)), sized(&[]), 0_u32.to_be_bytes().to_vec()].concat();
        let body = [&ENDORSEMENT.to_be_bytes()[..], &password(), &parameters].concat();
        let answer = self.call(command, SESSIONS, CREATE_PRIMARY, &body)?;
        let mut reader = Reader::new(&answer);
        let handle = reader.word("handle").map_err(unreadable(command))?;
        reader.word("parameters' length").map_err(unreadable(command))?;
        let key = reader.sized("public area", MOST_BYTES).map_err(unreadable(command))?;
        Ok((handle, key.to_vec()))
    }

    fn quote(
        &mut self,
        handle: u32,
        registers: &BTreeSet<u8>,
        challenge: &Digest,
    ) -> Result<Quoted, TpmDeviceError> {
        let command = "Quote";
        for _ in 0..3 {
            let mut values = Vec::new();
            for register in registers {
                values.push((*register, self.register(*register)?));
            }
            // The scheme is the key's own.
            let parameters =
                [sized(&challenge.0), NULL.to_be_bytes().to_vec(), tpm::selection(registers)].concat();
            let body = [&handle.to_be_bytes()[..], &password(), &parameters].concat();
            let answer = self.call(command, SESSIONS, QUOTE, &body)?;
            let mut reader = Reader::new(&answer);
            let bytes = reader.word("parameters' length").map_err(unreadable(command))?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let mut parameters = Reader::new(reader.take("parameters", bytes).map_err(unreadable(command))?);
            let statement = parameters.sized("statement", MOST_BYTES).map_err(unreadable(command))?;
            let read = Statement::read(statement).map_err(unreadable(command))?;
            let all: Vec<u8> = values.iter().flat_map(|(_, value)| value.0).collect();
            if Digest::of(&all) == read.digest {
                return Ok((statement.to_vec(), parameters.rest().to_vec(), values));
            }
        }
        Err(TpmDeviceError::Changed)
    }

    /// What a register holds.
    fn register(&mut self, register: u8) -> Result<Digest, TpmDeviceError> {
        let command = "PCR_Read";
        let selected = tpm::selection(&BTreeSet::from([register]));
        let answer = self.call(command, NO_SESSIONS, PCR_READ, &selected)?;
        let mut reader = Reader::new(&answer);
        reader.word("counter").map_err(unreadable(command))?;
        let chosen = reader.take("selection", selected.len()).map_err(unreadable(command))?;
        let values = reader.word("count of values").map_err(unreadable(command))?;
        // A bank that it does not have is answered with nothing selected.
        if chosen != selected || values != 1 {
            return Err(TpmDeviceError::Register(register));
        }
        let value = reader.sized("value", 32).map_err(unreadable(command))?;
        value.try_into().map(Digest).map_err(|_| TpmDeviceError::Register(register))
    }

    /// Sends a command, and gives what its answer holds behind its head.
    fn call(
        &mut self,
        command: &'static str,
        tag: u16,
        code: u32,
        body: &[u8],
    ) -> Result<Vec<u8>, TpmDeviceError> {
        let size = u32::try_from(10 + body.len()).unwrap_or(u32::MAX);
        let message = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
        for _ in 0..TRIES {
            let answer = self
                .exchange(&message)
                .map_err(|source| TpmDeviceError::Unreachable { path: self.path.clone(), source })?;
            let mut reader = Reader::new(&answer);
            let head = reader.short("tag").and_then(|_| reader.word("size"));
            let code = head.and_then(|_| reader.word("code")).map_err(unreadable(command))?;
            match code {
                0 => return Ok(reader.rest().to_vec()),
                busy if BUSY.contains(&busy) => thread::sleep(PAUSE),
                code => return Err(TpmDeviceError::Refused { command, code }),
            }
        }
        Err(TpmDeviceError::Refused { command, code: BUSY[0] })
    }

    /// One message there, and the whole answer: a device gives it at once, a socket in pieces.
    fn exchange(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(message)?;
        let mut answer = Vec::new();
        let mut buffer = [0; MOST_BYTES];
        loop {
            let read = self.stream.read(&mut buffer)?;
            answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let size = answer.get(2..6).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
            let size = size.and_then(|size| usize::try_from(size).ok());
            if size.is_some_and(|size| answer.len() >= size.max(10)) {
                return Ok(answer);
            }
            if read == 0 || answer.len() > MOST_BYTES {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its answer is not whole"));
            }
        }
    }
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<Box<dyn Stream>> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    if !std::fs::metadata(path)?.file_type().is_socket() {
        return Ok(Box::new(File::options().read(true).write(true).open(path)?));
    }
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(Box::new(stream))
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<Box<dyn Stream>> {
    Ok(Box::new(File::options().read(true).write(true).open(path)?))
}

fn unreadable(command: &'static str) -> impl Fn(TpmError) -> TpmDeviceError {
    move |source| TpmDeviceError::Answer { command, source }
}

/// A part behind its length (`TPM2B`).
fn sized(bytes: &[u8]) -> Vec<u8> {
    // Nothing here is longer than a command may be.
    [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()[..], bytes].concat()
}

/// The area by which a command is authorized, with the empty password (`TPMS_AUTH_COMMAND`).
fn password() -> Vec<u8> {
    let area = [&BY_PASSWORD.to_be_bytes()[..], &sized(&[]), &[0], &sized(&[])].concat();
    [&u32::try_from(area.len()).unwrap_or(u32::MAX).to_be_bytes()[..], &area].concat()
}

/// What the key is to be (`TPMT_PUBLIC`).
fn template(kind: KeyKind) -> Vec<u8> {
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    let attributes = (OF_ATTESTATION | USER_WITH_AUTH).to_be_bytes();
    match kind {
        KeyKind::Ecc => {
            let scheme = words(&[NULL, ECDSA, SHA_256, P_256, NULL]);
            [&words(&[ECC, SHA_256])[..], &attributes, &sized(&[]), &scheme, &sized(&[]), &sized(&[])]
                .concat()
        }
        KeyKind::Rsa => {
            let scheme = words(&[NULL, RSASSA, SHA_256, 2048]);
            [&words(&[RSA, SHA_256])[..], &attributes, &sized(&[]), &scheme, &[0; 4], &sized(&[])].concat()
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tpm(path: &Path) -> Tpm {
        let registers = BTreeSet::from([0, 7]);
        Tpm { path: path.to_owned(), registers, key: KeyKind::Ecc, certificates: Vec::new() }
    }

    #[test]
    fn a_tpm_that_is_not_there_or_says_nonsense_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm");
        let absent = tpm(&path).quote(&Digest([1; 32])).unwrap_err().to_string();
        assert!(absent.contains("tpm cannot be asked") && absent.contains("--tpm PATH"), "{absent}");
        let head = |code: u32| [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat();
        for (answer, words) in [
            (
                head(0x9a2),
                "the TPM refused CreatePrimary with 0x9a2, since its endorsement hierarchy has a password",
            ),
            (head(0x101), "refused CreatePrimary with 0x101"),
            (head(0x922), "refused CreatePrimary with 0x922"),
            (head(0), "answer to CreatePrimary cannot be read: it ends within its handle"),
            (b"HTTP/1.1".to_vec(), "its answer is not whole"),
            (Vec::new(), "its answer is not whole"),
        ] {
            drop(std::fs::remove_file(&path));
            let listener = UnixListener::bind(&path).unwrap();
            let bytes = answer.clone();
            let serving = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; MOST_BYTES];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if bytes.len() < 10 {
                        drop(stream.write_all(&bytes));
                        return;
                    }
                    drop(stream.write_all(&bytes));
                }
            });
            let error = tpm(&path).quote(&Digest([1; 32])).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
            serving.join().unwrap();
        }
    }
}
