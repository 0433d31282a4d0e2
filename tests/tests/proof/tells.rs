//! Between a world and its watch: tells the watch something else than what was.

use proto::message::{Rejection, Reply, Request};
use sim::world::{Observer, World};
use task::TaskEffect;

use super::setting::Setting;

/// Tells the watch something else than what was.
struct Tells<F> {
    watch: Box<dyn Observer>,
    other: F,
}

impl<F> std::fmt::Debug for Tells<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tells")
    }
}

/// What a device or the coordinator does, in place of what it should.
pub(crate) enum Does<'a> {
    /// The device at this place sends all these, where it sent one.
    Asks(usize, &'a mut Vec<Request>),
    Decides(&'a mut Vec<TaskEffect>),
    Answers(&'a mut Result<Reply, Rejection>),
}

impl<F: FnMut(Does<'_>) + Send + Sync> Observer for Tells<F> {
    fn asks(&mut self, world: &World, device: usize, request: &Request) {
        let mut requests = vec![request.clone()];
        (self.other)(Does::Asks(device, &mut requests));
        for request in &requests {
            self.watch.asks(world, device, request);
        }
    }

    fn answers(&mut self, world: &World, device: usize, answer: &Result<Reply, Rejection>) {
        let mut answer = answer.clone();
        (self.other)(Does::Answers(&mut answer));
        self.watch.answers(world, device, &answer);
    }

    fn decides(&mut self, world: &World, effects: &[TaskEffect]) {
        let mut effects = effects.to_vec();
        (self.other)(Does::Decides(&mut effects));
        self.watch.decides(world, &effects);
    }

    fn starts(&mut self, world: &World, device: usize) {
        self.watch.starts(world, device);
    }
}

/// This world, in which somebody does something else.
pub(crate) fn told(setting: Setting, other: impl FnMut(Does<'_>) + Send + Sync + 'static) -> Setting {
    Setting { observer: Box::new(Tells { watch: setting.observer, other }), ..setting }
}

/// It is not noticed that a device hears of survivors.
pub(crate) fn tells_no_survivors(answer: &mut Result<Reply, Rejection>) {
    if matches!(answer, Ok(Reply::Survivors(_) | Reply::Evidence(_))) {
        *answer = Ok(Reply::Received);
    }
}
