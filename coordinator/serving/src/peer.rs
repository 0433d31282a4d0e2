//! Who is at the other end of a connection, as its certificate says.
//!
//! A name is one URI in the certificate's subject alternative names:
//! `nightshift:device:<32 hex digits>`, `nightshift:admin:<name>`, or, to an enrollment authority only,
//! `nightshift:coordinator:<name>`.

use std::{fmt, net::SocketAddr, str::FromStr};

use proto::ids::Serial;
use proto::role::Role;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const DEVICE_PREFIX: &str = "nightshift:device:";
const ADMIN_PREFIX: &str = "nightshift:admin:";
const COORDINATOR_PREFIX: &str = "nightshift:coordinator:";
const ADMIN_NAME_LIMIT: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Showed no certificate: may enrol and nothing else.
    Anonymous,
    /// An enrolled device, by its id.
    Device([u8; 16]),
    /// An administrator, by name.
    Admin(AdminName),
    /// A coordinator, by name, that calls an enrollment authority.
    Coordinator(AdminName),
}

/// An administrator's name: 1 to 64 of `a`–`z`, `0`–`9`, `.`, `_`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminName(String);

/// A text that is no administrator's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an administrator's name is 1 to 64 of a-z, 0-9, '.', '_', '-', got {0:?}")]
pub struct AdminNameError(String);

/// Why a verified certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate cannot be parsed.
    #[error("the peer's certificate cannot be parsed")]
    Malformed,
    /// The certificate does not have exactly one name.
    #[error("the peer's certificate has {0} URI names, expected one")]
    NameCount(usize),
    /// The name is not one of ours.
    #[error(
        "the peer's certificate has the name {0:?}, expected nightshift:device:, nightshift:admin: or nightshift:coordinator:"
    )]
    UnknownName(String),
}

/// Who is connected, from where: in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Who it is.
    pub peer: Peer,
    /// From where.
    pub remote: SocketAddr,
    /// When its certificate ends. The connection may outlive it, so the
    /// service asks at each call. `None` for the anonymous.
    pub not_after_unix_secs: Option<u64>,
    /// The number of its certificate, which may be revoked meanwhile. `None` for the anonymous.
    pub serial: Option<Serial>,
}

/// What a verified certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Whom it names.
    pub peer: Peer,
    /// Its number; `None` where it is not one of ours by its length.
    pub serial: Option<Serial>,
    /// Its last second.
    pub not_after_unix_secs: u64,
    /// The role that it says, where it says one. What its holder may do is decided by the coordinator's record of it.
    pub role: Option<Role>,
}

impl AdminName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdminName {
    type Err = AdminNameError;

    fn from_str(text: &str) -> Result<Self, AdminNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if (1..=ADMIN_NAME_LIMIT).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AdminNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for AdminName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a device, as it stands in its certificate.
pub fn device_uri(id: &[u8; 16]) -> String {
    format!("{DEVICE_PREFIX}{}", hex::encode(id))
}

/// The name of an administrator, as it stands in their certificate.
pub(crate) fn admin_uri(name: &AdminName) -> String {
    format!("{ADMIN_PREFIX}{name}")
}

/// The name of a coordinator, as it stands in its certificate.
pub(crate) fn coordinator_uri(name: &AdminName) -> String {
    format!("{COORDINATOR_PREFIX}{name}")
}

/// Reads a certificate that TLS has verified. Fails when it does not have
/// exactly one name that is ours.
pub fn read_certificate(der: &[u8]) -> Result<Certified, PeerError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerError::Malformed);
    }
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => None,
        })
        .collect();
    let [uri] = uris.as_slice() else {
        return Err(PeerError::NameCount(uris.len()));
    };
    let not_after = certificate.validity().not_after.timestamp();
    let unit = certificate.subject().iter_organizational_unit().next();
    Ok(Certified {
        role: unit.and_then(|unit| unit.as_str().ok()?.parse().ok()),
        peer: read_uri(uri)?,
        serial: certificate.raw_serial().try_into().ok().map(Serial),
        not_after_unix_secs: u64::try_from(not_after).map_err(|_| PeerError::Malformed)?,
    })
}

fn read_uri(uri: &str) -> Result<Peer, PeerError> {
    let unknown = || PeerError::UnknownName(uri.to_owned());
    if let Some(digits) = uri.strip_prefix(DEVICE_PREFIX) {
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).map_err(|_| unknown())?;
        // One spelling only: upper-case digits would be a second name.
        if device_uri(&id) == uri {
            return Ok(Peer::Device(id));
        }
    } else if let Some(name) = uri.strip_prefix(ADMIN_PREFIX) {
        return name.parse().map(Peer::Admin).map_err(|_| unknown());
    } else if let Some(name) = uri.strip_prefix(COORDINATOR_PREFIX) {
        return name.parse().map(Peer::Coordinator).map_err(|_| unknown());
    }
    Err(unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_they_were_written() {
        let id = [0xab; 16];
        assert_eq!(read_uri(&device_uri(&id)), Ok(Peer::Device(id)));
        let name: AdminName = "night.owl-1".parse().unwrap();
        assert_eq!(read_uri(&admin_uri(&name)), Ok(Peer::Admin(name.clone())));
        assert_eq!(read_uri(&coordinator_uri(&name)), Ok(Peer::Coordinator(name)));
    }

    #[test]
    fn a_second_spelling_of_a_name_is_refused() {
        for uri in [
            "nightshift:device:ABABABABABABABABABABABABABABABAB".to_owned(),
            "nightshift:device:abab".to_owned(),
            format!("nightshift:device:{}00", "ab".repeat(16)),
            "nightshift:admin:".to_owned(),
            "nightshift:admin:Owl".to_owned(),
            format!("nightshift:admin:{}", "a".repeat(65)),
            "nightshift:other:owl".to_owned(),
            "nightshift:coordinator:".to_owned(),
            "nightshift:coordinator:Owl".to_owned(),
            "https://example.com".to_owned(),
        ] {
            assert_eq!(read_uri(&uri), Err(PeerError::UnknownName(uri)));
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert_eq!(read_certificate(b"no").unwrap_err(), PeerError::Malformed);
    }
}
