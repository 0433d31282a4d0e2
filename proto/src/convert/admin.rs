//! The operator's requests and replies.

use aggregation::IdentityPublic;

use super::{
    WireError, chunk_from_wire, chunk_to_wire, digest, digest_if_any, error, fixed, present, signature,
};
use crate::admin::{
    AdminReply, AdminRequest, AuditPart, Gathering, MeanMetric, OpenRound, OperatorStatus,
    ParticipationCount, PrivacySpent, TaskState, TaskStatus, VersionStatus,
};
use crate::ids::{DeviceId, Serial, TaskId, TokenId};
use crate::metrics::MetricName;
use crate::plan::Mode;
use crate::role::Role;
use crate::wire::{self, admin_reply, admin_request};

mod devices;
mod funnel;
mod health;

use devices::{
    detail_from_wire, detail_to_wire, device_from_wire, device_to_wire, query_from_wire, query_to_wire,
};
pub(in crate::convert) use devices::{token_from_wire, token_to_wire};
use funnel::{
    candidates_from_wire, candidates_to_wire, count_from_wire, count_to_wire, funnel_from_wire,
    funnel_to_wire,
};
use health::{health_from_wire, health_to_wire};
pub(in crate::convert) use health::{log_status_from_wire, log_status_to_wire};

/// Encodes an operator's request.
pub fn admin_request_to_wire(request: AdminRequest) -> wire::AdminRequest {
    use admin_request::Kind;
    let kind = match request {
        AdminRequest::CreateTask { plan, frozen } => Kind::CreateTask(wire::CreateTask { plan, frozen }),
        AdminRequest::ListTasks => Kind::ListTasks(wire::ListTasks {}),
        AdminRequest::ShowTask(task) => Kind::ShowTask(wire::ShowTask { task: task.0.to_vec() }),
        AdminRequest::ShowPrivacy(task) => Kind::ShowPrivacy(wire::ShowPrivacy { task: task.0.to_vec() }),
        AdminRequest::SignVersion { task, version } => {
            Kind::SignVersion(wire::SignVersion { task: task.0.to_vec(), version })
        }
        AdminRequest::StopTask(task) => Kind::StopTask(wire::StopTask { task: task.0.to_vec() }),
        AdminRequest::ResumeTask(task) => Kind::ResumeTask(wire::ResumeTask { task: task.0.to_vec() }),
        AdminRequest::IssueToken { label, lifetime_secs } => {
            Kind::IssueToken(wire::IssueToken { label, lifetime_secs })
        }
        AdminRequest::ListDevices(query) => Kind::ListDevices(query_to_wire(query)),
        AdminRequest::ShowDevice(device) => Kind::ShowDevice(wire::ShowDevice { device: device.0.to_vec() }),
        AdminRequest::ListTokens => Kind::ListTokens(wire::ListTokens {}),
        AdminRequest::RevokeToken(token) => Kind::RevokeToken(wire::RevokeToken { token: token.0.to_vec() }),
        AdminRequest::RollBack { task, version } => {
            Kind::RollBack(wire::RollBack { task: task.0.to_vec(), version })
        }
        AdminRequest::RevokeDevice(device) => {
            Kind::RevokeDevice(wire::RevokeDevice { device: device.0.to_vec() })
        }
        AdminRequest::Fetch { digest, offset } => {
            Kind::Fetch(wire::Fetch { digest: digest.0.to_vec(), offset })
        }
        AdminRequest::ShowHealth => Kind::ShowHealth(wire::ShowHealth {}),
        AdminRequest::ListOperators => Kind::ListOperators(wire::ListOperators {}),
        AdminRequest::RevokeOperator(serial) => {
            Kind::RevokeOperator(wire::RevokeOperator { serial: serial.0.to_vec() })
        }
        AdminRequest::SignOperator { certificate_request_pem } => {
            Kind::SignOperator(wire::SignOperator { certificate_request_pem })
        }
        AdminRequest::AddOperator { name, role, certificate_request_pem } => {
            Kind::AddOperator(wire::AddOperator {
                name,
                role: role_to_wire(role).into(),
                certificate_request_pem,
            })
        }
        AdminRequest::ReadAudit { from } => Kind::ReadAudit(wire::ReadAudit { from }),
    };
    wire::AdminRequest { kind: Some(kind) }
}

