//! What the operator asks and what the coordinator answers.

use aggregation::{IdentityPublic, Signature};
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest, Serial, TaskId, TokenId};
use crate::message::Chunk;
use crate::metrics::MetricName;
use crate::plan::Mode;
use crate::role::Role;

mod devices;
mod funnel;
mod health;

pub use devices::{
    Attested, DeviceDetail, DeviceQuery, DeviceState, DeviceStatus, DeviceTask, TokenState, TokenStatus,
};
pub use funnel::{Candidates, DeclineCount, Funnel};
pub use health::{AuthorityStatus, Health, LogStatus, ServedBase, TurnedAwayCount, WitnessStatus};

/// What the operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// Starts a task.
    CreateTask {
        /// The plan's bytes.
        plan: Vec<u8>,
        /// Frozen factors, where the plan names some by their hash; else empty.
        frozen: Vec<u8>,
    },
    /// All tasks.
    ListTasks,
    /// One task.
    ShowTask(TaskId),
    /// What a task's devices have spent.
    ShowPrivacy(TaskId),
    /// Vouches for a version: the coordinator's signature over its `Release` (of `nightshift-formats`).
    SignVersion {
        /// The task.
        task: TaskId,
        /// The version; one that came out of a round.
        version: u32,
    },
    /// Ends a task.
    StopTask(TaskId),
    /// Lets a task go on that paused itself.
    ResumeTask(TaskId),
    /// Gives a task's next version the parameters of an earlier one.
    RollBack {
        /// The task.
        task: TaskId,
        /// The version whose parameters come back.
        version: u32,
    },
    /// Makes a bootstrap token for one device.
    IssueToken {
        /// For people.
        label: String,
        /// Seconds until it is worthless.
        lifetime_secs: u64,
    },
    /// Enrolled devices.
    ListDevices(DeviceQuery),
    /// One device, and what it has spent.
    ShowDevice(DeviceId),
    /// All bootstrap tokens.
    ListTokens,
    /// Makes a bootstrap token worthless that nobody has used.
    RevokeToken(TokenId),
    /// Shuts a device out.
    RevokeDevice(DeviceId),
    /// A part of an artefact.
    Fetch {
        /// Its hash.
        digest: Digest,
        /// First byte.
        offset: u64,
    },
    /// How the coordinator is.
    ShowHealth,
    /// All certificates of operators.
    ListOperators,
    /// Makes an operator's certificate worthless, for ever.
    RevokeOperator(Serial),
    /// Vouches for a new key of the operator who asks, in the role that they have.
    SignOperator {
        /// A certificate signing request, in PEM.
        certificate_request_pem: String,
    },
    /// Makes somebody else an operator.
    AddOperator {
        /// Their name.
        name: String,
        /// What they may do.
        role: Role,
        /// A certificate signing request with their key, in PEM.
        certificate_request_pem: String,
    },
    /// Entries of the audit log, in their order.
    ReadAudit {
        /// The number of the first one.
        from: u64,
    },
}

impl AdminRequest {
    /// The request's name, for refusals and the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateTask { .. } => "create task",
            Self::ListTasks => "list tasks",
            Self::ShowTask(_) => "show task",
            Self::ShowPrivacy(_) => "show privacy",
            Self::SignVersion { .. } => "sign version",
            Self::StopTask(_) => "stop task",
            Self::ResumeTask(_) => "resume task",
            Self::IssueToken { .. } => "issue token",
            Self::ListDevices(_) => "list devices",
            Self::ShowDevice(_) => "show device",
            Self::ListTokens => "list tokens",
            Self::RevokeToken(_) => "revoke token",
            Self::RollBack { .. } => "roll back",
            Self::RevokeDevice(_) => "revoke device",
            Self::Fetch { .. } => "fetch",
            Self::ShowHealth => "show health",
            Self::ListOperators => "list operators",
            Self::RevokeOperator(_) => "revoke operator",
            Self::SignOperator { .. } => "sign operator",
            Self::AddOperator { .. } => "add operator",
            Self::ReadAudit { .. } => "read audit",
        }
    }
}

