//! When a device renews its certificate and its credential, which end together.
//!
//! It asks for the next ones between a half and two thirds of their life, each device at a time of its own, so that a
//! fleet that was enrolled in one hour is not renewed in one hour. One whose certificate has ended meanwhile, because it
//! lay in a drawer, asks without one: its identity key shows who it is.

use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::Rejection;

use super::outside::REFUSED_MILLIS;
use super::{Ended, Event, Session, Stage, Trained};

/// How long a device whose certificate is good still waits before it asks again, when it could not be renewed: ten
/// minutes.
const AGAIN_MILLIS: u64 = 10 * 60_000;

const DAY_MILLIS: u64 = 24 * 3_600_000;

/// From when to when a certificate and the credential beside it are good, in seconds since 1970 by the coordinator's
/// clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When they were made; 0 where that is not known.
    pub issued_unix_secs: u64,
    /// Their last second.
    pub expires_unix_secs: u64,
}

impl Lifetime {
    /// When this device asks for the next ones: at once where it is not known when these were made.
    pub fn renewal_due(self, device: DeviceId) -> Timestamp {
        let Self { issued_unix_secs, expires_unix_secs } = self;
        if issued_unix_secs == 0 {
            return Timestamp(0);
        }
        let life = expires_unix_secs.saturating_sub(issued_unix_secs).saturating_mul(1000);
        let drawn = Digest::of(&[&device.0[..], &expires_unix_secs.to_be_bytes()].concat());
        let [first, second, ..] = drawn.0;
        let part = u64::from(u16::from_be_bytes([first, second]));
        // From 3/6 to 4/6 of the life.
        let after = life / 2 + (life / 6) / (1 << 16) * part;
        Timestamp(issued_unix_secs.saturating_mul(1000)).plus_millis(after)
    }

    /// The shortest time between two renewals, in milliseconds, for a device whose clock is far from its coordinator's: a
    /// quarter of the life, or a day.
    fn least_millis(self) -> u64 {
        let life = self.expires_unix_secs.saturating_sub(self.issued_unix_secs).saturating_mul(1000);
        (life / 4).min(DAY_MILLIS)
    }

    /// Whether they have ended.
    pub fn is_over(self, now: Timestamp) -> bool {
        now.as_secs() > self.expires_unix_secs
    }
}

/// What a session knows of its certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    lifetime: Lifetime,
    due: Timestamp,
    /// The coordinator says that it has ended, whatever this device's clock says.
    is_refused: bool,
}

impl Renewal {
    fn new(lifetime: Lifetime, device: DeviceId) -> Self {
        Self { lifetime, due: lifetime.renewal_due(device), is_refused: false }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.is_refused || self.lifetime.is_over(now)
    }
}

impl Session {
    /// The same device, which renews its certificate and its credential; they were made and end then.
    #[must_use]
    pub fn renewing(mut self, lifetime: Lifetime) -> Self {
        self.renewal = Some(Renewal::new(lifetime, self.device.device));
        self
    }

    /// Renews, if it is time to; else goes on with what was trained, or asks what there is to do.
    pub(super) fn renew_or(self, then: Option<Trained>, now: Timestamp) -> Self {
        match self.renewal {
            Some(renewal) if renewal.is_refused || renewal.due <= now => {
                self.to(Stage::Renewing { has_certificate: !renewal.is_over(now), then })
            }
            Some(_) | None => self.go_on(then),
        }
    }

    /// The coordinator does not take the certificate any more.
    pub(super) fn certificate_ended(mut self, now: Timestamp) -> Self {
        let Some(renewal) = &mut self.renewal else { return self.back_off(now) };
        renewal.is_refused = true;
        let then = match std::mem::replace(&mut self.state, Stage::Waiting) {
            Stage::Joining { trained } => Some(trained),
            Stage::Renewing { then, .. } => then,
            Stage::Waiting
            | Stage::AwaitingWindow
            | Stage::CheckingIn
            | Stage::LoadingPlan { .. }
            | Stage::RecordingFound { .. }
            | Stage::Loading { .. }
            | Stage::Installing { .. }
            | Stage::Training { .. }
            | Stage::Declining { .. }
            | Stage::Round { .. } => None,
        };
        self.to(Stage::Renewing { has_certificate: false, then }).back_off(now)
    }

