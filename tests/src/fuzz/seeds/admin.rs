//! One of each request and reply of operators.

use aggregation::{IdentityPublic, Signature};
use proto::admin::{
    AdminReply, AdminRequest, Attested, AuditPart, AuthorityStatus, Candidates, DeviceDetail, DeviceQuery,
    DeviceState, DeviceStatus, DeviceTask, Health, LogStatus, OperatorStatus, ServedBase, TaskStatus,
    TokenStatus, TurnedAwayCount, WitnessStatus,
};
use proto::ids::{Digest, Serial, TokenId};
use proto::message::DeclineReason;
use proto::plan::Mode;
use proto::role::Role;

use super::{DEVICE, TASK, chunk, run};

pub(super) fn admin_requests() -> Vec<AdminRequest> {
    vec![
        AdminRequest::CreateTask { plan: b"{}".to_vec(), frozen: vec![1, 2, 3, 4] },
        AdminRequest::ListTasks,
        AdminRequest::ShowTask(TASK),
        AdminRequest::ShowPrivacy(TASK),
        AdminRequest::SignVersion { task: TASK, version: 3 },
        AdminRequest::StopTask(TASK),
        AdminRequest::ResumeTask(TASK),
        AdminRequest::IssueToken { label: "tablet".into(), lifetime_secs: 60 },
        AdminRequest::ListDevices(DeviceQuery {
            after: Some(DEVICE),
            limit: 3,
            label: "tab".into(),
            state: Some(DeviceState::Expired),
            not_seen_since_unix_secs: Some(4),
        }),
        AdminRequest::ShowDevice(DEVICE),
        AdminRequest::ListTokens,
        AdminRequest::RevokeToken(TokenId([1; 8])),
        AdminRequest::RollBack { task: TASK, version: 2 },
        AdminRequest::RevokeDevice(DEVICE),
        AdminRequest::Fetch { digest: Digest([2; 32]), offset: 3 },
        AdminRequest::ShowHealth,
        AdminRequest::ListOperators,
        AdminRequest::RevokeOperator(Serial([1; 16])),
        AdminRequest::SignOperator { certificate_request_pem: "request".into() },
        AdminRequest::AddOperator {
            name: "owl".into(),
            role: Role::Viewer,
            certificate_request_pem: "request".into(),
        },
        AdminRequest::ReadAudit { from: 7 },
    ]
}

pub(super) fn admin_replies() -> Vec<AdminReply> {
    let world = run();
    let device = DeviceStatus {
        device: DEVICE,
        label: "tablet".into(),
        enrolled_unix_millis: 5,
        expires_unix_secs: 6,
        revoked: true,
        last_seen_unix_secs: 7,
        client: "nightshift/1".into(),
        participations: 8,
    };
    let detail = DeviceDetail {
        status: device.clone(),
        tasks: vec![DeviceTask {
            task: TASK,
            name: "owl".into(),
            participations: 3,
            participations_allowed: 4,
            epsilon: 1.5,
            delta: 1e-6,
            mode: Mode::Central,
            declined: Some(DeclineReason::Work),
            excluded: true,
        }],
        attested: Some(Attested {
            kind: "tpm".into(),
            policy: Digest([6; 32]),
            at_unix_secs: 5,
            is_current: true,
        }),
    };
    let token = TokenStatus {
        token: TokenId([1; 8]),
        label: "tablet".into(),
        issued_unix_secs: 1,
        expires_unix_secs: 2,
        redeemed_unix_secs: Some(3),
        revoked_unix_secs: Some(4),
    };
    let candidates = Candidates {
        enrolled: 1,
        able: 2,
        declined: 3,
        last_call_unix_secs: 4,
        trouble: "no room".into(),
        least: 5,
    };
    vec![
        AdminReply::Task(TaskStatus { candidates: Some(candidates), ..world.status() }),
        AdminReply::Privacy(world.spent()),
        AdminReply::Signed { key: IdentityPublic([3; 32]), signature: Signature([4; 64]) },
        AdminReply::Tasks(vec![world.status()]),
        AdminReply::Token("nst2.".into()),
        AdminReply::Devices { devices: vec![device], more: true },
        AdminReply::Device(detail),
        AdminReply::TokenList(vec![token]),
        AdminReply::Chunk(chunk()),
        AdminReply::Done,
        AdminReply::Health(Health {
            trouble: Some("no room".into()),
            trouble_secs: 3,
            turned_away: vec![TurnedAwayCount { listener: "devices".into(), why: "silent".into(), times: 4 }],
            server_expires_unix_secs: 5,
            authority_expires_unix_secs: 6,
            bases: vec![ServedBase { name: "owl".into(), digest: Digest([7; 32]), bytes: 8 }],
            bases_to_read: 9,
            now_unix_millis: 10,
            stopping: true,
            log: Some(log_status()),
            authority: Some(AuthorityStatus {
                address: "localhost:7445".into(),
                answers: false,
                since_unix_secs: 11,
                why: Some("no answer".into()),
                certificate_expires_unix_secs: 12,
                log_refused: Some("it went back".into()),
            }),
            issuer_expires_unix_secs: 13,
        }),
        AdminReply::Operators(vec![OperatorStatus {
            serial: Serial([1; 16]),
            name: "owl".into(),
            issued_unix_secs: 1,
            expires_unix_secs: 2,
            revoked: true,
            role: Role::Operator,
        }]),
        AdminReply::Certificate("certificate".into()),
        AdminReply::Audit(AuditPart { lines: b"{}\n".to_vec(), last: 7, head: "{}".into(), key: [3; 32] }),
    ]
}

/// How a log of enrollments is, with a witness.
pub(super) fn log_status() -> LogStatus {
    let witness = WitnessStatus {
        name: "witness.example".into(),
        signed_size: 1,
        signed_unix_secs: 2,
        trouble: Some("away".into()),
        trouble_since_unix_secs: 3,
        saw_other_log: true,
    };
    LogStatus {
        key: "log+1+A".into(),
        size: 4,
        head_unix_secs: 5,
        rounds_size: 6,
        rounds_unix_secs: 7,
        waiting_versions: 8,
        least_witnesses: 9,
        witnesses: vec![witness],
        devices: 10,
        young_devices: 11,
        rounds_witnesses: 1,
    }
}
