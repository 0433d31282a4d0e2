//! What becomes of bytes between a device and the coordinator: the seam at which a network, or whoever sits on it, acts.

use std::fmt::Debug;

use rand_chacha::ChaCha20Rng;

use crate::faults::Faults;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// A device's request.
    Request,
    /// One more copy of an earlier request of a device.
    Copy,
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

    /// What whoever sits on it makes of a request or a reply that arrives. Returns whether anything is another now.
    fn touches(&mut self, device: usize, leg: Leg, bytes: &mut Vec<u8>, rng: &mut ChaCha20Rng) -> bool {
        let _ = (device, leg, bytes, rng);
        false
    }

    /// How much later one more copy of a request arrives, behind what its device sends meanwhile; none where none does. It
    /// may do so where the request itself is lost.
    fn copies(&mut self, device: usize, rng: &mut ChaCha20Rng) -> Option<u64> {
        let _ = (device, rng);
        None
    }
}

/// A network that takes no time, and loses and repeats as often as is said.
impl Network for Faults {
    fn carry(&mut self, _: usize, leg: Leg, _: usize, rng: &mut ChaCha20Rng) -> Carriage {
        match leg {
            Leg::Request | Leg::Reply if self.loses(rng) => Carriage::Lost,
            Leg::Request | Leg::Copy => Carriage::Arrives { later_millis: 0, twice: self.repeats(rng) },
            Leg::Reply | Leg::Artifact => Carriage::Arrives { later_millis: 0, twice: false },
        }
    }
}
