//! The bootstrap token, as the device reads it. What it is made of stands in
//! the coordinator's `tokens` module, which writes it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

const PREFIX: &str = "nst1.";
const TEXT_LIMIT_BYTES: usize = 1024;

/// What a device needs to enrol: where, with whom, and the right to do it.
pub struct BootstrapToken {
    address: String,
    pin: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

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
    /// Where the coordinator listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SHA-256 of the authority's certificate.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// The right to enrol once.
    pub fn secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.secret
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
    let (checksum, address) = rest.split_first_chunk::<4>()?;
    let mut context = Context::new(&SHA256);
    for part in [pin.as_slice(), secret, address] {
        context.update(part);
    }
    if !context.finish().as_ref().starts_with(checksum) {
        return None;
    }
    Some(BootstrapToken {
        address: std::str::from_utf8(address).ok()?.to_owned(),
        pin: *pin,
        secret: Zeroizing::new(*secret),
    })
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
