//! A load from its beginning to its end: devices are there, begin as its shape says, and are told to leave.
#![expect(clippy::disallowed_methods, reason = "IO shell: devices play at the same time")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::transport::TransportError;
use proto::counted::counted;
use proto::message::{CheckIn, Reply, Request};
use proto::plan::{MAX_PLAN_BYTES, Plan};
use shell::cli::note;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::away::{Away, Came};
use crate::clock::{at, instant, machine_load, now, used};
use crate::common::Common;
use crate::descriptors::{self, TooFew};
use crate::enrolling::{self, EnrollingError};
use crate::generator::Generator;
use crate::latency::Latency;
use crate::options::Wanted;
use crate::place::{Place, PlaceError};
use crate::player::{FETCH, Left, Player, Stay};
use crate::report::{Ended, Process, Report};
use crate::shard::Shard;
use crate::tally::CHECK_IN;
use crate::tokens::Tokens;
use crate::words;

/// How often it is looked whether the load is to end.
const LOOKED: Duration = Duration::from_millis(50);

/// How often a person is told how far it is.
const TOLD: Duration = Duration::from_secs(10);

/// How often it is measured how late this program is woken.
const WOKEN: Duration = Duration::from_millis(20);

/// How long devices that were told to leave are waited for.
const LEAVING: Duration = Duration::from_secs(10);

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Too few descriptors.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// The folder.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Devices that cannot enroll.
    #[error(transparent)]
    Enrolling(#[from] EnrollingError),
    /// The keys of a device.
    #[error(transparent)]
    Enrollment(#[from] client::enrollment::EnrollmentError),
    /// The coordinator does not answer the first device.
    #[error("the coordinator does not take the first device, and no load was made: {why}{hint}")]
    Coordinator {
        /// Why.
        why: TransportError,
        /// What else may be done, if anything.
        hint: String,
    },
    /// The shard has no device.
    #[error("shard {shard} has none of {devices} devices; give more --devices, or fewer shards")]
    NoDevice {
        /// Which.
        shard: Shard,
        /// Of so many.
        devices: u32,
    },
    /// It was told to stop before it began.
    #[error("stopped before the load began; the devices are kept")]
    Stopped,
}

/// What came of a load.
pub(crate) struct Made {
    pub(crate) report: Report,
    /// What is not there for the next run, and why.
    pub(crate) not_kept: Vec<String>,
}

/// Makes the load.
pub(crate) async fn load(wanted: Wanted, tokens: Tokens, stop: CancellationToken) -> Result<Made, LoadError> {
    let Wanted { load, shard, dir, enroll_at_once, begin_at } = wanted;
    let numbers: Vec<u32> = shard.of(load.devices).collect();
    if numbers.is_empty() {
        return Err(LoadError::NoDevice { shard, devices: load.devices });
    }
    let (granted, devices) = (descriptors::raise(), numbers.len() as u64);
    let needed = descriptors::check(devices, enroll_at_once.into(), granted)?;
    let place = Place::open(&dir, shard)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // What ends the load is not what interrupts it.
    let ends = stop.child_token();
    let common = Arc::new(Common::new(load.clone(), place.bases()?, cores, ends.clone()));
    let at_once = usize::try_from(enroll_at_once).unwrap_or(1);
    let (players, enrolled) = enrolling::players(&place, &numbers, &tokens, (&common, at_once)).await?;
    drop(tokens);
    if let Some(first) = players.first() {
        look(first, &common, &dir).await?;
        place.keep_bases(&common.bases())?;
    }
    let mut begun_late = Duration::ZERO;
    if let Some(begin_at) = begin_at {
        begun_late = Duration::from_millis(now().millis_since(begin_at));
        if begun_late.is_zero() {
            note("waits for the moment at which the load begins");
        } else {
            note(&format!(
                "the load was to begin {:.1} s ago (--begin-at), and begins now; with a later one all shards begin together",
                begun_late.as_secs_f64()
            ));
        }
        tokio::select! {
            () = sleep_until(at(begin_at).into()) => {}
            () = stop.cancelled() => return Err(LoadError::Stopped),
        }
    }
    if stop.is_cancelled() {
        return Err(LoadError::Stopped);
    }

    common.tally().begins();
    let (machine_before, (cpu_before, _)) = (machine_load(), used());
    let (began, began_unix) = (instant(), now());
    let lag = tokio::spawn(lag(ends.clone()));
    let stage = Stage { common: Arc::clone(&common), shard, began };
    let mut playing = tokio::spawn(stage.play(players));
    let ended = until_the_end(&common, &mut playing, (began, &stop)).await;
    ends.cancel();
    let lasted = began.elapsed();
    let played = playing.await;
    let ended = match (ended, &played) {
        (Ended::NoMoreWork, Ok(_)) if common.tally().complete == 0 => Ended::NoDevice,
        (Ended::NoMoreWork, Err(_)) => Ended::NoDevice,
        (other, _) => other,
    };
    let Kept { players, not_left } = played.unwrap_or_else(|error| {
        common.tally().broken.one_more(&format!("all at once: {error}"));
        Kept::default()
    });
    let not_kept = not_kept(&players, place.keep_bases(&common.bases()));
    let lag = lag.await.unwrap_or_default();
    let ((cpu_after, peak_memory_bytes), machine_after) = (used(), machine_load());
    let counted = common.tally().clone();
    let generator = Generator {
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        cpu_secs: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
        peak_memory_bytes,
        machine_load: machine_before.zip(machine_after).map(|(before, after)| [before, after]),
        late: counted.late.clone(),
        lag,
        arrivals: counted.arrivals,
        arrivals_missed: counted.arrivals_missed,
        broken: counted.broken.count,
        not_left,
        begun_late_millis: u64::try_from(begun_late.as_millis()).unwrap_or(u64::MAX),
        descriptors_needed: needed,
        descriptors_granted: granted,
    };
    let process = Process {
        shard,
        devices: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
        enrolled,
        began_unix_millis: began_unix.0,
        lasted_millis: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        ended,
        generator,
    };
    Ok(Made { report: Report::of(load, process, counted), not_kept })
}

/// Writes down what devices remember, and says what could not be: the report is there all the same.
fn not_kept(players: &[Player], bases: Result<(), PlaceError>) -> Vec<String> {
    let mut not_kept: Vec<String> = bases.err().iter().map(PlaceError::to_string).collect();
    let failed: Vec<PlaceError> = players.iter().filter_map(|player| player.keep().err()).collect();
    if let Some(first) = failed.first() {
        not_kept.push(format!(
            "what {} of {} remember is not kept for the next run, of the first because: {first}",
            failed.len(),
            counted(players.len() as u64, "device", "devices")
        ));
    }
    not_kept
}

/// The first device asks what versions there are, without asking for work: so the coordinator is there and takes it, and the
/// base of the newest task is known, which all devices will say that they have.
async fn look(first: &Player, common: &Common, dir: &Path) -> Result<(), LoadError> {
    let mut transport = first.enrolled()?.transport;
    let request = Request::CheckIn(CheckIn { only_keeps: true, declined: Vec::new() });
    let due = instant();
    let refused = |why: TransportError| {
        let is_unknown = [words::NO_TLS, words::NOT_ENROLLED].contains(&words::of_failure(&why));
        let other = || format!("; with another --dir than {} new devices enroll", dir.display());
        let hint = if is_unknown { other() } else { String::new() };
        LoadError::Coordinator { why, hint }
    };
    let reply = transport.send(&request).await.map_err(refused)?;
    common.answered(CHECK_IN, reply.name(), (due, instant()));
    let Reply::Wait { latest, .. } = reply else { return Ok(()) };
    for published in latest {
        let (due, mut bytes) = (instant(), Vec::new());
        let fetched = transport.fetch(published.plan, MAX_PLAN_BYTES as u64, &mut bytes).await;
        match fetched {
            Ok(()) => common.answered(FETCH, "whole", (due, instant())),
            Err(error) => {
                common.failed(FETCH, words::of_failure(&error), &error.to_string());
                continue;
            }
        }
        if let Ok(plan) = Plan::parse(&bytes) {
            common.learns(plan.base);
        }
    }
    Ok(())
}

/// Waits until the load is to end, and tells how far it is.
async fn until_the_end(
    common: &Common,
    playing: &mut JoinHandle<Kept>,
    (began, stop): (Instant, &CancellationToken),
) -> Ended {
    let ends = began + Duration::from_secs(common.load.secs.into());
    let (mut looks, mut told) = (interval(LOOKED), began);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return Ended::Interrupted,
        }
        if playing.is_finished() {
            return Ended::NoMoreWork;
        }
        let at = instant();
        if at >= ends {
            return Ended::Time;
        }
        // Looks at all rounds: only where that is asked for.
        if let Some(versions) = common.load.versions
            && common.tally().versions() >= u64::from(versions)
        {
            return Ended::Versions;
        }
        if at.duration_since(told) >= TOLD {
            told = at;
            let tally = common.tally();
            let said = format!(
                "{:>5} s: {} check-ins, {} answers, {} without, {} rounds ended, {} versions",
                at.duration_since(began).as_secs(),
                tally.count_of(CHECK_IN),
                tally.answered_in_all(),
                tally.failed_in_all(),
                tally.ended_rounds(),
                tally.versions()
            );
            drop(tally);
            note(&said);
        }
    }
}

