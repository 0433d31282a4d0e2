//! What all services on the bus told last.

use super::idle::Sessions;
use super::power::UPower;
use super::told::Told;

/// What all of them told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Services {
    pub(super) power: Told<UPower>,
    pub(super) sessions: Told<Sessions>,
    /// NetworkManager's `Metered`.
    pub(super) metered: Told<u32>,
    /// The active profile of power-profiles-daemon.
    pub(super) profile: Told<String>,
}

/// What one of them told now.
#[derive(Debug)]
pub(super) enum News {
    Power(Told<UPower>),
    Sessions(Told<Sessions>),
    Metered(Told<u32>),
    Profile(Told<String>),
}

impl Services {
    /// With what one of them told now.
    pub(super) fn with(self, news: News) -> Self {
        match news {
            News::Power(power) => Self { power, ..self },
            News::Sessions(sessions) => Self { sessions, ..self },
            News::Metered(metered) => Self { metered, ..self },
            News::Profile(profile) => Self { profile, ..self },
        }
    }

    /// Nobody is there.
    pub(super) fn absent(why: &str) -> Self {
        Self {
            power: Told::Absent(why.to_owned()),
            sessions: Told::Absent(why.to_owned()),
            metered: Told::Absent(why.to_owned()),
            profile: Told::Absent(why.to_owned()),
        }
    }

    /// The bus is gone.
    pub(super) fn after_loss(&self, why: &str) -> Self {
        Self {
            power: self.power.after_loss(why),
            sessions: self.sessions.after_loss(why),
            metered: self.metered.after_loss(why),
            profile: self.profile.after_loss(why),
        }
    }
}
