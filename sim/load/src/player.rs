//! One device: the production machine, and what performs its actions as the agent does, without a user, a text or a training.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use client::enrollment::{EnrolledDevice, EnrollmentError, Membership};
use client::transport::{MAX_ARTIFACT_BYTES, Transport, TransportError};
use proto::ids::{Digest, SessionId, TaskId, Timestamp};
use proto::message::{Assignment, Before, Published, Reply, Request};
use proto::plan::{MAX_PLAN_BYTES, Plan, vector_to_bytes};
use proto::shown::shown;
use rand::rngs::SysRng;
use rand_core::{Rng, SeedableRng, UnwrapErr};
use session::update::Update;
use session::{Action, Event, LoadedBefore, Session, SessionState, Work};
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use zeroize::Zeroizing;

use crate::carried::Carried;
use crate::clock::{at, instant, now};
use crate::common::Common;
use crate::light::is_light;
use crate::memory::Memory;
use crate::place::{DevicePlace, PlaceError};
use crate::tally::Tally;
use crate::words;

/// How long a device stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Until the load ends.
    ToTheEnd,
    /// Until the coordinator has no more for it now.
    OneVisit,
}

/// Why a device left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The load ended.
    Stopped,
    /// All tasks are over.
    Complete,
    /// It did what it was given.
    Done,
    /// It cannot be played: its files or its keys.
    Broken(String),
}

/// A device that can be played.
#[derive(Debug)]
pub(crate) struct Player {
    place: DevicePlace,
    membership: Membership,
    memory: Memory,
    common: Arc<Common>,
}

impl Player {
    pub(crate) fn new(
        place: DevicePlace,
        membership: Membership,
        common: Arc<Common>,
    ) -> Result<Self, PlaceError> {
        let memory = place.memory()?;
        Ok(Self { place, membership, memory, common })
    }

    /// Writes down what it remembers, for the next run.
    pub(crate) fn keep(&self) -> Result<(), PlaceError> {
        self.place.keep_memory(&self.memory)
    }

    /// The device as one that may connect.
    pub(crate) fn enrolled(&self) -> Result<EnrolledDevice, EnrollmentError> {
        let bases = self.common.bases().into_iter().collect();
        let way = (Some(self.common.load.coordinator.as_str()), &self.common.proxy);
        self.membership.clone().enrolled(&self.place.keys(), way, bases, Common::policy())
    }

    /// Plays from `due` on, by a connection of its own.
    pub(crate) async fn visit(&mut self, mut due: Instant, stay: Stay) -> Left {
        loop {
            let EnrolledDevice { device, transport, lifetime, .. } = match self.enrolled() {
                Ok(enrolled) => enrolled,
                Err(error) => return Left::Broken(error.to_string()),
            };
            let carried = Carried::new(&self.common, &transport);
            let bases = device.bases.clone();
            let session = self.memory.session(Arc::new(device), lifetime, now());
            let visit = Visit {
                player: self,
                transport,
                bases,
                rng: generator(),
                due,
                stay,
                has_asked: false,
                joins: None,
                declared: None,
                partial: None,
            };
            let ended = visit.play(session).await;
            drop(carried);
            match ended {
                Ok(left) => return left,
                // As an agent whose base has come: it begins anew, and says that it has it.
                Err(NewBase { base, at }) => {
                    self.common.learns(base);
                    self.common.tally().began_anew += 1;
                    due = at;
                }
            }
        }
    }
}

/// A task is on a base that the device did not say that it has.
struct NewBase {
    base: Digest,
    at: Instant,
}

/// A device that is connected.
struct Visit<'a> {
    player: &'a mut Player,
    transport: Transport,
    bases: Vec<Digest>,
    rng: ChaCha20Rng,
    /// When the next question is to be sent: what the device was told to wait for, or when it had worked out what to ask. That
    /// this program was busy meanwhile does not move it.
    due: Instant,
    stay: Stay,
    has_asked: bool,
    /// The task that it asked for a place in last, and the version that it trained from.
    joins: Option<(TaskId, u32)>,
    /// The session whose input was declared to be whole, until who is in the sum is heard.
    declared: Option<SessionId>,
    /// What came of an artifact before a connection broke.
    partial: Option<(Digest, Vec<u8>)>,
}

