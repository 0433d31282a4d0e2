//! When a device renews its certificate and its credential, which end together.
//!
//! It asks for the next ones between a half and two thirds of their life, each device at a time of its own, so that a
//! fleet that was enrolled in one hour is not renewed in one hour. One whose certificate has ended meanwhile, because it
//! lay in a drawer, asks without one: its identity key shows who it is.

use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::{Published, Rejection};
use rand_core::CryptoRng;

use super::outside::REFUSED_MILLIS;
use super::{Ended, Event, Session, Stage, Trained, inside};

/// The shortest time between two renewals, and between one that could not be and the next try: ten minutes.
const LEAST_MILLIS: u64 = 10 * 60_000;

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

    /// The shortest time until the next renewal, in milliseconds, for a device whose clock is far from its coordinator's,
    /// or whose coordinator gives short ones: a quarter of the life, or a day.
    fn least_millis(self) -> u64 {
        let life = self.expires_unix_secs.saturating_sub(self.issued_unix_secs).saturating_mul(1000);
        (life / 4).clamp(LEAST_MILLIS, DAY_MILLIS)
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
    /// When it came, where that was since the device began.
    came: Option<Timestamp>,
    /// When another one was asked for because this one has no place in the log.
    asked_for_log: Option<Timestamp>,
}

impl Renewal {
    fn new(lifetime: Lifetime, device: DeviceId) -> Self {
        let due = lifetime.renewal_due(device);
        Self { lifetime, due, is_refused: false, came: None, asked_for_log: None }
    }

    fn came(lifetime: Lifetime, device: DeviceId, now: Timestamp) -> Self {
        let new = Self::new(lifetime, device);
        Self { due: new.due.max(now.plus_millis(lifetime.least_millis())), came: Some(now), ..new }
    }

    fn came_lately(&self, now: Timestamp) -> bool {
        self.came.is_some_and(|came| came <= now && now.millis_since(came) < LEAST_MILLIS)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.is_refused || self.lifetime.is_over(now)
    }
}

/// What is gone on with after a renewal.
#[derive(Debug)]
pub(super) enum Then {
    /// It asks what there is to do.
    Ask,
    /// It asks for a place with what was trained.
    Join(Trained),
    /// The round that it was in.
    Round { trained: Trained, step: Box<inside::Step> },
}

impl Then {
    /// The version that it is at work on.
    pub(super) fn published(&self) -> Option<Published> {
        match self {
            Self::Ask => None,
            Self::Join(trained) | Self::Round { trained, .. } => Some(trained.work.published),
        }
    }

    fn of(state: Stage) -> Self {
        match state {
            Stage::Joining { trained } => Self::Join(trained),
            Stage::Round { trained, step } => Self::Round { trained, step },
            Stage::Renewing { then, .. } => then,
            Stage::Waiting
            | Stage::CheckingIn
            | Stage::LoadingPlan { .. }
            | Stage::Counting { .. }
            | Stage::RecordingFound { .. }
            | Stage::Loading { .. }
            | Stage::Installing { .. }
            | Stage::Training { .. }
            | Stage::Declining { .. } => Self::Ask,
        }
    }
}

impl Session {
    /// The same device, which renews its certificate and its credential; they were made and end then.
    #[must_use]
    pub fn renewing(mut self, lifetime: Lifetime) -> Self {
        self.renewal = Some(Renewal::new(lifetime, self.device.device));
        self
    }

    /// What was reckoned by the clock as it was has no meaning any more.
    pub(super) fn clock_stepped(mut self) -> Self {
        self.declined.clear();
        if let Some(Renewal { lifetime, is_refused, .. }) = self.renewal {
            self.renewal = Some(Renewal { is_refused, ..Renewal::new(lifetime, self.device.device) });
        }
        self
    }

    /// Whether the next credential may be asked for because this one has no place in the log, and then whether with the
    /// certificate that there is. Not where one came, or was asked for, a moment ago: the next would have none either.
    pub(super) fn renewal_for_log(&mut self, now: Timestamp) -> Option<bool> {
        let renewal = self.renewal.as_mut().filter(|renewal| !renewal.came_lately(now))?;
        let is_soon = |asked: Timestamp| asked <= now && now.millis_since(asked) < LEAST_MILLIS;
        if renewal.asked_for_log.is_some_and(is_soon) {
            return None;
        }
        renewal.asked_for_log = Some(now);
        Some(!renewal.is_over(now))
    }

