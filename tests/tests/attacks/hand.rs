//! The coordinator's machine with its shell, and the hand in front of it.

use std::collections::BTreeMap;

use aggregation::{Advertisement, Evidence, IndexSet, Signature};
use prost::Message;
use proto::convert::{request_from_wire, request_to_wire};
use proto::ids::{Digest, Timestamp};
use proto::message::{Assignment, Outcome, Rejection, Reply, Request};
use proto::plan::{Plan, vector_to_bytes};
use proto::wire;
use rand_chacha::ChaCha20Rng;
use task::{EnrollmentLog, Task, TaskEffect, TaskRecord};

use super::setting::{TASK, authority, id, place_of, rng, set};

/// When everything begins.
pub(crate) const DAWN: Timestamp = Timestamp(1_700_000_000_000);

/// What comes back to a device: nothing where the request or its answer is lost.
pub(crate) type Answer = Option<Result<Reply, Rejection>>;

/// What the coordinator has durable, and its machine.
pub(crate) struct Coordinator {
    pub(crate) task: Task,
    pub(crate) record: TaskRecord,
    /// What was made durable, oldest first.
    pub(crate) effects: Vec<TaskEffect>,
    /// What can be fetched; the hand may put other bytes under a hash.
    pub(crate) artifacts: BTreeMap<Digest, Vec<u8>>,
    pub(crate) clock: Timestamp,
    /// What its authority wrote down, where it keeps a log.
    pub(crate) enrolled: Option<EnrollmentLog>,
    plan_bytes: Vec<u8>,
    rng: ChaCha20Rng,
}

impl Coordinator {
    pub(crate) fn new(plan: &Plan) -> Self {
        let plan_bytes = plan.to_bytes().unwrap();
        let task = Task::new(TASK, &plan_bytes, None, authority().public()).unwrap();
        let adapter = vector_to_bytes(task.adapter());
        let record = task.record().clone();
        let artifacts =
            [plan_bytes.clone(), adapter].into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
        let (effects, rng) = (Vec::new(), rng(1));
        Self { task, record, effects, artifacts, clock: DAWN, enrolled: None, plan_bytes, rng }
    }

    /// Its rounds are about this log from now on.
    pub(crate) fn goes_by(&mut self, log: EnrollmentLog) {
        self.enrolled = Some(log);
        self.crash();
    }

    /// The machine's answer to what comes in the name of this device.
    pub(crate) fn serve(&mut self, from: usize, request: &Request) -> Result<Reply, Rejection> {
        let bytes = request_to_wire(request).encode_to_vec();
        let request = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap())?;
        let asks_for_work = matches!(request, Request::CheckIn(_));
        let answer = self.task.handle(id(from), request, self.clock, &mut self.rng);
        self.perform();
        match answer {
            // This one gives work to whoever asks: its devices are to find out for themselves.
            Ok(Reply::Wait { complete: false, .. }) if asks_for_work && self.task.is_active() => {
                let published = self.task.published();
                Ok(Reply::Assignment(Assignment { published, before: None, charges: Vec::new() }))
            }
            other => other,
        }
    }

    /// Loses everything that is not durable.
    pub(crate) fn crash(&mut self) {
        self.restore(self.record.clone());
    }

    /// Goes on from this record: from an old one, it is a coordinator that forgets.
    pub(crate) fn restore(&mut self, record: TaskRecord) {
        let task = Task::restore(TASK, &self.plan_bytes, None, authority().public(), record.clone()).unwrap();
        self.task = match &self.enrolled {
            Some(log) => task.with_log(log.clone()),
            None => task,
        };
        self.record = record;
    }

    /// Every set of survivors that was ever fixed for a round, as places.
    pub(crate) fn fixed(&self, of: u64) -> Vec<Vec<usize>> {
        let of_round = |effect: &TaskEffect| match effect {
            TaskEffect::FixSurvivors { round, survivors } if *round == of => {
                Some(survivors.iter().copied().map(place_of).collect())
            }
            TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Excluded { .. }
            | TaskEffect::Gathered { .. }
            | TaskEffect::Commit { .. }
            | TaskEffect::Aborted { .. }
            | TaskEffect::Paused { .. }
            | TaskEffect::End(_) => None,
        };
        self.effects.iter().filter_map(of_round).collect()
    }

    /// How the rounds ended that gave no version.
    pub(crate) fn aborted(&self) -> Vec<Outcome> {
        let outcome = |effect: &TaskEffect| match effect {
            TaskEffect::Aborted { outcome, .. } => Some(*outcome),
            TaskEffect::FixSurvivors { .. }
            | TaskEffect::Charge { .. }
            | TaskEffect::Excluded { .. }
            | TaskEffect::Gathered { .. }
            | TaskEffect::Commit { .. }
            | TaskEffect::Paused { .. }
            | TaskEffect::End(_) => None,
        };
        self.effects.iter().filter_map(outcome).collect()
    }

    /// Closes what is due then.
    pub(crate) fn pass_time(&mut self, to: Timestamp) {
        self.clock = self.clock.max(to);
        self.task.handle_timeout(self.clock, &mut self.rng);
        self.perform();
    }

    /// The shell's part.
    fn perform(&mut self) {
        self.task.open_in_place(self.clock, &mut self.rng);
        while let Some(effect) = self.task.poll_effect() {
            match &effect {
                TaskEffect::FixSurvivors { round, .. } | TaskEffect::Aborted { round, .. } => {
                    self.record.last_round = self.record.last_round.max(*round);
                }
                TaskEffect::Excluded { .. } | TaskEffect::Paused { .. } => {}
                TaskEffect::Charge { round, devices } => {
                    self.record.last_round = self.record.last_round.max(*round);
                    self.record.rounds_charged += 1;
                    self.record.participations.extend(devices.iter().copied());
                }
                TaskEffect::Gathered { round } => {
                    self.record.last_round = self.record.last_round.max(*round);
                    self.record.gathered = self.task.gathered().cloned();
                }
                TaskEffect::Commit { version, adapter, .. } => {
                    self.record.gathered = self.task.gathered().cloned();
                    self.artifacts.insert(version.adapter, adapter.clone());
                    self.record.adapter = self.task.adapter().to_vec();
                    self.record.optimizer = self.task.optimizer().clone();
                    self.record.versions.push((**version).clone());
                }
                TaskEffect::End(state) => self.record.state = *state,
            }
            self.effects.push(effect);
        }
    }
}

