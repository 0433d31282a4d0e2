//! The bootstrap token, with which a device that has no certificate yet enrolls,
//! once: the coordinator writes it, the device reads it.
//!
//! The text is `nst1.` and base64url (no padding) of: SHA-256 of the
//! authority's certificate (32 bytes) ‖ secret (32) ‖ the first 4 bytes of
//! SHA-256 over everything else ‖ the coordinator's address.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256, digest};
use zeroize::Zeroizing;

/// What every token begins with.
pub const PREFIX: &str = "nst1.";
const TEXT_LIMIT_BYTES: usize = 1024;
const CHECKSUM_BYTES: usize = 4;

/// What a device needs to enroll: where, with whom, and the right to do it.
pub struct BootstrapToken {
    address: String,
    pin: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

/// The text of a token, which holds the secret in the clear: for one device, and for no store.
pub struct TokenText(Zeroizing<String>);

/// A text that is no bootstrap token. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text begins otherwise.
    #[error("a bootstrap token begins with nst1.")]
    Prefix,
    /// The text is cut or mistyped.
    #[error("the bootstrap token is cut or mistyped; copy it again")]
    Damaged,
}

impl BootstrapToken {
    /// The token of a coordinator that listens at `address` (`host:port`) and whose authority has this certificate (DER).
    pub fn new(address: &str, authority: &[u8], secret: Zeroizing<[u8; 32]>) -> Self {
        let mut pin = [0; 32];
        // SHA-256 has as many bytes.
        for (to, from) in pin.iter_mut().zip(digest(&SHA256, authority).as_ref()) {
            *to = *from;
        }
        Self { address: address.to_owned(), pin, secret }
    }

    /// Where the coordinator listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SHA-256 of the authority's certificate.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The right to enroll once.
    pub fn secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.secret
    }

    /// The text that is handed to the device.
    pub fn to_text(&self) -> TokenText {
        let Self { address, pin, secret } = self;
        let checksum = checksum(pin, secret, address.as_bytes());
        let bytes =
            Zeroizing::new([pin.as_slice(), secret.as_slice(), &checksum, address.as_bytes()].concat());
        let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&bytes));
        TokenText(Zeroizing::new(format!("{PREFIX}{}", text.as_str())))
    }
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
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
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
    let (stored, address) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *stored != checksum(pin, secret, address) {
        return None;
    }
    Some(BootstrapToken {
        address: std::str::from_utf8(address).ok()?.to_owned(),
        pin: *pin,
        secret: Zeroizing::new(*secret),
    })
}

fn checksum(pin: &[u8; 32], secret: &[u8; 32], address: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut context = Context::new(&SHA256);
    for part in [pin.as_slice(), secret, address] {
        context.update(part);
    }
    let mut checksum = [0; CHECKSUM_BYTES];
    for (to, from) in checksum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_with_whom_and_what() {
        let token: BootstrapToken = text().parse().unwrap();
        assert_eq!(token.address(), "localhost:7443");
        assert_eq!(token.pin(), [1; 32]);
        assert_eq!(**token.secret(), [2; 32]);
        assert_eq!(format!("{token:?}"), "BootstrapToken { .. }");
    }

    #[test]
    fn what_was_written_is_read_and_written_again() {
        let token = BootstrapToken::new("[::1]:7443", b"certificate", Zeroizing::new([3; 32]));
        let text = token.to_text();
        let read: BootstrapToken = format!(" {}\n", text.reveal()).parse().unwrap();
        assert_eq!(read.address(), "[::1]:7443");
        assert_eq!(read.pin(), digest(&SHA256, b"certificate").as_ref());
        assert_eq!(**read.secret(), [3; 32]);
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

    fn text() -> String {
        let address = b"localhost:7443";
        let mut context = Context::new(&SHA256);
        for part in [[1; 32].as_slice(), &[2; 32], address] {
            context.update(part);
        }
        let checksum = context.finish();
        let bytes = [&[1; 32], &[2; 32], &checksum.as_ref()[..4], address].concat();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}