/// Decodes an operator's request.
pub fn admin_request_from_wire(message: wire::AdminRequest) -> Result<AdminRequest, WireError> {
    use admin_request::Kind;
    Ok(match present("request", message.kind)? {
        Kind::CreateTask(wire::CreateTask { plan, frozen }) => AdminRequest::CreateTask { plan, frozen },
        Kind::ListTasks(wire::ListTasks {}) => AdminRequest::ListTasks,
        Kind::ShowTask(show) => AdminRequest::ShowTask(TaskId(fixed("task", &show.task)?)),
        Kind::ShowPrivacy(show) => AdminRequest::ShowPrivacy(TaskId(fixed("task", &show.task)?)),
        Kind::SignVersion(sign) => {
            AdminRequest::SignVersion { task: TaskId(fixed("task", &sign.task)?), version: sign.version }
        }
        Kind::StopTask(stop) => AdminRequest::StopTask(TaskId(fixed("task", &stop.task)?)),
        Kind::ResumeTask(resume) => AdminRequest::ResumeTask(TaskId(fixed("task", &resume.task)?)),
        Kind::IssueToken(wire::IssueToken { label, lifetime_secs }) => {
            AdminRequest::IssueToken { label, lifetime_secs }
        }
        Kind::ListDevices(query) => AdminRequest::ListDevices(query_from_wire(query)?),
        Kind::ShowDevice(show) => AdminRequest::ShowDevice(DeviceId(fixed("device", &show.device)?)),
        Kind::ListTokens(wire::ListTokens {}) => AdminRequest::ListTokens,
        Kind::RevokeToken(revoke) => AdminRequest::RevokeToken(TokenId(fixed("token", &revoke.token)?)),
        Kind::RollBack(back) => {
            AdminRequest::RollBack { task: TaskId(fixed("task", &back.task)?), version: back.version }
        }
        Kind::RevokeDevice(revoke) => AdminRequest::RevokeDevice(DeviceId(fixed("device", &revoke.device)?)),
        Kind::Fetch(fetch) => {
            AdminRequest::Fetch { digest: digest("fetch", &fetch.digest)?, offset: fetch.offset }
        }
        Kind::ShowHealth(wire::ShowHealth {}) => AdminRequest::ShowHealth,
        Kind::ListOperators(wire::ListOperators {}) => AdminRequest::ListOperators,
        Kind::RevokeOperator(revoke) => {
            AdminRequest::RevokeOperator(Serial(fixed("serial number", &revoke.serial)?))
        }
        Kind::SignOperator(wire::SignOperator { certificate_request_pem }) => {
            AdminRequest::SignOperator { certificate_request_pem }
        }
        Kind::AddOperator(wire::AddOperator { name, role, certificate_request_pem }) => {
            let role = role_from_wire(role)?.ok_or_else(|| error("operator", "it has no role"))?;
            AdminRequest::AddOperator { name, role, certificate_request_pem }
        }
        Kind::ReadAudit(wire::ReadAudit { from }) => AdminRequest::ReadAudit { from },
    })
}

/// Encodes a reply to the operator.
pub fn admin_reply_to_wire(reply: AdminReply) -> wire::AdminReply {
    use admin_reply::Kind;
    let kind = match reply {
        AdminReply::Task(status) => Kind::Task(task_to_wire(status)),
        AdminReply::Privacy(spent) => Kind::Privacy(spent_to_wire(spent)),
        AdminReply::Signed { key, signature } => {
            Kind::Signed(wire::Signed { key: key.0.to_vec(), signature: signature.0.to_vec() })
        }
        AdminReply::Tasks(tasks) => {
            Kind::Tasks(wire::TaskList { tasks: tasks.into_iter().map(task_to_wire).collect() })
        }
        AdminReply::Token(text) => Kind::Token(wire::Token { text }),
        AdminReply::Devices { devices, more } => Kind::Devices(wire::DeviceList {
            devices: devices.into_iter().map(device_to_wire).collect(),
            more,
        }),
        AdminReply::Device(detail) => Kind::Device(detail_to_wire(detail)),
        AdminReply::TokenList(tokens) => {
            Kind::TokenList(wire::TokenList { tokens: tokens.into_iter().map(token_to_wire).collect() })
        }
        AdminReply::Chunk(chunk) => Kind::Chunk(chunk_to_wire(chunk)),
        AdminReply::Done => Kind::Done(wire::Received {}),
        AdminReply::Health(health) => Kind::Health(health_to_wire(health)),
        AdminReply::Operators(operators) => Kind::Operators(wire::OperatorList {
            operators: operators
                .into_iter()
                .map(|operator| wire::OperatorStatus {
                    serial: operator.serial.0.to_vec(),
                    name: operator.name,
                    issued_unix_secs: operator.issued_unix_secs,
                    expires_unix_secs: operator.expires_unix_secs,
                    revoked: operator.revoked,
                    role: role_to_wire(operator.role).into(),
                })
                .collect(),
        }),
        AdminReply::Certificate(pem) => Kind::Certificate(wire::Certificate { pem }),
        AdminReply::Audit(AuditPart { lines, last, head, key }) => {
            Kind::Audit(wire::AuditPart { lines, last, head, key: key.to_vec() })
        }
    };
    wire::AdminReply { kind: Some(kind) }
}

