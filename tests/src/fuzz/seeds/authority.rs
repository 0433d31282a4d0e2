//! What an enrollment authority is asked and answers, and its log.

use aggregation::log::{Head, Leaf, Witness};
use aggregation::{Credential, IdentityKey, IdentityPublic, Logged};
use prost::Message;
use proto::authority::{AuthorityReply, AuthorityRequest, Introduced, Introduction, Issued, IssuedDevice};
use proto::convert::{Enrolled, authority_reply_to_wire, authority_request_to_wire};
use proto::ids::TokenId;
use proto::message::LogPart;

use super::super::enrollment_log;
use super::{DEVICE, enrolled, enrollment, renewal};

pub(super) fn authority_requests() -> Vec<Vec<u8>> {
    let introduction = Introduction { address: "owl.example:7443".into(), pin: [5; 32], revocations_from: 3 };
    let requests = [
        AuthorityRequest::Enroll(Box::new(enrollment())),
        AuthorityRequest::Renew(renewal()),
        AuthorityRequest::ReportRevoked(DEVICE),
        AuthorityRequest::ReadLog { from: 3 },
        AuthorityRequest::LogVersion(vec![7; 129]),
        AuthorityRequest::ShowLog,
        AuthorityRequest::Introduce(introduction),
        AuthorityRequest::IssueToken { label: "anna".into(), lifetime_secs: 60, coordinator: "owl".into() },
        AuthorityRequest::RevokeToken(TokenId([6; 8])),
        AuthorityRequest::ListIssued { after: Some(DEVICE) },
        AuthorityRequest::AddCoordinator { name: "owl".into(), certificate_request_pem: "request".into() },
    ];
    requests.into_iter().map(|request| authority_request_to_wire(request).encode_to_vec()).collect()
}

pub(super) fn authority_replies() -> Vec<Vec<u8>> {
    let Enrolled { credential, authority, issued_unix_secs, label, .. } = enrolled();
    let device = IssuedDevice {
        device: DEVICE,
        label: label.clone(),
        identity: credential.identity,
        enrolled_unix_secs: 1,
        expires_unix_secs: 9,
        revoked_unix_secs: Some(2),
    };
    let replies = [
        AuthorityReply::Issued(Issued { credential, issued_unix_secs, label }),
        AuthorityReply::Introduced(Introduced {
            authority,
            revoked: vec![DEVICE],
            revocations_next: 4,
            more: true,
        }),
        AuthorityReply::Devices { devices: vec![device], more: true },
        AuthorityReply::Log(LogPart { head: "head".into(), entries: vec![vec![1; 25]] }),
        AuthorityReply::LogStatus(super::admin::log_status()),
        AuthorityReply::Certificate("certificate".into()),
    ];
    replies.into_iter().map(|reply| authority_reply_to_wire(reply).encode_to_vec()).collect()
}

pub(super) fn enrollment_logs() -> Vec<Vec<u8>> {
    let identity = IdentityPublic([2; 32]);
    let logged = Logged { place: 0, enrolled_unix_secs: 4, label: [5; 16], attested: [6; 32] };
    let authority = enrollment_log::authority();
    let credential = Credential::issue_logged(&authority, [1; 16], identity, 3, logged);
    let leaf = credential.leaf().map(|(_, leaf)| leaf.to_bytes()).unwrap();
    let head = Head { size: 3, root: [7; 32], devices: 2, unix_secs: 1_700_000_000, previous: [0; 32] };
    let head = head.sign(&authority).witnessed("witness.example", &IdentityKey::from_seed(&[9; 32]), 8);
    let witness = Witness::new("witness.example", IdentityKey::from_seed(&[9; 32]).public()).unwrap();
    let padded = [leaf.as_slice(), &[0; 16]].concat();
    vec![
        [b"\0", head.to_string().as_bytes()].concat(),
        [b"\x01", witness.to_string().as_bytes()].concat(),
        [b"\x02", padded.as_slice(), &Leaf::Revocation { device: [1; 16], unix_secs: 9 }.to_bytes()].concat(),
        vec![3, 11, 5, 7, 1, 4, 2, 3, 9, 10],
        vec![3, 0, 0, 0, 0, 0],
    ]
}
