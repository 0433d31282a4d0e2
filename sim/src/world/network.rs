//! What becomes of bytes between a device and the coordinator: the seam at which a network, or whoever sits on it, acts.

use std::fmt::Debug;

use rand_chacha::ChaCha20Rng;

use crate::faults::Faults;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// A device's request.
    Request,
    /// The coordinator's answer to it.
    Reply,
    /// A plan or a version, which the device fetches by its hash. It is asked for until it is there.
    Artifact,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// It does not arrive, and the device notices at once.
    Lost,
    /// It arrives so much later, and where that is said a second time too.
    Arrives {
        /// Milliseconds.
        later_millis: u64,
        /// Whether it arrives twice. Only a request does.
        twice: bool,
    },
}

/// A network between the devices of a world and its coordinator. All that is random about it follows from the generator
/// that it is given.
pub trait Network: Debug + Send + Sync {
    /// What becomes of so many bytes of the device at this place.
    fn carry(&mut self, device: usize, leg: Leg, bytes: usize, rng: &mut ChaCha20Rng) -> Carriage;
}

/// A network that takes no time, and loses and repeats as often as is said.
impl Network for Faults {
    fn carry(&mut self, _: usize, leg: Leg, _: usize, rng: &mut ChaCha20Rng) -> Carriage {
        match leg {
            Leg::Request | Leg::Reply if self.loses(rng) => Carriage::Lost,
            Leg::Request => Carriage::Arrives { later_millis: 0, twice: self.repeats(rng) },
            Leg::Reply | Leg::Artifact => Carriage::Arrives { later_millis: 0, twice: false },
        }
    }
}