    /// What it waited for is there: renews, if it is time to; else goes on.
    pub(super) fn woken(mut self, now: Timestamp) -> Self {
        self.pause = None;
        self.declined.retain(|_, (_, until)| *until > now);
        let is_idle = matches!(self.state, Stage::Waiting | Stage::CheckingIn | Stage::Renewing { .. });
        if !is_idle {
            return self;
        }
        let then = Then::of(std::mem::replace(&mut self.state, Stage::Waiting));
        match self.renewal {
            Some(renewal) if renewal.is_refused || renewal.due <= now => {
                self.to(Stage::Renewing { has_certificate: !renewal.is_over(now), then })
            }
            Some(_) | None => self.go_on(then),
        }
    }

    /// The coordinator does not take the certificate any more. Nothing that was done is lost by it: whoever is on the way
    /// could say so too.
    pub(super) fn certificate_ended(mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        match &mut self.renewal {
            // One that came a moment ago has not ended: nothing is gained by another.
            Some(renewal) if !renewal.came_lately(now) => renewal.is_refused = true,
            Some(_) | None => return self.back_off(now, rng),
        }
        let then = Then::of(std::mem::replace(&mut self.state, Stage::Waiting));
        self.to(Stage::Renewing { has_certificate: false, then }).back_off(now, rng)
    }

    /// What came of asking for the next certificate.
    pub(super) fn renewed(mut self, has_certificate: bool, then: Then, event: Event, now: Timestamp) -> Self {
        match event {
            // One that has a place in the log goes back to none without.
            Event::Renewed { credential, .. }
                if self.credential.logged.is_some() && credential.logged.is_none() =>
            {
                let why = "the coordinator renewed without a place in the enrollment log".to_owned();
                self.not_renewed(has_certificate, then, Rejection::Unavailable(why), now)
            }
            Event::Renewed { credential, issued_unix_secs } => {
                let expires_unix_secs = credential.expires_unix_secs;
                let lifetime = Lifetime { issued_unix_secs, expires_unix_secs };
                self.renewal = Some(Renewal::came(lifetime, self.device.device, now));
                self.credential = credential;
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
            | Event::NoText(_)
            | Event::TrainerFailed(_)
            | Event::CannotTrain(_)
            | Event::NoWindow
            | Event::WindowOpened
            | Event::ClockStepped
            | Event::LeavesRound
            | Event::Recorded => self.to(Stage::Renewing { has_certificate, then }),
        }
    }

    /// A device goes on with the certificate that it has: at once where it is good, and after hours where it was refused or
    /// this device's clock says that it is over, since either may have been wrong.
    fn not_renewed(
        mut self,
        has_certificate: bool,
        then: Then,
        rejection: Rejection,
        now: Timestamp,
    ) -> Self {
        let until = now.plus_millis(REFUSED_MILLIS);
        if let Some(renewal) = &mut self.renewal {
            // Not at the moment at which it wakes: then it shows what it has.
            (renewal.due, renewal.is_refused) = (until.plus_millis(LEAST_MILLIS), false);
        }
        self.ended = Some(Ended::NotRenewed { rejection, is_over: !has_certificate });
        if !has_certificate {
            self.pause = Some(until);
        }
        self.go_on(then)
    }

    /// The coordinator could not be reached, or has no time.
    pub(super) fn unanswered(mut self, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        if !matches!(self.state, Stage::Renewing { has_certificate: true, .. }) {
            return self.back_off(now, rng);
        }
        // There is time to be renewed later.
        if let Some(renewal) = &mut self.renewal {
            renewal.due = now.plus_millis(LEAST_MILLIS);
        }
        let then = Then::of(std::mem::replace(&mut self.state, Stage::Waiting));
        self.go_on(then)
    }

    fn go_on(self, then: Then) -> Self {
        self.to(match then {
            Then::Ask => Stage::CheckingIn,
            Then::Join(trained) => Stage::Joining { trained },
            Then::Round { trained, step } => Stage::Round { trained, step },
        })
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
