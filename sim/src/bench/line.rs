//! Between one device and the desk: encodes, asks, decodes, and counts.

use std::time::Duration;

use prost::Message;
use proto::convert::{reply_from_wire, request_to_wire};
use proto::ids::DeviceId;
use proto::message::{Outcome, Reply, Request};
use proto::wire;

use super::BenchError;
use super::clock::timed;
use super::desk::Desk;

/// The steps of a round, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Advertise,
    Draw,
    Share,
    Mask,
    Agree,
    Unmask,
}

impl Step {
    pub(super) const ALL: [Self; 6] =
        [Self::Advertise, Self::Draw, Self::Share, Self::Mask, Self::Agree, Self::Unmask];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Advertise => "advertise",
            Self::Draw => "draw",
            Self::Share => "share",
            Self::Mask => "mask",
            Self::Agree => "agree",
            Self::Unmask => "unmask",
        }
    }
}

/// What one step cost one device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Its own work; neither the coordinator's nor waiting for it.
    pub(super) worked: Duration,
    /// Bytes of its requests.
    pub(super) up: u64,
    /// Bytes of the replies.
    pub(super) down: u64,
}

/// A device's costs by [`Step`]. Work counts to the step in which it is done, bytes to the step whose request
/// they belong to: an answer that is fetched by repeating a request counts to that request.
pub(super) type Costs = [Cost; Step::ALL.len()];

/// A step's state, and the request whose repetition brings its answer.
#[derive(Debug)]
pub(super) struct Asked<S> {
    state: S,
    request: Request,
    step: Step,
}

/// One device's line to the desk during one step.
#[derive(Debug)]
pub(super) struct Line<'a> {
    desk: &'a Desk,
    device: DeviceId,
    step: Step,
    costs: &'a mut Costs,
    /// Not the device's work.
    away: Duration,
    last: (&'static str, &'static str),
}

impl<'a> Line<'a> {
    /// Lets a device work on a step, and counts it.
    pub(super) fn during<T>(
        desk: &'a Desk,
        device: DeviceId,
        step: Step,
        costs: &'a mut Costs,
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut line = Self { desk, device, step, costs, away: Duration::ZERO, last: ("nothing", "nothing") };
        let (result, took) = timed(|| work(&mut line));
        let worked = took.saturating_sub(line.away);
        line.costs[step as usize].worked += worked;
        result
    }

    /// Work that a real device does not do in a round.
    pub(super) fn outside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (result, took) = timed(work);
        self.away += took;
        result
    }

    /// One request of this step and its reply.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Reply, BenchError> {
        self.exchange(self.step, request)
    }

    /// Sends what ends the device's part in the step; the coordinator says no more than to wait, or that
    /// nothing is left to do.
    pub(super) fn submit<S>(&mut self, state: S, request: Request) -> Result<Asked<S>, BenchError> {
        let (Reply::Wait { .. } | Reply::Over(Outcome::Published)) = self.ask(&request)? else {
            return Err(self.unexpected());
        };
        Ok(Asked { state, request, step: self.step })
    }

    /// Asks the same again, once the step has closed.
    pub(super) fn again<S>(&mut self, asked: Asked<S>) -> Result<(Reply, S), BenchError> {
        Ok((self.exchange(asked.step, &asked.request)?, asked.state))
    }

    /// The last reply was not one to its request.
    pub(super) fn unexpected(&self) -> BenchError {
        let (request, reply) = self.last;
        BenchError::WrongReply { request, reply }
    }

    fn exchange(&mut self, step: Step, request: &Request) -> Result<Reply, BenchError> {
        let bytes = request_to_wire(request).encode_to_vec();
        self.costs[step as usize].up += bytes.len() as u64;
        let (desk, device) = (self.desk, self.device);
        let bytes = self.outside(|| desk.answer(device, &bytes))?;
        self.costs[step as usize].down += bytes.len() as u64;
        let reply = reply_from_wire(wire::Reply::decode(bytes.as_slice())?)?;
        self.last = (request.name(), reply.name());
        Ok(reply)
    }
}
