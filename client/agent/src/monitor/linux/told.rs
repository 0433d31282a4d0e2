//! What a service on the bus told, or why it told nothing.

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