/// How much later than it was to a task woke that does nothing but sleep.
async fn lag(ends: CancellationToken) -> Latency {
    let mut lag = Latency::default();
    loop {
        let then = instant() + WOKEN;
        tokio::select! {
            () = sleep_until(then.into()) => lag.record(instant().saturating_duration_since(then)),
            () = ends.cancelled() => return lag,
        }
    }
}

/// The devices when the load is over.
#[derive(Default)]
struct Kept {
    players: Vec<Player>,
    /// Those that are not among them, since they took too long to leave.
    not_left: u64,
}

/// Where devices play.
struct Stage {
    common: Arc<Common>,
    shard: Shard,
    began: Instant,
}

impl Stage {
    /// Lets all devices play, until none has anything more to do or the load ends.
    async fn play(self, players: Vec<Player>) -> Kept {
        if self.common.load.shape.is_visits() {
            self.visits(players).await
        } else {
            self.stays(players).await
        }
    }

    fn due(&self, number: u32) -> Instant {
        let Self { common, began, .. } = self;
        *began + common.load.shape.begins(number, common.load.devices)
    }

    /// A device is to arrive now.
    fn arrives(common: &Common) {
        common.tally().arrivals += 1;
    }

    /// This program failed at a device.
    fn breaks(&self, why: &str) {
        self.common.tally().broken.one_more(why);
    }