/// Decodes a reply to the operator.
pub fn admin_reply_from_wire(message: wire::AdminReply) -> Result<AdminReply, WireError> {
    use admin_reply::Kind;
    Ok(match present("reply", message.kind)? {
        Kind::Task(status) => AdminReply::Task(task_from_wire(status)?),
        Kind::Privacy(spent) => AdminReply::Privacy(spent_from_wire(spent)?),
        Kind::Signed(signed) => AdminReply::Signed {
            key: IdentityPublic(fixed("signature", &signed.key)?),
            signature: signature("signature", &signed.signature)?,
        },
        Kind::Tasks(list) => {
            AdminReply::Tasks(list.tasks.into_iter().map(task_from_wire).collect::<Result<_, _>>()?)
        }
        Kind::Token(token) => AdminReply::Token(token.text),
        Kind::Devices(list) => AdminReply::Devices {
            devices: list.devices.into_iter().map(device_from_wire).collect::<Result<_, _>>()?,
            more: list.more,
        },
        Kind::Device(detail) => AdminReply::Device(detail_from_wire(detail)?),
        Kind::TokenList(list) => {
            AdminReply::TokenList(list.tokens.into_iter().map(token_from_wire).collect::<Result<_, _>>()?)
        }
        Kind::Chunk(chunk) => AdminReply::Chunk(chunk_from_wire(chunk)?),
        Kind::Done(wire::Received {}) => AdminReply::Done,
        Kind::Health(health) => AdminReply::Health(health_from_wire(health)?),
        Kind::Operators(list) => {
            let read = |operator: wire::OperatorStatus| {
                Ok(OperatorStatus {
                    serial: Serial(fixed("serial number", &operator.serial)?),
                    name: operator.name,
                    issued_unix_secs: operator.issued_unix_secs,
                    expires_unix_secs: operator.expires_unix_secs,
                    revoked: operator.revoked,
                    role: role_from_wire(operator.role)?.unwrap_or_default(),
                })
            };
            AdminReply::Operators(list.operators.into_iter().map(read).collect::<Result<_, WireError>>()?)
        }
        Kind::Certificate(wire::Certificate { pem }) => AdminReply::Certificate(pem),
        Kind::Audit(wire::AuditPart { lines, last, head, key }) => {
            AdminReply::Audit(AuditPart { lines, last, head, key: fixed("audit key", &key)? })
        }
    })
}

fn role_to_wire(role: Role) -> wire::OperatorRole {
    match role {
        Role::Viewer => wire::OperatorRole::Viewer,
        Role::Operator => wire::OperatorRole::Operator,
        Role::Admin => wire::OperatorRole::Admin,
    }
}

/// None where nothing is said of a role.
fn role_from_wire(role: i32) -> Result<Option<Role>, WireError> {
    Ok(match wire::OperatorRole::try_from(role) {
        Ok(wire::OperatorRole::Unspecified) => None,
        Ok(wire::OperatorRole::Viewer) => Some(Role::Viewer),
        Ok(wire::OperatorRole::Operator) => Some(Role::Operator),
        Ok(wire::OperatorRole::Admin) => Some(Role::Admin),
        Err(_) => return Err(error("operator", format!("{role} is not a role"))),
    })
}

fn state_to_wire(state: TaskState) -> wire::TaskState {
    match state {
        TaskState::Active => wire::TaskState::Active,
        TaskState::Complete => wire::TaskState::Complete,
        TaskState::BudgetSpent => wire::TaskState::BudgetSpent,
        TaskState::Stopped => wire::TaskState::Stopped,
        TaskState::Paused => wire::TaskState::Paused,
    }
}

