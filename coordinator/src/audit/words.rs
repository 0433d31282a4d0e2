//! What is written down of a request, and of what came of it: names, and digests of what is long or of others' making.

use std::collections::BTreeMap;

use proto::admin::{AdminReply, AdminRequest};
use proto::ids::Digest;
use proto::message::Rejection;
use proto::shown::shown;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::peer;

/// What something was done with.
pub type With = BTreeMap<String, String>;

/// What is done, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct What {
    pub(super) name: &'static str,
    pub(super) with: With,
}

impl What {
    /// What is called so.
    pub fn new<const N: usize>(name: &'static str, with: [(&str, String); N]) -> Self {
        Self { name, with: with.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    /// A request by its name alone.
    pub fn named(request: &AdminRequest) -> Self {
        Self::new(request.name(), [])
    }

    /// The change that a request asks for; `None` where it changes nothing.
    pub fn of(request: &AdminRequest) -> Option<Self> {
        let name = request.name();
        let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
        Some(match request {
            AdminRequest::CreateTask { plan, frozen } if frozen.is_empty() => {
                Self::new(name, [("plan", digest(plan))])
            }
            AdminRequest::CreateTask { plan, frozen } => {
                Self::new(name, [("plan", digest(plan)), ("frozen", digest(frozen))])
            }
            AdminRequest::StopTask(task) | AdminRequest::ResumeTask(task) => {
                Self::new(name, [("task", task.to_string())])
            }
            AdminRequest::IssueToken { label, lifetime_secs } => Self::new(
                name,
                [("label", shown(label).to_string()), ("lifetime_secs", lifetime_secs.to_string())],
            ),
            AdminRequest::RevokeDevice(device) => Self::new(name, [("device", device.to_string())]),
            AdminRequest::RevokeToken(token) => Self::new(name, [("token", token.to_string())]),
            AdminRequest::RollBack { task, version } => {
                Self::new(name, [("task", task.to_string()), ("version", version.to_string())])
            }
            AdminRequest::RevokeOperator(serial) => Self::new(name, [("certificate", serial.to_string())]),
            AdminRequest::SignOperator { certificate_request_pem } => {
                Self::new(name, [("request", digest(certificate_request_pem.as_bytes()))])
            }
            AdminRequest::AddOperator { name: whom, role, certificate_request_pem } => Self::new(
                name,
                [
                    ("name", shown(whom).to_string()),
                    ("role", role.to_string()),
                    ("request", digest(certificate_request_pem.as_bytes())),
                ],
            ),
            AdminRequest::ListTasks
            | AdminRequest::ShowTask(_)
            | AdminRequest::ShowPrivacy(_)
            | AdminRequest::SignVersion { .. }
            | AdminRequest::ListDevices(_)
            | AdminRequest::ShowDevice(_)
            | AdminRequest::ListTokens
            | AdminRequest::Fetch { .. }
            | AdminRequest::ShowHealth
            | AdminRequest::ListOperators
            | AdminRequest::ReadAudit { .. } => return None,
        })
    }
}

/// What a change is known by that was made.
pub fn came_of(reply: &AdminReply) -> With {
    let named = |name: &str, value: String| With::from([(name.to_owned(), value)]);
    match reply {
        AdminReply::Task(status) => named("task", status.task.to_string()),
        AdminReply::Certificate(pem) => {
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
            let read = certificate.and_then(|certificate| peer::read_certificate(&certificate).ok());
            let serial = read.and_then(|read| read.serial);
            serial.map(|serial| named("certificate", serial.to_string())).unwrap_or_default()
        }
        // A token is a secret.
        AdminReply::Token(_)
        | AdminReply::Done
        | AdminReply::Privacy(_)
        | AdminReply::Signed { .. }
        | AdminReply::Tasks(_)
        | AdminReply::Devices { .. }
        | AdminReply::Device(_)
        | AdminReply::TokenList(_)
        | AdminReply::Chunk(_)
        | AdminReply::Health(_)
        | AdminReply::Operators(_)
        | AdminReply::Audit(_) => With::new(),
    }
}

/// The kind of a rejection: its words may hold others' text.
pub(super) fn kind(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Malformed { .. } => "malformed",
        Rejection::NotEnrolled => "not enrolled",
        Rejection::UnknownTask => "unknown task",
        Rejection::UnknownSession => "unknown session",
        Rejection::UnknownArtifact => "unknown artifact",
        Rejection::Stale { .. } => "stale",
        Rejection::ParticipationsSpent(_) => "participations spent",
        Rejection::NotInRoster => "not in roster",
        Rejection::WrongPhase { .. } => "wrong phase",
        Rejection::Equivocation(_) => "equivocation",
        Rejection::LeftOut => "left out",
        Rejection::Unacceptable { .. } => "unacceptable",
        Rejection::Unavailable(_) => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_no_token_no_plan_and_no_character_that_orders_a_terminal() {
        let plan = br#"{"label":"what the plan says"}"#.to_vec();
        let what = What::of(&AdminRequest::CreateTask { plan: plan.clone(), frozen: Vec::new() }).unwrap();
        assert_eq!(what.with, With::from([("plan".to_owned(), Digest::of(&plan).to_string())]));
        let label = "anna\n\u{1b}[2J".to_owned();
        let what = What::of(&AdminRequest::IssueToken { label, lifetime_secs: 60 }).unwrap();
        assert_eq!(what.with["label"], r"anna\n\u{1b}[2J");
        assert_eq!(came_of(&AdminReply::Token("nst2.secret".to_owned())), With::new());
    }
}
