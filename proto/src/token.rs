//! The bootstrap token, with which a device that has no certificate yet enrolls, once: whoever keeps tokens writes it, the
//! device reads it.
//!
//! Its secret is the seed of an Ed25519 key and never leaves the device: the device signs its enrollment with it, and
//! whoever keeps tokens knows the public half only. So who sees an enrollment on its way, the coordinator too, can enroll
//! nobody else with it.
//!
//! The text is `nst2.` and base64url (no padding) of: SHA-256 of the certificate of the authority that vouches for the
//! coordinator (32 bytes) ‖ secret (32) ‖ public key of the enrollment authority (32) ‖ the first 4 bytes of SHA-256 over
//! everything else ‖ the coordinator's address.

use std::{fmt, str::FromStr};

use aggregation::{IdentityKey, IdentityPublic};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256, digest};
use zeroize::Zeroizing;

/// What every token begins with.
pub const PREFIX: &str = "nst2.";
/// What tokens of before began with, whose secret the coordinator saw.
const EARLIER_PREFIX: &str = "nst1.";
const TEXT_LIMIT_BYTES: usize = 1024;
const CHECKSUM_BYTES: usize = 4;

/// What a device needs to enroll: where, with whom, and the right to do it.
pub struct BootstrapToken {
    address: String,
    pin: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
    authority: IdentityPublic,
}

/// The text of a token, which holds the secret in the clear: for one device, and for no store.
pub struct TokenText(Zeroizing<String>);

/// A text that is no bootstrap token. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text begins otherwise.
    #[error("a bootstrap token begins with nst2.")]
    Prefix,
    /// The text is a token of an earlier version.
    #[error(
        "this bootstrap token is of an earlier version (nst1.), which no longer enrolls; ask the operator for a new one"
    )]
    Earlier,
    /// The text is cut or mistyped.
    #[error("the bootstrap token is cut or mistyped; copy it again")]
    Damaged,
}

/// What of the text comes first, before the address.
type Parts<'a> = [&'a [u8; 32]; 3];

impl BootstrapToken {
    /// The token for a coordinator that listens at `address` (`host:port`). `pin` is the SHA-256 of the certificate of the
    /// authority that vouches for it, and `authority` the key that vouches for devices.
    pub fn new(address: &str, pin: [u8; 32], authority: IdentityPublic, secret: Zeroizing<[u8; 32]>) -> Self {
        Self { address: address.to_owned(), pin, secret, authority }
    }

    /// Where the coordinator listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SHA-256 of the certificate of the authority that vouches for the coordinator.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The key of the enrollment authority: nobody else's statement makes this token's device one.
    pub fn authority(&self) -> IdentityPublic {
        self.authority
    }

    /// The right to enroll once: the key that signs an enrollment.
    pub fn key(&self) -> IdentityKey {
        IdentityKey::from_seed(&self.secret)
    }

    /// The text that is handed to the device.
    pub fn to_text(&self) -> TokenText {
        let Self { address, pin, secret, authority } = self;
        let checksum = checksum([pin, secret, &authority.0], address.as_bytes());
        let parts = [pin.as_slice(), secret.as_slice(), &authority.0, &checksum, address.as_bytes()];
        let bytes = Zeroizing::new(parts.concat());
        let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&bytes));
        TokenText(Zeroizing::new(format!("{PREFIX}{}", text.as_str())))
    }
}

/// Whether there is a token in a text, of whatever version: then it is printed nowhere.
pub fn looks_like_one(text: &str) -> bool {
    text.contains(PREFIX) || text.contains(EARLIER_PREFIX)
}

/// What a token pins of a certificate (DER).
pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let mut pin = [0; 32];
    // SHA-256 has as many bytes.
    for (to, from) in pin.iter_mut().zip(digest(&SHA256, certificate).as_ref()) {
        *to = *from;
    }
    pin
}

