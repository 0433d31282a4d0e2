//! One device of a world.

use std::sync::Arc;

use aggregation::{Credential, IdentityKey};
use proto::ids::{DeviceId, Timestamp};
use proto::plan::Plan;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use session::policy::Policy;
use session::spending::{Charge, Found, Spending};
use session::{Action, Device, Event, Session, Signed, Work};

use crate::books::DeviceBook;

/// One device, and what is durable of it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) device: Arc<Device>,
    pub(super) session: Session,
    rng: ChaCha20Rng,
    pub(super) charges: Vec<(Timestamp, Charge)>,
    /// What its ledger holds by the coordinator's word.
    pub(super) found: Vec<(Timestamp, Found)>,
    pub(super) signatures: Vec<Signed>,
    /// What its ledger holds of answers.
    pub(super) answers: Vec<Signed>,
    pub(super) installed: Option<Arc<Work>>,
    pub(super) book: DeviceBook,
    /// Whether its update is the known one.
    pub(super) trained: bool,
    /// Whether, beside that, all that it heard since it joined, and all that was heard of it, was true.
    pub(super) honest: bool,
}

impl Node {
    /// A device that has not acted yet, with a credential until `expires`.
    pub(super) fn new(
        index: u8,
        plan: &Plan,
        authority: &IdentityKey,
        (dawn, expires): (Timestamp, Timestamp),
    ) -> Self {
        let identity = IdentityKey::from_seed(&[index + 1; 32]);
        let id = [index; 16];
        let credential = Credential::issue(authority, id, identity.public(), expires.as_secs() + 1);
        let policy = Policy {
            allow_without_noise: true,
            least_noise_multiplier: 0.0,
            largest_epsilon: f64::INFINITY,
            participations_a_day: 1000,
            smallest_cohort: 2,
            smallest_corrupt: 0,
            smallest_report_goal: 2,
            ..Policy::default()
        };
        let device = Arc::new(Device {
            device: DeviceId(id),
            identity,
            credential,
            authority: authority.public(),
            bases: vec![plan.base],
            policy,
        });
        Self {
            session: start(Arc::clone(&device), Spending::new(), &[], None, dawn),
            device,
            rng: ChaCha20Rng::from_seed([index; 32]),
            charges: Vec::new(),
            found: Vec::new(),
            signatures: Vec::new(),
            answers: Vec::new(),
            installed: None,
            book: DeviceBook::default(),
            trained: false,
            honest: false,
        }
    }

    /// Forgets everything that is not durable, and starts again.
    pub(super) fn restart(&mut self, now: Timestamp) {
        let (device, installed) = (Arc::clone(&self.device), self.installed.as_deref());
        let mut spending = Spending::new();
        for (at, charge) in &self.charges {
            spending.add(charge, *at);
        }
        for (at, found) in &self.found {
            spending.add_found(found, *at);
        }
        self.session = start(device, spending, &self.signatures, installed, now);
        self.book.restarted();
    }

    /// Takes an event, and shows its book what it would do next.
    pub(super) fn hears(&mut self, event: Event, now: Timestamp) {
        let fresh = start(Arc::clone(&self.device), Spending::new(), &[], None, now);
        let session = std::mem::replace(&mut self.session, fresh);
        self.session = session.handle(event, now, &mut self.rng);
        self.session.take_ended();
        if let Action::Send(request) = self.session.action() {
            self.book.asks(&request);
        }
    }
}

/// A device's machine, from what is durable of the device.
fn start(
    device: Arc<Device>,
    spending: Spending,
    signatures: &[Signed],
    installed: Option<&Work>,
    now: Timestamp,
) -> Session {
    let session = Session::new(device, spending, installed.map(|work| work.published), now);
    session.having_signed(signatures.iter().cloned())
}

/// The update of one device at one version: known, and not clipped.
pub(super) fn update(device: usize, version: u32, len: usize) -> Vec<f32> {
    let mut update = vec![0.0; len];
    update[device % len] = 1.0;
    update[(device + 7 * version as usize + 1) % len] += 0.25 * (1 + version) as f32;
    update
}
