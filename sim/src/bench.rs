//! How long a round takes: `nightshift-sim bench secagg`.
//!
//! One whole secure sum in memory, without training: the typestate of every device against the coordinator's
//! real machine, every message through the wire code. Devices vanish at the moment that is dearest for the
//! coordinator, after they shared their seeds and before they submit. What is left out: disks, TLS, the network.
//!
//! [`secagg`] is the way of a round; a device's steps are in `bench/device.rs`, the coordinator's side is in
//! `bench/desk.rs`, and what is said of it all in [`Report`].

use std::time::Duration;

use aggregation::{Context, Credential, IdentityKey, MAX_COMPLETE, Refusal, RosterError};
use proto::convert::WireError;
use proto::files::FileError;
use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::{Outcome, Rejection};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use task::round::RoundParams;
use task::spool::{FolderSpooler, InMemory, Spooler};

mod clock;
mod desk;
mod device;
mod input;
mod line;
mod options;
mod report;

use clock::timed;
use desk::{Desk, End};
use device::{Common, Device};
use input::Inputs;
use line::{Costs, Line, Step};
use options::CORRUPT_PERMILLE;
pub use options::{Options, OptionsError};
pub use report::{Bytes, DeviceSecs, Report, StepReport};

/// When the round takes place; credentials are valid then.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// How long a step waits for devices that do not come, in milliseconds. Nobody really waits.
const STEP_MILLIS: u64 = 60_000;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no such round.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// There are no such threads.
    #[error("no pool of threads: {0}")]
    Threads(#[from] ThreadPoolBuildError),
    /// A device left.
    #[error("a device left the round: {0}")]
    Refused(#[from] Refusal),
    /// The roster is none.
    #[error("a device left the round: {0}")]
    Roster(#[from] RosterError),
    /// The coordinator turned a device away.
    #[error("the coordinator turned `{request}` away: {rejection}")]
    Rejected {
        /// What was asked.
        request: &'static str,
        /// Why not.
        rejection: Rejection,
    },
    /// The answer does not belong to the request.
    #[error("the coordinator answered `{reply}` to `{request}`")]
    WrongReply {
        /// What was asked.
        request: &'static str,
        /// What came.
        reply: &'static str,
    },
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Wire(#[from] WireError),
    /// Our own bytes could not be read back.
    #[error("the wire does not carry its own messages: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The coordinator has no place for inputs.
    #[error("no place for inputs: {0}")]
    Spool(#[from] std::io::Error),
    /// The folder for inputs cannot be used.
    #[error(transparent)]
    Folder(#[from] FileError),
    /// The coordinator's thread broke off.
    #[error("the coordinator's thread broke off")]
    Gone,
    /// No sum was published.
    #[error("the round ended without a sum: {}", .0.map_or_else(|| "it is open".to_owned(), |o| o.to_string()))]
    NoSum(Option<Outcome>),
}

/// A device, what it has cost, and its state in the protocol.
struct Seat<S> {
    device: Device,
    costs: Costs,
    state: S,
}

/// One round on its way.
struct Stage {
    common: Common,
    desk: Desk,
    pool: ThreadPool,
    /// Wall time by step.
    walls: [Duration; Step::ALL.len()],
    /// The coordinator's work by step.
    coordinator: [Duration; Step::ALL.len()],
}

/// Plays and measures one round. Everything random follows from `seed`.
pub fn secagg(options: &Options, seed: u64) -> Result<Report, BenchError> {
    let report_goal = options.report_goal()?;
    let threads = match options.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let pool = || ThreadPoolBuilder::new().num_threads(threads).build();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let authority = IdentityKey::from_seed(&draw(&mut rng));
    let context = Context {
        session: aggregation::SessionId(draw(&mut rng)),
        task: aggregation::TaskId(draw(&mut rng)),
        round: 1,
        model_digest: aggregation::ModelDigest(Digest::of(b"no model").0),
        plan_digest: aggregation::PlanDigest(Digest::of(b"no plan").0),
        len: options.coordinates,
        ring_bits: options.bits,
        report_goal,
        cohort: options.devices,
        corrupt: aggregation::corrupt_devices(options.devices, CORRUPT_PERMILLE),
        missing_fraction_permille: options.planned_missing_permille(),
        log: None,
    };
    let params = RoundParams {
        context: context.clone(),
        cohort: options.devices,
        report_goal,
        authority: authority.public(),
        log: None,
        join_millis: STEP_MILLIS,
        step_millis: STEP_MILLIS,
        grace_millis: STEP_MILLIS,
        poll_millis: 1,
    };
    let spooler: Box<dyn Spooler> = match &options.spool {
        // In a folder of its own there: a spool empties its folder.
        Some(folder) => Box::new(FolderSpooler::new(&folder.join("nightshift-spool"))?),
        None => Box::new(InMemory),
    };
    let inputs = Inputs { seed, coordinates: options.coordinates, bits: options.bits };
    let devices = (0..options.devices).map(|number| enrol(number, &authority, &mut rng)).collect();
    let stage = Stage {
        common: Common { context, authority: authority.public(), now: NOW, inputs },
        desk: Desk::open(params, &*spooler, NOW, &pool()?)?,
        pool: pool()?,
        walls: Default::default(),
        coordinator: Default::default(),
    };
    stage.play(devices, options)
}

impl Stage {
    fn play(mut self, devices: Vec<Seat<()>>, options: &Options) -> Result<Report, BenchError> {
        let processor_before = engine::process::processor_time();
        let advertised = self.step(Step::Advertise, devices, device::advertise)?;
        let mut shared = if options.devices > MAX_COMPLETE {
            let drawn = self.step(Step::Draw, advertised, device::draw)?;
            self.step(Step::Share, drawn, device::share_drawn)?
        } else {
            self.step(Step::Share, advertised, device::share)?
        };
        let vanished = shared.split_off(options.devices - options.vanishing());
        let mut costs: Vec<Costs> = vanished.into_iter().map(|seat| seat.costs).collect();
        let submitted = self.step(Step::Mask, shared, device::mask)?;
        let agreed = self.step(Step::Agree, submitted, device::agree)?;
        // The sum is open before the last device has sent its shares, so all of them hear the quorum first.
        let heard = self.part(Step::Unmask, agreed, device::reveal)?;
        let unmasked = self.step(Step::Unmask, heard, device::unmask)?;
        let left = self.part(Step::Unmask, unmasked, device::leave)?;
        let processor = engine::process::processor_time().zip(processor_before);

        let sum = match self.desk.finish()? {
            End { outcome: Some(Outcome::Published), sum: Some(sum) } => sum,
            End { outcome, .. } => return Err(BenchError::NoSum(outcome)),
        };
        let survivors: Vec<usize> = left.iter().map(|seat| seat.device.number).collect();
        costs.splice(0..0, left.iter().map(|seat| seat.costs));
        let inputs = self.common.inputs;
        let exact = self.pool.install(|| inputs.sum_to(&survivors, &sum));
        Ok(Report::new(&report::Measured {
            costs: &costs,
            survivors: survivors.len(),
            walls: &self.walls,
            coordinator: &self.coordinator,
            processor: processor.map(|(after, before)| after.saturating_sub(before)),
            inputs,
            threads: self.pool.current_num_threads(),
            exact,
        }))
    }

    /// Lets every device take a step, and then the step close.
    fn step<A: Send, B: Send>(
        &mut self,
        step: Step,
        seats: Vec<Seat<A>>,
        act: impl Fn(&mut Device, &Common, &mut Line, A) -> Result<B, BenchError> + Sync,
    ) -> Result<Vec<Seat<B>>, BenchError> {
        let seats = self.part(step, seats, act)?;
        let before = self.desk.busy();
        let (closed, wall) = timed(|| self.desk.close_step());
        self.count(step, before, wall);
        closed.map(|()| seats)
    }

    /// Lets every device do a part of a step.
    fn part<A: Send, B: Send>(
        &mut self,
        step: Step,
        seats: Vec<Seat<A>>,
        act: impl Fn(&mut Device, &Common, &mut Line, A) -> Result<B, BenchError> + Sync,
    ) -> Result<Vec<Seat<B>>, BenchError> {
        let Self { common, desk, pool, .. } = &*self;
        let before = desk.busy();
        let act = |seat: Seat<A>| {
            let Seat { mut device, mut costs, state } = seat;
            let id = device.id;
            let work = |line: &mut Line| act(&mut device, common, line, state);
            let state = Line::during(desk, id, step, &mut costs, work)?;
            Ok(Seat { device, costs, state })
        };
        let (seats, wall) = timed(|| pool.install(|| seats.into_par_iter().map(act).collect()));
        self.count(step, before, wall);
        seats
    }

    fn count(&mut self, step: Step, busy_before: Duration, wall: Duration) {
        self.coordinator[step as usize] += self.desk.busy().saturating_sub(busy_before);
        self.walls[step as usize] += wall;
    }
}

fn enrol(number: usize, authority: &IdentityKey, rng: &mut ChaCha20Rng) -> Seat<()> {
    let id = DeviceId(draw(rng));
    let identity = IdentityKey::from_seed(&draw(rng));
    let expires_unix_secs = NOW.as_secs() + 86_400;
    let credential = Credential::issue(authority, id.0, identity.public(), expires_unix_secs);
    let rng = ChaCha20Rng::from_seed(draw(rng));
    Seat { device: Device { number, id, identity, credential, rng }, costs: Costs::default(), state: () }
}

fn draw<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
