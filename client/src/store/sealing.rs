//! Seals the checkpoint of a training.
//!
//! ChaCha20-Poly1305 ([RFC 8439](https://www.rfc-editor.org/rfc/rfc8439)) under a key of its own for each sealing, which
//! HKDF-SHA-256 ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869)) derives from the training's key and 32 random bytes:
//! such a key seals one message, so its nonce is zero, and no number of sealings makes a nonce come twice. A sealed
//! checkpoint is
//!
//! format (32 bytes) ‖ hash of what was trained (32) ‖ salt (32) ‖ ciphertext ‖ tag (16),
//!
//! with everything before the ciphertext as its associated data. The hash is of published things and says without the
//! key whether the checkpoint is of any use.

use proto::ids::Digest;
use proto::message::Published;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

/// What a sealed checkpoint begins with; the associated data is bound to its version by it.
const FORMAT: &[u8; 32] = b"nightshift sealed checkpoint v1\n";
const HEAD_BYTES: usize = 96;
const TAG_BYTES: usize = 16;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Why a sealed checkpoint gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was written by an older version, or by another program.
    #[error("it is not sealed, as those of older versions were not")]
    Clear,
    /// Another version or task is trained now.
    #[error("it is of another version or task")]
    Other,
    /// A byte of it is not as it was written, or it was sealed with another key.
    #[error("it is damaged, or was sealed with another key")]
    Closed,
}

/// What a checkpoint is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject(Digest);

impl Subject {
    pub(super) fn of(published: &Published) -> Self {
        let mut material = b"nightshift sealed checkpoint of".to_vec();
        material.extend(published.task.0);
        material.extend(published.version.to_le_bytes());
        material.extend(published.plan.0);
        material.extend(published.adapter.0);
        Self(Digest::of(&material))
    }

    /// What a sealed checkpoint says that it is of, by its head alone. Fails when it is not sealed.
    pub(super) fn read(head: &[u8]) -> Result<Self, SealError> {
        let subject = head.strip_prefix(FORMAT).and_then(|rest| rest.first_chunk::<32>());
        subject.map(|bytes| Self(Digest(*bytes))).ok_or(SealError::Clear)
    }
}

/// Seals `clear`, which is wiped; fails only above 2³⁸ bytes. No two sealings may have the same `salt`.
pub(super) fn seal(
    key: &[u8],
    salt: [u8; 32],
    subject: Subject,
    clear: &Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, Unspecified> {
    // As long as it will be from the beginning on, so that no part of what is clear is left where it was before.
    let mut file = Zeroizing::new(Vec::with_capacity(clear.len() + HEAD_BYTES + TAG_BYTES));
    file.extend_from_slice(FORMAT);
    file.extend_from_slice(&subject.0.0);
    file.extend_from_slice(&salt);
    let head = file.to_vec();
    file.extend_from_slice(clear);
    let tag = cipher(key, &salt)?.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key([0; 12]),
        Aad::from(head),
        file.get_mut(HEAD_BYTES..).unwrap_or_default(),
    )?;
    file.extend_from_slice(tag.as_ref());
    Ok(std::mem::take(&mut *file))
}

/// Opens what [`seal`] made. Fails when it is no such thing, of another subject, or not as it was written, and when the
/// key is another.
pub(super) fn open(key: &[u8], subject: Subject, file: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut file = Zeroizing::new(file);
    if Subject::read(&file)? != subject {
        return Err(SealError::Other);
    }
    let (head, sealed) = file.split_at_mut_checked(HEAD_BYTES).ok_or(SealError::Closed)?;
    let salt = head.last_chunk::<32>().ok_or(SealError::Closed)?;
    let cipher = cipher(key, salt).map_err(|_| SealError::Closed)?;
    let clear = cipher
        .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(&*head), sealed)
        .map_err(|_| SealError::Closed)?
        .len();
    file.drain(..HEAD_BYTES);
    file.truncate(clear);
    Ok(file)
}

/// The key of the only message with this salt.
fn cipher(key: &[u8], salt: &[u8; 32]) -> Result<LessSafeKey, Unspecified> {
    let secret = Salt::new(HKDF_SHA256, salt).extract(key);
    let derived = secret.expand(&[b"nightshift checkpoint key v1"], &CHACHA20_POLY1305)?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

#[cfg(test)]
mod tests {
    use proto::ids::TaskId;

    use super::*;

    const KEY: [u8; KEY_BYTES] = [3; KEY_BYTES];

    fn published(task: u8, version: u32) -> Published {
        let digest = Digest([2; 32]);
        let task = TaskId([task; 16]);
        Published { task, version, plan: digest, adapter: digest, folded: None, clip_norm: 1.0 }
    }

    fn subject() -> Subject {
        Subject::of(&published(1, 4))
    }

    fn sealed() -> Vec<u8> {
        seal(&KEY, [5; 32], subject(), &Zeroizing::new(b"parameters".to_vec())).unwrap()
    }

    #[test]
    fn what_was_sealed_comes_back() {
        assert_eq!(**open(&KEY, subject(), sealed()).unwrap(), b"parameters"[..]);
        assert_eq!(sealed().len(), HEAD_BYTES + 10 + TAG_BYTES);
    }

    #[test]
    fn a_checkpoint_does_not_open_with_another_key() {
        assert_eq!(open(&[4; 32], subject(), sealed()).unwrap_err(), SealError::Closed);
    }

    #[test]
    fn a_checkpoint_of_another_version_or_task_does_not_open() {
        for other in [published(1, 5), published(2, 4)] {
            assert_eq!(open(&KEY, Subject::of(&other), sealed()).unwrap_err(), SealError::Other);
            // Nor does one that says of itself that it is.
            let mut renamed = sealed();
            renamed[32..64].copy_from_slice(&Subject::of(&other).0.0);
            assert_eq!(open(&KEY, Subject::of(&other), renamed).unwrap_err(), SealError::Closed);
        }
    }

    #[test]
    fn a_checkpoint_with_any_byte_changed_or_cut_does_not_open() {
        let whole = sealed();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(open(&KEY, subject(), changed).is_err(), "byte {at}");
            assert!(open(&KEY, subject(), whole[..at].to_vec()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_not_sealed_is_called_so() {
        assert_eq!(open(&KEY, subject(), b"parameters".to_vec()).unwrap_err(), SealError::Clear);
        assert_eq!(Subject::read(&sealed()).unwrap(), subject());
    }

    #[test]
    fn two_sealings_of_the_same_are_under_different_keys() {
        let clear = Zeroizing::new(vec![0; 64]);
        let [one, other] = [5, 6].map(|salt| seal(&KEY, [salt; 32], subject(), &clear).unwrap());
        let differ = one.iter().zip(&other).skip(HEAD_BYTES).filter(|(a, b)| a != b).count();
        assert!(differ > 60, "{differ} of 80 bytes differ");
    }
}
