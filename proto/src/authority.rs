//! What an enrollment authority that is apart from its coordinators is asked, and what it answers.
//!
//! A coordinator asks it to enroll and to renew, tells it of revocations, and is told of them. It never has the key by which
//! the authority vouches for devices. Operators of the authority ask the rest.

use aggregation::{Credential, IdentityPublic};

use crate::admin::{LogStatus, TokenStatus};
use crate::convert::{Enrollment, Renewal};
use crate::ids::{DeviceId, TokenId};
use crate::message::LogPart;

/// The most devices in one answer.
pub const MOST_LISTED: usize = 4096;

/// What a coordinator or an operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityRequest {
    /// Makes a device of whoever holds a token; by coordinators.
    Enroll(Box<Enrollment>),
    /// States the same of a device again, for longer; by coordinators.
    Renew(Renewal),
    /// A coordinator's operator revoked a device; by coordinators.
    ReportRevoked(DeviceId),
    /// Where the coordinator that asks is found; the answer says whom to shut out. By coordinators.
    Introduce(Introduction),
    /// The authority's log, from a place on.
    ReadLog {
        /// The first entry.
        from: u64,
    },
    /// How the authority's log is, and who signs it.
    ShowLog,
    /// An entry that says of a version ([`aggregation::log::Leaf::Version`]); by coordinators.
    LogVersion(Vec<u8>),
    /// Makes a bootstrap token; by operators.
    IssueToken {
        /// Whom it is for.
        label: String,
        /// How long it can be used, in seconds.
        lifetime_secs: u64,
        /// The coordinator that it is for; empty where there is only one.
        coordinator: String,
    },
    /// All bootstrap tokens; by operators.
    ListTokens,
    /// Makes a bootstrap token worthless; by operators.
    RevokeToken(TokenId),
    /// Devices behind this one, in the order of their ids; by operators.
    ListIssued {
        /// The last one of the answer before.
        after: Option<DeviceId>,
    },
    /// Vouches for a device no more, for ever; by operators.
    RevokeDevice(DeviceId),
    /// Lets a coordinator ask; by operators.
    AddCoordinator {
        /// What it is called.
        name: String,
        /// A certificate signing request, in PEM.
        certificate_request_pem: String,
    },
}

/// Where a coordinator is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Where devices connect, `host:port`.
    pub address: String,
    /// SHA-256 of the certificate of the authority that vouches for the coordinator.
    pub pin: [u8; 32],
    /// The place in the list of revocations from which on it asks.
    pub revocations_from: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthorityReply {
    /// What is stated of a device.
    Issued(Issued),
    /// Whom to shut out.
    Introduced(Introduced),
    /// It is done, and durable.
    Done,
    /// A part of the log.
    Log(LogPart),
    /// How the log is, and who signs it.
    LogStatus(LogStatus),
    /// A bootstrap token's text.
    Token(String),
    /// All bootstrap tokens.
    TokenList(Vec<TokenStatus>),
    /// Devices.
    Devices {
        /// In the order of their ids.
        devices: Vec<IssuedDevice>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// A coordinator's certificate and the authority's own, in PEM.
    Certificate(String),
}

/// What the authority states of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The statement.
    pub credential: Credential,
    /// When it was made, by the authority's clock.
    pub issued_unix_secs: u64,
    /// How the authority's operator calls the device.
    pub label: String,
}

/// What a coordinator learns that says where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// The key that verifies credentials.
    pub authority: IdentityPublic,
    /// Devices that were revoked, in the order of their revocations.
    pub revoked: Vec<DeviceId>,
    /// Where to ask on from.
    pub revocations_next: u64,
    /// Whether there are further ones there.
    pub more: bool,
}

/// A device, as the authority knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedDevice {
    /// Its name.
    pub device: DeviceId,
    /// The label of its token.
    pub label: String,
    /// Its key.
    pub identity: IdentityPublic,
    /// When it enrolled.
    pub enrolled_unix_secs: u64,
    /// When what was stated of it last ends.
    pub expires_unix_secs: u64,
    /// When it was revoked, if it was.
    pub revoked_unix_secs: Option<u64>,
}