impl Visit<'_> {
    async fn play(mut self, mut session: Session) -> Result<Left, NewBase> {
        loop {
            if self.common().stop.is_cancelled() {
                return Ok(Left::Stopped);
            }
            if session.is_complete() {
                self.common().tally().complete += 1;
                return Ok(Left::Complete);
            }
            let rests = session.state() == SessionState::Waiting && session.at_work_on().is_none();
            let event = match session.action() {
                Action::Sleep(_) if rests && self.has_asked && self.stay == Stay::OneVisit => {
                    return Ok(Left::Done);
                }
                Action::Sleep(until) => self.sleep(until).await,
                Action::Send(request) => self.send(&request).await,
                Action::Renew { has_certificate } => self.renew(has_certificate).await,
                Action::LoadPlan(published) => match self.load_plan(&published).await {
                    Some(Event::PlanLoaded(bytes)) => {
                        if let Ok(Plan { base, .. }) = Plan::parse(&bytes)
                            && !self.bases.contains(&base)
                        {
                            return Err(NewBase { base, at: self.due });
                        }
                        Some(Event::PlanLoaded(bytes))
                    }
                    other => other,
                },
                Action::Load { published, frozen, before, plan: _, trains: _ } => {
                    self.load(published, frozen, before).await
                }
                Action::Train(work) => self.train(&work).await,
                other @ (Action::RecordFound(_)
                | Action::Install(_)
                | Action::Charge(_)
                | Action::RecordDraws(_)
                | Action::RecordLog(_)
                | Action::RecordSignature(_)
                | Action::RecordAnswer(_)) => {
                    self.write_down(other);
                    Some(Event::Recorded)
                }
            };
            let Some(event) = event else { return Ok(Left::Stopped) };
            session = match self.handle(session, event).await {
                Ok(session) => session,
                Err(why) => return Ok(Left::Broken(why)),
            };
            if let Some(ended) = session.take_ended() {
                Tally::one_more(&mut self.common().tally().ended, &words::of_end(&ended));
            }
        }
    }

    fn common(&self) -> &Common {
        &self.player.common
    }

    /// Lets the machine take what came.
    async fn handle(&mut self, session: Session, event: Event) -> Result<Session, String> {
        if is_light(&event) {
            return Ok(session.handle(event, now(), &mut self.rng));
        }
        let mut rng = mem::replace(&mut self.rng, ChaCha20Rng::from_seed([0; 32]));
        let work = move || {
            let session = session.handle(event, now(), &mut rng);
            (session, rng)
        };
        let (session, rng) = self.computes(work).await?;
        self.rng = rng;
        Ok(session)
    }

    /// What computes waits for a processor of its own, which is this program's fault and not the device's: only how long it
    /// computes moves what is due.
    async fn computes<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let common = Arc::clone(&self.player.common);
        let Ok(_permit) = common.cores.acquire().await else {
            return Err("the processors are gone".to_owned());
        };
        let worked = spawn_blocking(move || {
            let began = instant();
            let done = work();
            (done, began.elapsed())
        });
        let (done, took) = worked.await.map_err(|error| error.to_string())?;
        self.due += took;
        Ok(done)
    }

    async fn sleep(&mut self, until: Timestamp) -> Option<Event> {
        let then = at(until);
        // What a visit begins with is due when it was to begin.
        if self.has_asked {
            self.due = self.due.max(then);
        }
        tokio::select! {
            () = sleep_until(then.into()) => Some(Event::Woke),
            () = self.player.common.stop.cancelled() => None,
        }
    }

    /// Asks the coordinator; none where the load ends meanwhile.
    async fn send(&mut self, request: &Request) -> Option<Event> {
        match request {
            Request::Join { task, version, .. } => self.joins = Some((*task, *version)),
            Request::Decline { reason, .. } => {
                Tally::one_more(&mut self.common().tally().declines, words::of_decline(*reason));
            }
            Request::MaskedDone { session, .. } => self.declared = Some(*session),
            Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Advertise { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. }
            | Request::MaskedChunk { .. }
            | Request::Agree { .. }
            | Request::Unmask { .. } => {}
        }
        let mut transport = self.transport.clone();
        let (answer, due) = self.asks(transport.send(request)).await?;
        Some(match answer {
            Ok(reply) => {
                self.is_told(request, &reply);
                self.common().answered(request.name(), reply.name(), (due, self.due));
                Event::Replied(reply)
            }
            Err(error) => self.fails(request.name(), error, due),
        })
    }

    /// What is asked leaves now. Gives what came of it, and when it was to leave; the next question is due from then on. None
    /// where the load ends meanwhile.
    async fn asks<T>(&mut self, asking: impl Future<Output = T>) -> Option<(T, Instant)> {
        self.has_asked = true;
        let due = self.due;
        let common = Arc::clone(&self.player.common);
        common.left(due, instant());
        let answer = tokio::select! {
            answer = asking => answer,
            () = common.stop.cancelled() => {
                common.tally().unanswered_at_end += 1;
                return None;
            }
        };
        self.due = instant();
        Some((answer, due))
    }

    /// What the answer says of a round.
    fn is_told(&mut self, request: &Request, reply: &Reply) {
        match reply {
            Reply::Offer { session, round, .. } => {
                if let Some(joins) = self.joins {
                    self.common().tally().offered(*session, joins, *round);
                }
            }
            Reply::Survivors(_) => {
                if let Some(session) = self.declared.take() {
                    self.common().tally().counted(session);
                }
            }
            Reply::Over(outcome) => {
                if let Some(session) = request.session() {
                    self.common().tally().over(session, outcome.word());
                }
            }
            Reply::Wait { latest, .. } => {
                let mut tally = self.common().tally();
                for published in latest {
                    tally.heard(published.task, published.version);
                }
            }
            Reply::Assignment(Assignment { published, .. }) => {
                self.common().tally().heard(published.task, published.version);
            }
            Reply::Chunk(_)
            | Reply::Roster { .. }
            | Reply::Drawn(_)
            | Reply::Inbox { .. }
            | Reply::Received
            | Reply::Evidence(_) => {}
        }
    }

    /// What the machine is told of a call that gave no answer of the protocol.
    fn fails(&self, request: &str, error: TransportError, due: Instant) -> Event {
        let why = words::of_failure(&error);
        match error {
            TransportError::Rejected(rejection) => {
                self.common().answered(request, &format!("refused: {why}"), (due, self.due));
                Event::Rejected(rejection)
            }
            other @ (TransportError::CertificateEnded { .. }
            | TransportError::Unreachable { .. }
            | TransportError::Answer(_)
            | TransportError::Setup { .. }
            | TransportError::Artifact { .. }) => {
                self.common().failed(request, why, &shown(&other.to_string()).to_string());
                if matches!(other, TransportError::CertificateEnded { .. }) {
                    Event::CertificateEnded
                } else {
                    Event::Unreachable
                }
            }
        }
    }

    async fn renew(&mut self, has_certificate: bool) -> Option<Event> {
        let (membership, keys) = (self.player.membership.clone(), self.player.place.keys());
        let transport = self.transport.clone();
        let (renewed, due) = self.asks(membership.renew(&keys, &transport, has_certificate)).await?;
        Some(match renewed {
            Ok((membership, renewed)) => {
                self.common().answered("renew", "renewed", (due, self.due));
                if let Err(error) = self.player.place.keep_membership(&membership) {
                    // It is good as long as this process lasts, and renewed again by the next.
                    tracing::warn!("a renewed certificate cannot be kept: {error}");
                }
                self.player.membership = membership;
                self.transport = renewed.transport;
                let issued_unix_secs = renewed.lifetime.issued_unix_secs;
                Event::Renewed { credential: renewed.credential, issued_unix_secs }
            }
            Err(EnrollmentError::Transport(error)) => self.fails("renew", error, due),
            Err(error) => {
                self.common().failed("renew", "not renewed", &shown(&error.to_string()).to_string());
                Event::Unreachable
            }
        })
    }

    async fn load_plan(&mut self, published: &Published) -> Option<Event> {
        let plan = self.artifact(published.plan, Keep::Yes, MAX_PLAN_BYTES as u64).await;
        plan.map_or_else(|event| event, |bytes| Some(Event::PlanLoaded(Arc::unwrap_or_clone(bytes))))
    }

    async fn load(
        &mut self,
        published: Published,
        frozen: Option<Digest>,
        before: Option<Before>,
    ) -> Option<Event> {
        let loaded = self.parts(&published, frozen, before).await;
        loaded.map_or_else(|event| event, Some)
    }

    /// What the machine wants of a version, in the order in which an agent fetches it.
    async fn parts(
        &mut self,
        published: &Published,
        frozen: Option<Digest>,
        before: Option<Before>,
    ) -> Result<Event, Option<Event>> {
        let frozen = self.kept_if_any(frozen).await?;
        let folded = self.kept_if_any(published.folded).await?;
        let before = match before {
            None => None,
            Some(before) => {
                let folded = self.kept_if_any(before.folded).await?;
                let adapter = self.artifact(before.adapter, Keep::No, MAX_ARTIFACT_BYTES).await?;
                Some(LoadedBefore { adapter: Arc::unwrap_or_clone(adapter), folded })
            }
        };
        let adapter = self.artifact(published.adapter, Keep::No, MAX_ARTIFACT_BYTES).await?;
        Ok(Event::Loaded { adapter: Arc::unwrap_or_clone(adapter), frozen, folded, before })
    }

    async fn kept_if_any(&mut self, digest: Option<Digest>) -> Result<Option<Vec<u8>>, Option<Event>> {
        match digest {
            None => Ok(None),
            Some(digest) => {
                let bytes = self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?;
                Ok(Some(Arc::unwrap_or_clone(bytes)))
            }
        }
    }

    /// An artifact, as the device holds it or from the coordinator; else what the machine is told, or nothing where the load
    /// ends meanwhile.
    async fn artifact(
        &mut self,
        digest: Digest,
        keep: Keep,
        most_bytes: u64,
    ) -> Result<Arc<Vec<u8>>, Option<Event>> {
        if let Some(held) = self.player.memory.holds(digest) {
            return Ok(held);
        }
        // What came before a connection broke is not fetched again.
        let partial = self.partial.take().filter(|(of, _)| *of == digest);
        let mut bytes = partial.map(|(_, bytes)| bytes).unwrap_or_default();
        let mut transport = self.transport.clone();
        let (done, due) = self.asks(transport.fetch(digest, most_bytes, &mut bytes)).await.ok_or(None)?;
        if let Err(error) = done {
            self.partial = Some((digest, bytes));
            return Err(Some(self.fails(FETCH, error, due)));
        }
        self.common().answered(FETCH, "whole", (due, self.due));
        let bytes = self.common().share(digest, bytes);
        if keep == Keep::Yes {
            self.player.memory.keep(digest, Arc::clone(&bytes));
        }
        Ok(bytes)
    }

    /// Plays a training: it takes its time, and moves each number by the same.
    async fn train(&mut self, work: &Arc<Work>) -> Option<Event> {
        let (secs, step) = (self.common().load.train_secs, self.common().load.step);
        if secs > 0.0 {
            self.due += Duration::from_secs_f64(secs);
            let then = self.due;
            tokio::select! {
                () = sleep_until(then.into()) => {}
                () = self.player.common.stop.cancelled() => return None,
            }
        }
        let work = Arc::clone(work);
        let moved = move || -> Result<Update, String> {
            let before = work.training().map_err(|error| error.to_string())?;
            let after: Vec<f32> = before.trained.iter().map(|number| number + step).collect();
            Update::between(&before.trained, &after, 0.0, 1).ok_or_else(|| "no update".to_owned())
        };
        self.common().tally().trainings += 1;
        Some(match self.computes(moved).await {
            Ok(Ok(update)) => Event::Trained(update),
            Ok(Err(why)) | Err(why) => Event::NotTrained(why),
        })
    }

    /// What a device of a user writes to its disk, and this one remembers.
    fn write_down(&mut self, action: Action) {
        let common = Arc::clone(&self.player.common);
        let memory = &mut self.player.memory;
        match action {
            Action::RecordFound(found) => memory.found(found),
            Action::Charge(charge) => memory.charge(&charge),
            Action::RecordDraws(times) => memory.draw(times),
            Action::RecordLog(seen) => memory.see(seen),
            Action::RecordSignature(signed) => memory.sign(signed),
            Action::Install(work) => {
                let published = work.published;
                let adapter = common.share(published.adapter, vector_to_bytes(&work.adapter));
                memory.install(published, adapter);
                let mut tally = common.tally();
                let versions = tally.installed.entry(published.task).or_default();
                *versions.entry(published.version).or_default() += 1;
            }
            // What is answered twice in one round, the machine refuses; another run is in no round of this one. Of the others
            // nothing is written.
            Action::RecordAnswer(_)
            | Action::Sleep(_)
            | Action::Send(_)
            | Action::Renew { .. }
            | Action::LoadPlan(_)
            | Action::Load { .. }
            | Action::Train(_) => {}
        }
    }
}

/// Whether what is fetched lasts on the device's disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// How the fetching of a whole artifact is called.
pub(crate) const FETCH: &str = "fetch";

/// A generator with a key from the system, wiped when it is dropped.
fn generator() -> ChaCha20Rng {
    let mut key = Zeroizing::new([0; 32]);
    UnwrapErr(SysRng).fill_bytes(key.as_mut_slice());
    ChaCha20Rng::from_seed(*key)
}