fn state_from_wire(state: i32) -> Result<TaskState, WireError> {
    Ok(match wire::TaskState::try_from(state) {
        Ok(wire::TaskState::Active) => TaskState::Active,
        Ok(wire::TaskState::Complete) => TaskState::Complete,
        Ok(wire::TaskState::BudgetSpent) => TaskState::BudgetSpent,
        Ok(wire::TaskState::Stopped) => TaskState::Stopped,
        Ok(wire::TaskState::Paused) => TaskState::Paused,
        Ok(wire::TaskState::Unspecified) | Err(_) => {
            return Err(error("task", format!("{state} is not a state")));
        }
    })
}

fn mode_to_wire(mode: Mode) -> wire::PrivacyMode {
    match mode {
        Mode::Off => wire::PrivacyMode::Off,
        Mode::Central => wire::PrivacyMode::Central,
        Mode::Distributed => wire::PrivacyMode::Distributed,
    }
}

fn mode_from_wire(mode: i32) -> Result<Mode, WireError> {
    Ok(match wire::PrivacyMode::try_from(mode) {
        Ok(wire::PrivacyMode::Off) => Mode::Off,
        Ok(wire::PrivacyMode::Central) => Mode::Central,
        Ok(wire::PrivacyMode::Distributed) => Mode::Distributed,
        Ok(wire::PrivacyMode::Unspecified) | Err(_) => {
            return Err(error("privacy", format!("{mode} is not a mode")));
        }
    })
}

fn spent_to_wire(spent: PrivacySpent) -> wire::PrivacySpent {
    let count = |count: &ParticipationCount| wire::ParticipationCount {
        participations: count.participations,
        devices: count.devices,
        epsilon: count.epsilon,
    };
    wire::PrivacySpent {
        task: spent.task.0.to_vec(),
        name: spent.name,
        state: state_to_wire(spent.state).into(),
        mode: mode_to_wire(spent.mode).into(),
        epsilon: spent.epsilon,
        delta: spent.delta,
        epsilon_budget: spent.epsilon_budget,
        rounds_charged: spent.rounds_charged,
        participations_allowed: spent.participations_allowed,
        participations: spent.participations.iter().map(count).collect(),
    }
}

fn spent_from_wire(message: wire::PrivacySpent) -> Result<PrivacySpent, WireError> {
    let count = |count: &wire::ParticipationCount| ParticipationCount {
        participations: count.participations,
        devices: count.devices,
        epsilon: count.epsilon,
    };
    Ok(PrivacySpent {
        task: TaskId(fixed("privacy", &message.task)?),
        name: message.name,
        state: state_from_wire(message.state)?,
        mode: mode_from_wire(message.mode)?,
        epsilon: message.epsilon,
        delta: message.delta,
        epsilon_budget: message.epsilon_budget,
        rounds_charged: message.rounds_charged,
        participations_allowed: message.participations_allowed,
        participations: message.participations.iter().map(count).collect(),
    })
}

fn task_to_wire(status: TaskStatus) -> wire::TaskStatus {
    wire::TaskStatus {
        task: status.task.0.to_vec(),
        name: status.name,
        state: state_to_wire(status.state).into(),
        version: status.version,
        versions_wanted: status.versions_wanted,
        plan: status.plan.0.to_vec(),
        adapter: status.adapter.0.to_vec(),
        epsilon: status.epsilon,
        delta: status.delta,
        rounds_charged: status.rounds_charged,
        versions: status.versions.iter().map(version_to_wire).collect(),
        open_round: status.open_round,
        round: status.round.map(round_to_wire),
        gathering: status.gathering.map(gathering_to_wire),
        last_abort: status.last_abort,
        declined: status.declined.into_iter().map(count_to_wire).collect(),
        mode: mode_to_wire(status.mode).into(),
        funnel: status.funnel.map(funnel_to_wire),
        last_funnel: status.last_funnel.map(funnel_to_wire),
        candidates: status.candidates.map(candidates_to_wire),
    }
}

