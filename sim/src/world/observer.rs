//! Who watches a world: the seam at which what must never happen is looked for, while it could.

use std::fmt::Debug;

use proto::message::{Rejection, Reply, Request};
use task::TaskEffect;

use super::World;

/// Sees all that leaves a device and all that the coordinator decides, each with the world as it is at that moment. What it
/// finds wrong is its own matter: it may panic, or keep it.
pub trait Observer: Debug + Send + Sync {
    /// A request leaves the device at this place, whatever becomes of it.
    fn asks(&mut self, world: &World, device: usize, request: &Request);

    /// The coordinator answers the device, whatever becomes of that.
    fn answers(&mut self, world: &World, device: usize, answer: &Result<Reply, Rejection>);

    /// The coordinator has made this durable, or its disk says so. Answers that follow from it leave afterwards.
    fn decides(&mut self, world: &World, effects: &[TaskEffect]);

    /// The device at this place starts from what is durable of it.
    fn starts(&mut self, world: &World, device: usize);
}