    /// What came of asking for the next certificate.
    pub(super) fn renewed(
        mut self,
        has_certificate: bool,
        then: Option<Trained>,
        event: Event,
        now: Timestamp,
    ) -> Self {
        match event {
            Event::Renewed { credential, issued_unix_secs } => {
                let expires_unix_secs = credential.expires_unix_secs;
                let lifetime = Lifetime { issued_unix_secs, expires_unix_secs };
                let mut renewal = Renewal::new(lifetime, self.device.device);
                renewal.due = renewal.due.max(now.plus_millis(lifetime.least_millis()));
                (self.renewal, self.credential) = (Some(renewal), credential);
                self.go_on(then)
            }
            Event::Rejected(rejection) => self.not_renewed(has_certificate, then, rejection, now),
            Event::Woke
            | Event::Replied(_)
            | Event::Unreachable
            | Event::CertificateEnded
            | Event::PlanLoaded(_)
            | Event::Loaded { .. }
            | Event::Trained(_)
            | Event::NotTrained(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::WindowOpened
            | Event::ClockStepped
            | Event::Recorded => self.to(Stage::Renewing { has_certificate, then }),
        }
    }

    /// A device whose certificate is good goes on with it; one whose certificate has ended can do nothing else.
    fn not_renewed(
        mut self,
        has_certificate: bool,
        then: Option<Trained>,
        rejection: Rejection,
        now: Timestamp,
    ) -> Self {
        let until = now.plus_millis(REFUSED_MILLIS);
        self.put_renewal_off(until);
        let why = Ended::NotRenewed(rejection);
        if has_certificate {
            self.ended = Some(why);
            self.go_on(then)
        } else {
            self.end(why, until)
        }
    }

    /// The coordinator could not be reached, or has no time.
    pub(super) fn unanswered(mut self, now: Timestamp) -> Self {
        // There is time to be renewed later.
        if let Stage::Renewing { has_certificate: true, then } = &mut self.state {
            let then = then.take();
            self.put_renewal_off(now.plus_millis(AGAIN_MILLIS));
            return self.go_on(then);
        }
        self.back_off(now)
    }

    fn put_renewal_off(&mut self, until: Timestamp) {
        if let Some(renewal) = &mut self.renewal {
            renewal.due = until;
        }
    }

    fn go_on(self, then: Option<Trained>) -> Self {
        self.to(then.map_or(Stage::CheckingIn, |trained| Stage::Joining { trained }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_certificate_is_renewed_between_a_half_and_two_thirds_of_its_life_and_not_by_all_at_once() {
        let lifetime =
            Lifetime { issued_unix_secs: 1_700_000_000, expires_unix_secs: 1_700_000_000 + 30 * DAY };
        let due = |id: u8| lifetime.renewal_due(DeviceId([id; 16])).as_secs() - lifetime.issued_unix_secs;
        let mut all: Vec<u64> = (0..=u8::MAX).map(due).collect();
        all.sort_unstable();
        let (first, last) = (all[0], all[255]);
        assert!(
            (15 * DAY..20 * DAY).contains(&first) && (15 * DAY..20 * DAY).contains(&last),
            "{first} {last}"
        );
        assert!(first < 16 * DAY && last > 19 * DAY, "{first} {last}");
    }

    #[test]
    fn a_certificate_of_which_nobody_knows_when_it_was_made_is_renewed_at_once() {
        let lifetime = Lifetime { issued_unix_secs: 0, expires_unix_secs: u64::MAX };
        assert_eq!(lifetime.renewal_due(DeviceId([1; 16])), Timestamp(0));
    }

    #[test]
    fn a_life_as_long_as_numbers_go_is_never_over() {
        let lifetime = Lifetime { issued_unix_secs: 1, expires_unix_secs: u64::MAX };
        assert!(lifetime.renewal_due(DeviceId([1; 16])) > Timestamp(u64::MAX / 4));
        assert!(!lifetime.is_over(Timestamp(u64::MAX)));
    }
}