    async fn stays(self, players: Vec<Player>) -> Kept {
        let (mut kept, mut away) = (Kept::default(), Away::new(self.common.stop.clone(), LEAVING));
        for (number, mut player) in self.shard.of(self.common.load.devices).zip(players) {
            let (due, common) = (self.due(number), Arc::clone(&self.common));
            away.goes(async move {
                tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = common.stop.cancelled() => return (player, Left::Stopped),
                }
                Self::arrives(&common);
                let left = player.visit(due, Stay::ToTheEnd).await;
                (player, left)
            });
        }
        loop {
            match away.comes().await {
                Came::Back(player, left) => self.takes(&mut kept, player, left),
                Came::Broken(why) => self.breaks(&why),
                Came::Nobody | Came::Overdue => break,
            }
        }
        kept.not_left = away.end().await;
        kept
    }

    async fn visits(self, players: Vec<Player>) -> Kept {
        let (mut kept, mut idle) = (Kept::default(), VecDeque::from(players));
        let mut away = Away::new(self.common.stop.clone(), LEAVING);
        let mut numbers = (0_u32..).filter(|number| self.shard.has(*number));
        let mut next = numbers.next();
        while !away.is_empty() || !idle.is_empty() {
            let stopped = self.common.stop.is_cancelled();
            if stopped && away.is_empty() {
                break;
            }
            let due = next.filter(|_| !stopped).map(|number| self.due(number));
            let arrival = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
                due
            };
            let is_any_away = !away.is_empty();
            tokio::select! {
                came = away.comes(), if is_any_away => match came {
                    Came::Back(player, Left::Done) => idle.push_back(player),
                    Came::Back(player, left) => self.takes(&mut kept, player, left),
                    Came::Broken(why) => self.breaks(&why),
                    Came::Nobody => {}
                    Came::Overdue => break,
                },
                Some(due) = arrival => {
                    next = numbers.next();
                    Self::arrives(&self.common);
                    let Some(mut player) = idle.pop_front() else {
                        self.common.tally().arrivals_missed += 1;
                        continue;
                    };
                    away.goes(async move {
                        let left = player.visit(due, Stay::OneVisit).await;
                        (player, left)
                    });
                }
                () = self.common.stop.cancelled(), if !stopped => {}
            }
        }
        kept.not_left = away.end().await;
        kept.players.extend(idle);
        kept
    }

    fn takes(&self, kept: &mut Kept, player: Player, left: Left) {
        match left {
            Left::Broken(why) => self.breaks(&why),
            Left::Stopped | Left::Complete | Left::Done => {}
        }
        kept.players.push(player);
    }
}