/// What the coordinator answers the operator.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminReply {
    /// To create, show and stop.
    Task(TaskStatus),
    /// To what was spent.
    Privacy(PrivacySpent),
    /// To sign a version.
    Signed {
        /// Who signed.
        key: IdentityPublic,
        /// Over what.
        signature: Signature,
    },
    /// To list.
    Tasks(Vec<TaskStatus>),
    /// The token's text.
    Token(String),
    /// To list devices.
    Devices {
        /// Those that were asked for.
        devices: Vec<DeviceStatus>,
        /// Whether there are further ones behind the last.
        more: bool,
    },
    /// To one device.
    Device(DeviceDetail),
    /// To list tokens.
    TokenList(Vec<TokenStatus>),
    /// To a fetch.
    Chunk(Chunk),
    /// To revoke.
    Done,
    /// To how it is.
    Health(Health),
    /// To list operators.
    Operators(Vec<OperatorStatus>),
    /// A certificate and its authority's, in PEM.
    Certificate(String),
    /// To reading the audit log.
    Audit(AuditPart),
}

/// A part of the audit log, with what the rest of it is held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPart {
    /// Whole lines, as they are in the log; none where nothing so late was written.
    pub lines: Vec<u8>,
    /// The newest entry's number; 0 where there is none.
    pub last: u64,
    /// The newest head that the coordinator keeps elsewhere than in the log, as JSON; empty where there is none.
    pub head: String,
    /// The key that signs heads.
    pub key: [u8; 32],
}

/// A certificate of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// Its serial number.
    pub serial: Serial,
    /// The operator's name.
    pub name: String,
    /// When it was made.
    pub issued_unix_secs: u64,
    /// Its last second.
    pub expires_unix_secs: u64,
    /// Whether it is worthless.
    pub revoked: bool,
    /// What its holder may do.
    #[serde(default)]
    pub role: Role,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Devices are given work.
    Active,
    /// All versions are there.
    Complete,
    /// One more round would pass the task's ε.
    BudgetSpent,
    /// The operator ended it.
    Stopped,
    /// It waits for its operator: two versions in a row were worse than the ones before.
    Paused,
}

impl TaskState {
    /// Whether there will be no further version.
    pub fn is_over(self) -> bool {
        match self {
            Self::Active | Self::Paused => false,
            Self::Complete | Self::BudgetSpent | Self::Stopped => true,
        }
    }
}

/// One published version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The version.
    pub version: u32,
    /// Devices in the rosters of its rounds.
    pub cohort: u32,
    /// Devices in their sums.
    pub survivors: u32,
    /// The number of its round, or of the newest of several.
    pub round: u64,
    /// Of how many rounds it is; one where an older coordinator does not say, none where no round made it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub rounds: u32,
    /// ε of the device that took part most often, at the plan's δ; infinite without noise.
    #[serde(with = "crate::admin::finite")]
    pub epsilon: f64,
    /// The hash of the trained parameters.
    pub adapter: Digest,
    /// The hash of what earlier epochs left, where factors were drawn anew before.
    #[serde(default)]
    pub folded: Option<Digest>,
    /// When it was committed.
    pub committed_unix_millis: u64,
    /// The L2 bound of updates that are trained from it.
    pub clip_norm: f64,
    /// What the devices of its round said in the sum, in the plan's order: of the version that they trained from, where it
    /// is a gain.
    pub metrics: Vec<MeanMetric>,
    /// Where the version before was found worse than its own, or an operator rolled back: the version of which this one has
    /// the parameters again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u32>,
    /// Whether an operator rolled back to it, and no round made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
}

/// A mean over the devices of a round, with the noise that the sum has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanMetric {
    /// Which.
    pub name: MetricName,
    /// The mean; noise may carry it out of its range.
    pub mean: f64,
    /// Standard deviation of the noise in it; 0 without noise.
    pub standard_deviation: f64,
    /// From the least value that is told apart to the largest; 0 where that was not written down.
    #[serde(default)]
    pub range: f64,
}

impl MeanMetric {
    /// Whether the mean is at an end of its range, where each device's value is clipped: what devices measured may be
    /// farther out than it says. Fractions and counts have no more beyond their ends. Where the noise alone may have carried the
    /// mean there, which it does where its standard deviation is more than a twentieth of the range, that is not said.
    pub fn is_at_bound(&self) -> bool {
        // As the last of three digits after the point.
        let near = 5e-4;
        self.range > 0.0
            && self.standard_deviation <= self.range / 20.0
            && match self.name {
                MetricName::Gain | MetricName::BaseGain => self.mean.abs() >= self.range / 2.0 - near,
                MetricName::Loss | MetricName::Norm => self.mean >= self.range - near,
                MetricName::Examples | MetricName::Clipped => false,
            }
    }