fn task_from_wire(message: wire::TaskStatus) -> Result<TaskStatus, WireError> {
    Ok(TaskStatus {
        task: TaskId(fixed("task", &message.task)?),
        name: message.name,
        state: state_from_wire(message.state)?,
        version: message.version,
        versions_wanted: message.versions_wanted,
        plan: digest("task", &message.plan)?,
        adapter: digest("task", &message.adapter)?,
        mode: mode_from_wire(message.mode)?,
        epsilon: message.epsilon,
        delta: message.delta,
        rounds_charged: message.rounds_charged,
        versions: message.versions.iter().map(version_from_wire).collect::<Result<_, _>>()?,
        open_round: message.open_round,
        round: message.round.map(round_from_wire),
        gathering: message.gathering.map(gathering_from_wire),
        last_abort: message.last_abort,
        declined: message.declined.into_iter().map(count_from_wire).collect::<Result<_, _>>()?,
        funnel: message.funnel.map(funnel_from_wire),
        last_funnel: message.last_funnel.map(funnel_from_wire),
        candidates: message.candidates.map(candidates_from_wire),
    })
}

fn round_to_wire(open: OpenRound) -> wire::OpenRound {
    let OpenRound { round, joining, done, wanted, least, closes_unix_millis } = open;
    wire::OpenRound { round, joining, done, wanted, least, closes_unix_millis }
}

fn round_from_wire(message: wire::OpenRound) -> OpenRound {
    let wire::OpenRound { round, joining, done, wanted, least, closes_unix_millis } = message;
    OpenRound { round, joining, done, wanted, least, closes_unix_millis }
}

fn gathering_to_wire(gathering: Gathering) -> wire::Gathering {
    let Gathering { sums, least, most, open, devices } = gathering;
    wire::Gathering { sums, least, most, open, devices }
}

fn gathering_from_wire(message: wire::Gathering) -> Gathering {
    let wire::Gathering { sums, least, most, open, devices } = message;
    Gathering { sums, least, most, open, devices }
}

fn version_to_wire(version: &VersionStatus) -> wire::VersionStatus {
    wire::VersionStatus {
        version: version.version,
        cohort: version.cohort,
        survivors: version.survivors,
        round: version.round,
        epsilon: version.epsilon,
        adapter: version.adapter.0.to_vec(),
        folded: version.folded.map_or_else(Vec::new, |digest| digest.0.to_vec()),
        committed_unix_millis: version.committed_unix_millis,
        clip_norm: version.clip_norm,
        metrics: version.metrics.iter().map(metric_to_wire).collect(),
        restores: version.restores,
        rolled_back: version.rolled_back,
        rounds: Some(version.rounds),
    }
}

fn metric_to_wire(metric: &MeanMetric) -> wire::MeanMetric {
    let name = match metric.name {
        MetricName::Loss => wire::MetricName::Loss,
        MetricName::Examples => wire::MetricName::Examples,
        MetricName::Norm => wire::MetricName::Norm,
        MetricName::Clipped => wire::MetricName::Clipped,
        MetricName::Gain => wire::MetricName::Gain,
        MetricName::BaseGain => wire::MetricName::BaseGain,
    };
    let MeanMetric { name: _, mean, standard_deviation, range } = *metric;
    wire::MeanMetric { name: name.into(), mean, standard_deviation, range }
}

fn metric_from_wire(message: &wire::MeanMetric) -> Result<MeanMetric, WireError> {
    let name = match wire::MetricName::try_from(message.name) {
        Ok(wire::MetricName::Loss) => MetricName::Loss,
        Ok(wire::MetricName::Examples) => MetricName::Examples,
        Ok(wire::MetricName::Norm) => MetricName::Norm,
        Ok(wire::MetricName::Clipped) => MetricName::Clipped,
        Ok(wire::MetricName::Gain) => MetricName::Gain,
        Ok(wire::MetricName::BaseGain) => MetricName::BaseGain,
        Ok(wire::MetricName::Unspecified) | Err(_) => {
            return Err(error("metric", format!("{} is not a metric", message.name)));
        }
    };
    let wire::MeanMetric { name: _, mean, standard_deviation, range } = *message;
    Ok(MeanMetric { name, mean, standard_deviation, range })
}

fn version_from_wire(message: &wire::VersionStatus) -> Result<VersionStatus, WireError> {
    Ok(VersionStatus {
        version: message.version,
        cohort: message.cohort,
        survivors: message.survivors,
        round: message.round,
        epsilon: message.epsilon,
        adapter: digest("version", &message.adapter)?,
        folded: digest_if_any("version", &message.folded)?,
        committed_unix_millis: message.committed_unix_millis,
        clip_norm: message.clip_norm,
        metrics: message.metrics.iter().map(metric_from_wire).collect::<Result<_, _>>()?,
        restores: message.restores,
        rolled_back: message.rolled_back,
        rounds: message.rounds.unwrap_or(1),
    })
}
