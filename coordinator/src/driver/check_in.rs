//! A device asks for work: the tasks are asked one after another, each under its own lock, until one has some.
//!
//! Only the task itself says what it has for a device; in which order tasks are asked follows from what their last steps
//! left. A task in a long step is passed by. Only where no other has work, its step is waited for after all, for a while;
//! then the device is told to ask again soon.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::DeviceId;
use proto::message::{Assignment, Charged, MOST_LATEST, Published, Rejection, Reply};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use task::Task;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::Driver;
use super::cell::{Cell, Hold};
use super::clock::now;
use super::error::DriverError;
use crate::records;

/// What a device is told while there is no task at all, in milliseconds.
const NO_TASK_MILLIS: u64 = 30_000;

/// How long a device waits for tasks that it passed by, where no other has work for it.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// What a device is told when a task is in a long step that could have work for it, in milliseconds.
const BUSY_MILLIS: u64 = 1_000;

/// What a task has for a device that it gives no work.
enum Heard {
    Wait {
        retry_millis: u64,
        latest: Vec<Published>,
        complete: bool,
        /// Whether the device was charged for it.
        is_its: bool,
    },
    /// The disk takes nothing, or all serving has ended.
    Refused(Rejection),
}

/// A device's way through the tasks.
struct Way {
    device: DeviceId,
    cells: Arc<Vec<Arc<Cell>>>,
    /// The places of those that are still to be asked, the next one last.
    ahead: Vec<usize>,
    /// Those that were passed by, and are not waited for yet.
    passed_by: Vec<usize>,
    /// What those said that were asked.
    heard: Vec<(usize, Heard)>,
}

impl Driver {
    /// The active task that has work for the device, first those that it did not decline, of these the one with the fewest
    /// rounds so far, of these the oldest; else the newest task's wait. So tasks take turns, and all devices that ask at a
    /// time come to the same one, which fills its round.
    pub(super) async fn check_in(&self, device: DeviceId) -> Result<Reply, Rejection> {
        self.check_failed()?;
        let mut way = Way::of(device, self.tasks.all());
        while let Some(place) = way.ahead.pop() {
            way = match Arc::clone(&way.cells[place]).hold_soon().await {
                None => way.pass_by(place),
                Some(hold) => match self.ask_on(way, (place, hold)).await? {
                    Asked::Answered(answer) => return answer,
                    Asked::MustWait(way) => way,
                },
            };
        }
        let (until, mut waiting) = (Instant::now() + LONGEST_WAIT, JoinSet::new());
        loop {
            for place in way.passed_by.drain(..) {
                let cell = Arc::clone(&way.cells[place]);
                waiting.spawn(async move {
                    cell.was_free().await;
                    place
                });
            }
            // The one that is free first.
            let Ok(Some(free)) = timeout_at(until, waiting.join_next()).await else { break };
            let place = free.map_err(|error| self.broken(&error.to_string()))?;
            way = match Arc::clone(&way.cells[place]).hold_soon().await {
                None => way.pass_by(place),
                Some(hold) => match self.ask_on(way, (place, hold)).await? {
                    Asked::Answered(answer) => return answer,
                    Asked::MustWait(way) => way,
                },
            };
        }
        way.end()
    }

    /// Asks the task that is held, and those behind it, on a thread that may block.
    async fn ask_on(&self, way: Way, held: (usize, Hold)) -> Result<Asked, Rejection> {
        let driver = self.clone();
        let asked = spawn_blocking(move || driver.go_on(way, held)).await;
        asked.map_err(|error| self.broken(&error.to_string()))
    }

