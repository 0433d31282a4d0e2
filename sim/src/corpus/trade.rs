//! What invented people do for a living.

/// What a persona does for a living, or would like to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Trade {
    Baker,
    Gardener,
    Nurse,
    Sysadmin,
    Angler,
    Teacher,
    Courier,
    Carpenter,
    Astronomer,
    Musician,
    Vet,
    Sailor,
}

impl Trade {
    /// Every trade.
    pub const ALL: [Self; 12] = [
        Self::Baker,
        Self::Gardener,
        Self::Nurse,
        Self::Sysadmin,
        Self::Angler,
        Self::Teacher,
        Self::Courier,
        Self::Carpenter,
        Self::Astronomer,
        Self::Musician,
        Self::Vet,
        Self::Sailor,
    ];

    /// The trade in one lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Baker => "baker",
            Self::Gardener => "gardener",
            Self::Nurse => "nurse",
            Self::Sysadmin => "sysadmin",
            Self::Angler => "angler",
            Self::Teacher => "teacher",
            Self::Courier => "courier",
            Self::Carpenter => "carpenter",
            Self::Astronomer => "astronomer",
            Self::Musician => "musician",
            Self::Vet => "vet",
            Self::Sailor => "sailor",
        }
    }
}
