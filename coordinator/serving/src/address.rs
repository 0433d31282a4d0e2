//! Addresses to listen on, as people write them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

/// What is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is an IP address alone.
    #[error("`{0}` has no port: write it as {1}")]
    NoPort(String, String),
    /// It is something else.
    #[error(
        "`{0}` is not an IP address with a port, such as 127.0.0.1:7443 or [::1]:7443; to listen on all addresses of this \
         machine write 0.0.0.0:7443"
    )]
    Other(String),
}

/// Reads `ADDRESS:PORT`.
pub fn listening(text: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match alone.parse::<IpAddr>() {
        Ok(ip) => Err(AddressError::NoPort(text.to_owned(), SocketAddr::new(ip, 7443).to_string())),
        Err(_) => Err(AddressError::Other(text.to_owned())),
    }
}

/// For a key of a configuration.
pub fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listening(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_told_so_and_what_is_none_how_one_looks() {
        assert_eq!(listening("[::1]:7").unwrap(), "[::1]:7".parse().unwrap());
        for (text, mended) in [("0.0.0.0", "0.0.0.0:7443"), ("::1", "[::1]:7443"), ("[::1]", "[::1]:7443")] {
            let error = listening(text).unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` has no port: write it as {mended}"));
        }
        for text in ["", "localhost:7443", "7443", ":7443", "1.2.3.4:70000", "1.2.3.4:"] {
            let error = listening(text).unwrap_err();
            assert_eq!(error, AddressError::Other(text.to_owned()));
        }
    }
}
