//! What services on the bus told last.

use super::idle::Sessions;
use super::power::UPower;

/// What a service told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told<T> {
    /// This.
    Value(T),
    /// Nothing: it is not there. Why that is known.
    Absent(String),
    /// Nothing that could be understood, or nothing any more: it is or was there. What is wrong.
    Trouble(String),
}

impl<T> Told<T> {
    /// After the bus was lost: who was there is missed, who was not is absent as before.
    pub(super) fn after_loss(&self, why: &str) -> Self {
        match self {
            Self::Value(_) | Self::Trouble(_) => Self::Trouble(why.to_owned()),
            Self::Absent(_) => Self::Absent(why.to_owned()),
        }
    }
}

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