impl TokenText {
    /// The text, to be handed to one device by a private way.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenText").finish_non_exhaustive()
    }
}

impl FromStr for BootstrapToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_earlier = text.starts_with(EARLIER_PREFIX);
        let unknown = if is_earlier { TokenError::Earlier } else { TokenError::Prefix };
        let encoded = text.strip_prefix(PREFIX).ok_or(unknown)?;
        if text.len() > TEXT_LIMIT_BYTES {
            return Err(TokenError::Damaged);
        }
        let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Damaged)?);
        read(&bytes).ok_or(TokenError::Damaged)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").finish_non_exhaustive()
    }
}

fn read(bytes: &[u8]) -> Option<BootstrapToken> {
    let (pin, rest) = bytes.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<32>()?;
    let (authority, rest) = rest.split_first_chunk::<32>()?;
    let (stored, address) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *stored != checksum([pin, secret, authority], address) {
        return None;
    }
    Some(BootstrapToken {
        address: std::str::from_utf8(address).ok()?.to_owned(),
        pin: *pin,
        secret: Zeroizing::new(*secret),
        authority: IdentityPublic(*authority),
    })
}

fn checksum(parts: Parts<'_>, address: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.update(address);
    let mut checksum = [0; CHECKSUM_BYTES];
    for (to, from) in checksum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: IdentityPublic = IdentityPublic([4; 32]);

    #[test]
    fn a_token_says_where_with_whom_and_what() {
        let token: BootstrapToken = text().parse().unwrap();
        assert_eq!(token.address(), "localhost:7443");
        assert_eq!((token.pin(), token.authority()), ([1; 32], AUTHORITY));
        assert_eq!(token.key().public(), IdentityKey::from_seed(&[2; 32]).public());
        assert_eq!(format!("{token:?}"), "BootstrapToken { .. }");
    }

    #[test]
    fn what_was_written_is_read_and_written_again() {
        let pin = pin_of(b"certificate");
        let token = BootstrapToken::new("[::1]:7443", pin, AUTHORITY, Zeroizing::new([3; 32]));
        let text = token.to_text();
        let read: BootstrapToken = format!(" {}\n", text.reveal()).parse().unwrap();
        assert_eq!(read.address(), "[::1]:7443");
        assert_eq!(read.pin(), digest(&SHA256, b"certificate").as_ref());
        assert_eq!(read.key().public(), token.key().public());
        assert_eq!(read.to_text().reveal(), text.reveal());
        assert_eq!(format!("{text:?}"), "TokenText { .. }");
        let token: BootstrapToken = self::text().parse().unwrap();
        assert_eq!(token.to_text().reveal(), self::text());
    }

    #[test]
    fn a_cut_token_is_refused_wherever_it_is_cut() {
        let text = text();
        for length in 0..text.len() {
            let cut: Result<BootstrapToken, _> = text[..length].parse();
            assert!(cut.is_err(), "{length}");
        }
    }

    #[test]
    fn a_mistyped_token_is_refused() {
        let mistyped = text().replacen("AQ", "Ag", 1);
        assert_eq!(mistyped.parse::<BootstrapToken>().unwrap_err(), TokenError::Damaged);
    }

    #[test]
    fn a_token_of_an_earlier_version_is_told_so() {
        let earlier = text().replacen(PREFIX, EARLIER_PREFIX, 1);
        let refused = earlier.parse::<BootstrapToken>().unwrap_err();
        assert_eq!(refused, TokenError::Earlier);
        assert!(refused.to_string().contains("ask the operator for a new one"), "{refused}");
    }

    fn text() -> String {
        let address = b"localhost:7443";
        let mut context = Context::new(&SHA256);
        for part in [[1; 32].as_slice(), &[2; 32], &[4; 32], address] {
            context.update(part);
        }
        let checksum = context.finish();
        let bytes = [&[1; 32], &[2; 32], &[4; 32], &checksum.as_ref()[..4], address].concat();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}
