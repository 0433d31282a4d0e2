//! What the coordinator's clock says, by the date that stands in each of its answers.
#![expect(clippy::disallowed_methods, reason = "IO shell: what time it is where an answer arrives")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

/// An answer of the coordinator, to whatever it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// When it came by this device's clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// By how many milliseconds the coordinator's clock is ahead of this device's, to a second or so; negative where it is
    /// behind, none where the answer says no time.
    pub ahead_millis: Option<i64>,
}

/// Remembers the last answer. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoordinatorClock {
    last: Arc<Mutex<Option<Answered>>>,
    /// When it did what it was asked for.
    served: Arc<Mutex<Option<Instant>>>,
}

impl CoordinatorClock {
    /// Takes what stands in an answer that has just come.
    pub(crate) fn hear(&self, metadata: &MetadataMap) {
        let date = metadata.get("date").and_then(|date| date.to_str().ok());
        // An error without a date was made here.
        if let Some(date) = date {
            let answered = answered(date, SystemTime::now());
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        }
    }

    /// Takes that what was asked for has just come.
    pub(crate) fn is_served(&self) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago that was, without the time that the machine slept; none where it never was.
    pub(crate) fn served_ago(&self) -> Option<Duration> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// The last answer; none where there was none yet.
    pub(crate) fn last(&self) -> Option<Answered> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answered(date: &str, now: SystemTime) -> Answered {
    let millis = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    let unix_millis = millis(now);
    let theirs = httpdate::parse_http_date(date).ok().map(millis);
    // It says whole seconds: of those that round down, half a second is the mean.
    let ahead = |theirs: u64| i64::try_from(i128::from(theirs) + 500 - i128::from(unix_millis)).ok();
    Answered { unix_millis, ahead_millis: theirs.and_then(ahead) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_ahead_or_behind_is_seen_by_the_date_of_an_answer() {
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let date = httpdate::fmt_http_date(at(1_800_000_000));
        let ahead = |secs| answered(&date, at(secs)).ahead_millis;
        assert_eq!(ahead(1_800_000_000), Some(500));
        assert_eq!(ahead(1_799_996_400), Some(3_600_500));
        assert_eq!(ahead(1_800_000_010), Some(-9_500));
        assert_eq!(answered("soon", at(7)), Answered { unix_millis: 7000, ahead_millis: None });
    }

    #[test]
    fn what_was_made_here_is_no_answer() {
        let clock = CoordinatorClock::default();
        clock.hear(&MetadataMap::new());
        assert_eq!(clock.last(), None);
        let mut metadata = MetadataMap::new();
        metadata.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        clock.clone().hear(&metadata);
        assert!(clock.last().unwrap().ahead_millis.unwrap() < 0);
    }
}