    /// Asks tasks as long as they are free.
    fn go_on(&self, mut way: Way, (mut place, mut hold): (usize, Hold)) -> Asked {
        let device = way.device;
        loop {
            let answer = self.step_in(&mut hold, |entry| {
                let answer = entry.check_in(device, now(), &mut UnwrapErr(SysRng))?;
                Ok(answer.map(|reply| (reply, entry.task().charged(device).is_some())))
            });
            drop(hold);
            let heard = match answer {
                Ok((Reply::Assignment(assignment), _)) => {
                    return Asked::Answered(self.with_charges(&way, assignment));
                }
                Ok((Reply::Wait { retry_millis, latest, complete }, is_its)) => {
                    Heard::Wait { retry_millis, latest, complete, is_its }
                }
                Ok((other, _)) => return Asked::Answered(Ok(other)),
                Err(rejection) => Heard::Refused(rejection),
            };
            way.heard.push((place, heard));
            let next =
                way.ahead.last().and_then(|next| Some((*next, Arc::clone(&way.cells[*next]).hold_now()?)));
            let Some(next) = next else { return Asked::MustWait(way) };
            way.ahead.pop();
            (place, hold) = next;
        }
    }

    /// Adds how often the device was charged in other tasks, the newest first: a device that was restored from a backup
    /// learns of all that it spent before it spends more.
    fn with_charges(&self, way: &Way, mut assignment: Assignment) -> Result<Reply, Rejection> {
        for cell in way.cells.iter().rev().filter(|cell| cell.id != assignment.published.task) {
            if assignment.charges.len() >= MOST_LATEST {
                break;
            }
            let charged = self.charged(cell, way.device);
            assignment.charges.extend(charged.map_err(|error| self.fail(&error))?);
        }
        Ok(Reply::Assignment(assignment))
    }

    /// How often a task charged the device; while a step of it is under way, what is durable of that. No reply has left
    /// that depends on more.
    fn charged(&self, cell: &Cell, device: DeviceId) -> Result<Option<Charged>, DriverError> {
        if let Some(charged) = cell.look(|task: &Task| task.charged(device)) {
            return Ok(charged);
        }
        let rounds = records::participations(&self.kept.store, cell.id, device, cell.participations)?;
        Ok((rounds > 0).then(|| Charged { published: cell.seen().published, rounds }))
    }
}

/// How far a device came.
enum Asked {
    Answered(Result<Reply, Rejection>),
    /// The next task is not free.
    MustWait(Way),
}

impl Way {
    fn of(device: DeviceId, cells: Arc<Vec<Arc<Cell>>>) -> Self {
        let mut ahead: Vec<usize> = (0..cells.len()).collect();
        ahead.sort_by_cached_key(|place| {
            let seen = cells[*place].seen();
            // Those that are not active have no work, but news.
            let turn = seen.is_active.then(|| (cells[*place].was_declined_by(device), seen.rounds_charged));
            (turn.is_none(), turn)
        });
        ahead.reverse();
        Self { device, cells, ahead, passed_by: Vec::new(), heard: Vec::new() }
    }

    fn pass_by(mut self, place: usize) -> Self {
        self.passed_by.push(place);
        self
    }

    /// The answer where there is nothing to do: when to ask again, whether all tasks are over for the device, and what
    /// came of those that it took part in, and of the newest.
    fn end(mut self) -> Result<Reply, Rejection> {
        let Some(newest) = self.cells.len().checked_sub(1) else { return Ok(Reply::wait(NO_TASK_MILLIS)) };
        // One that was passed by may still have work.
        let is_all = self.heard.len() > newest;
        let (mut retry, mut is_over) = (if is_all { u64::MAX } else { BUSY_MILLIS }, is_all);
        let mut all = Vec::new();
        self.heard.sort_by_key(|(place, _)| *place);
        for (place, heard) in self.heard {
            match heard {
                Heard::Wait { retry_millis, latest, complete, is_its } => {
                    retry = retry.min(retry_millis);
                    is_over &= complete;
                    all.extend(latest.into_iter().filter(|_| is_its || place == newest));
                }
                Heard::Refused(rejection) => return Err(rejection),
            }
        }
        let latest = all.split_off(all.len().saturating_sub(MOST_LATEST));
        Ok(Reply::Wait { retry_millis: retry, latest, complete: is_over })
    }
}