/// A request on its way, in the hand between a device and the coordinator.
pub(crate) struct Post<'a> {
    pub(crate) from: usize,
    pub(crate) request: Request,
    pub(crate) coordinator: &'a mut Coordinator,
}

impl Post<'_> {
    /// Hands the request on as it now is.
    #[expect(clippy::unnecessary_wraps, reason = "it is what a hand answers")]
    pub(crate) fn pass(&mut self) -> Answer {
        Some(self.coordinator.serve(self.from, &self.request))
    }

    /// Whether it is the request of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.request.name() == name
    }
}

/// The answer of a hand that changes nothing.
pub(crate) fn honest(post: &mut Post<'_>) -> Answer {
    post.pass()
}

/// A roster of a world whose authority keeps no log.
pub(crate) fn unlisted(entries: Vec<Advertisement>) -> Reply {
    Reply::Roster { entries, listed: Vec::new() }
}

/// Nothing new: the device asks again.
#[expect(clippy::unnecessary_wraps, reason = "it is what a hand answers")]
pub(crate) fn wait() -> Answer {
    Some(Ok(Reply::wait(250)))
}

/// What a coordinator keeps that answers the devices by itself.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) entries: BTreeMap<usize, Advertisement>,
    /// Over transcripts.
    pub(crate) signatures: BTreeMap<usize, Signature>,
    /// Over the sharers.
    pub(crate) sharing: BTreeMap<usize, Signature>,
}

impl Gathered {
    /// Keeps what a request tells.
    pub(crate) fn keep(&mut self, post: &Post<'_>) {
        match &post.request {
            Request::Advertise { advertisement, .. } => {
                self.entries.insert(post.from, (**advertisement).clone());
            }
            Request::Agree { signature, .. } => {
                self.signatures.insert(post.from, *signature);
            }
            Request::MaskedDone { sharing, .. } => {
                self.sharing.insert(post.from, *sharing);
            }
            Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::Unmask { .. } => {}
        }
    }

    /// The advertisements in roster order.
    pub(crate) fn roster(&self) -> Vec<Advertisement> {
        self.entries.values().cloned().collect()
    }

    /// The signatures over a transcript of these devices, and over the sharers of the other survivors. Of whom there
    /// is none, one of zeros.
    pub(crate) fn evidence(&self, survivors: &IndexSet, agreed: &[u16]) -> Reply {
        let none = Signature([0; 64]);
        let signatures = survivors.iter().map(|place| {
            let of = if agreed.contains(&place.get()) { &self.signatures } else { &self.sharing };
            of.get(&usize::from(place)).copied().unwrap_or(none)
        });
        let signatures = signatures.collect();
        Reply::Evidence(Evidence { agreed: set(survivors.places(), agreed), signatures })
    }
}