    /// Whether noise leaves enough of it to be told: its standard deviation is under a quarter of the range.
    pub fn is_known(&self) -> bool {
        self.standard_deviation <= 0.25 * if self.range > 0.0 { self.range } else { self.mean.abs() }
    }
}

/// A task and its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub task: TaskId,
    /// The plan's label.
    pub name: String,
    /// Where it stands.
    pub state: TaskState,
    /// The newest version.
    pub version: u32,
    /// Versions after which the task is complete.
    pub versions_wanted: u32,
    /// The plan's hash.
    pub plan: Digest,
    /// The hash of the newest trained parameters.
    pub adapter: Digest,
    /// Who adds noise: against whom ε holds.
    pub mode: Mode,
    /// ε so far; infinite without noise.
    #[serde(with = "crate::admin::finite")]
    pub epsilon: f64,
    /// The δ of ε.
    pub delta: f64,
    /// Rounds charged, aborted ones too.
    pub rounds_charged: u64,
    /// The published versions, oldest first.
    pub versions: Vec<VersionStatus>,
    /// The open round's step, empty when none is open. Of several, that which devices join, or else the oldest.
    pub open_round: String,
    /// Whom it waits for; absent when none is open, and from an older coordinator.
    #[serde(default)]
    pub round: Option<OpenRound>,
    /// What there is of the version that is being made; absent where a version is of one round.
    #[serde(default)]
    pub gathering: Option<Gathering>,
    /// Why the last aborted round ended, empty when none did.
    pub last_abort: String,
    /// How many devices do not take part, by their reasons, since the coordinator started.
    pub declined: Vec<DeclineCount>,
    /// How far devices came with the newest version; absent from an older coordinator.
    #[serde(default)]
    pub funnel: Option<Funnel>,
    /// How far they came with the one before; absent where nobody counted.
    #[serde(default)]
    pub last_funnel: Option<Funnel>,
    /// Who may take part; absent in a list of tasks.
    #[serde(default)]
    pub candidates: Option<Candidates>,
}

/// How far a version of several rounds is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathering {
    /// Rounds that gave their sums.
    pub sums: u32,
    /// Fewest of them that make a version.
    pub least: u32,
    /// Most of them.
    pub most: u32,
    /// Open rounds.
    pub open: u32,
    /// Devices in the sums.
    pub devices: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(rounds: &u32) -> bool {
    *rounds == 1
}

/// Whom the open step of a round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRound {
    /// The round's number in its task.
    pub round: u64,
    /// Whether devices still join.
    pub joining: bool,
    /// Devices that have done the step.
    pub done: u32,
    /// Devices that it waits for at most: the cohort while devices join, and then those that are still there.
    pub wanted: u32,
    /// The report goal: the fewest devices of which the round gives a sum.
    pub least: u32,
    /// When the step closes, in milliseconds since 1970; none while a sum is being opened.
    pub closes_unix_millis: Option<u64>,
}

/// What the devices of a task have spent, by the coordinator's charges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivacySpent {
    /// The task.
    pub task: TaskId,
    /// The plan's label.
    pub name: String,
    /// Where it stands.
    pub state: TaskState,
    /// Who adds noise.
    pub mode: Mode,
    /// ε of the device that took part most often; infinite without noise.
    #[serde(with = "crate::admin::finite")]
    pub epsilon: f64,
    /// The δ of ε.
    pub delta: f64,
    /// The task ends before its ε passes this.
    pub epsilon_budget: Option<f64>,
    /// Rounds charged, aborted ones too.
    pub rounds_charged: u64,
    /// Participations of one device that neither the plan's number nor its budget forbids.
    pub participations_allowed: u32,
    /// How many devices took part how often, the fewest participations first.
    pub participations: Vec<ParticipationCount>,
}

/// So many devices took part so often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParticipationCount {
    /// How often.
    pub participations: u32,
    /// How many devices.
    pub devices: u32,
    /// ε of each of them.
    #[serde(with = "crate::admin::finite")]
    pub epsilon: f64,
}

/// JSON has no infinity: `null` stands for it.
pub mod finite {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes `null` for a number that is not finite.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    /// Reads `null` as infinity.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
    }
}
