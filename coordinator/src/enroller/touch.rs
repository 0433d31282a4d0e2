//! Whether an authority apart answers, and since when; and what it says of its log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::admin::{AuthorityStatus, LogStatus};
use proto::ids::Digest;

/// How it was when it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Touch(Mutex<Touched>);

#[derive(Debug, Default)]
struct Touched {
    answers: bool,
    /// Since when; 0 where it was not asked yet.
    since_unix_secs: u64,
    why: Option<String>,
    log: Option<LogStatus>,
    /// The digest of what it asks of devices' machines.
    attestation_policy: Option<Digest>,
    refused: Option<String>,
}

/// What is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It answers again.
    Answers,
    /// It does not answer.
    Silent,
    /// Nothing.
    None,
}

impl Touch {
    /// It was asked, and this came of it.
    pub(crate) fn heard(&self, heard: &Result<(), String>, now_unix_secs: u64) -> News {
        let mut touched = self.touched();
        let is_first = touched.since_unix_secs == 0;
        let changes = touched.answers != heard.is_ok();
        if is_first || changes {
            touched.since_unix_secs = now_unix_secs.max(1);
        }
        touched.answers = heard.is_ok();
        touched.why = heard.as_ref().err().cloned();
        match (heard, is_first, changes) {
            (Ok(()), false, true) => News::Answers,
            (Err(_), true, _) | (Err(_), false, true) => News::Silent,
            (Ok(()), true, _) | (Ok(()) | Err(_), false, false) => News::None,
        }
    }

    /// It says this of its log.
    pub(crate) fn told(&self, log: LogStatus) {
        self.touched().log = Some(log);
    }

    /// How the log is whose copy is so here. Who signs it, and how long it is, is by what the authority said last: a copy ends with
    /// the head that rounds are about.
    pub(crate) fn log(&self, copy: LogStatus) -> LogStatus {
        let Some(LogStatus { size, head_unix_secs, witnesses, least_witnesses, rounds_witnesses, .. }) =
            self.touched().log.clone()
        else {
            return copy;
        };
        LogStatus {
            size: size.max(copy.size),
            head_unix_secs: head_unix_secs.max(copy.head_unix_secs),
            witnesses,
            least_witnesses,
            rounds_witnesses,
            ..copy
        }
    }

    /// It asks this of devices' machines.
    pub(crate) fn asks(&self, attestation_policy: Option<Digest>) {
        self.touched().attestation_policy = attestation_policy;
    }

    /// What it asked of devices' machines when it was last asked.
    pub(crate) fn attestation_policy(&self) -> Option<Digest> {
        self.touched().attestation_policy
    }

    /// Its log is taken, or refused for this reason. Says whether it was the other before; that a refused log grows is nothing new.
    pub(crate) fn log_refused(&self, why: Option<String>) -> bool {
        let mut touched = self.touched();
        let is_new = touched.refused.is_some() != why.is_some();
        touched.refused = why;
        is_new
    }

    /// How it is, of an authority at this address.
    pub(crate) fn status(&self, address: &str) -> AuthorityStatus {
        let touched = self.touched();
        AuthorityStatus {
            address: address.to_owned(),
            answers: touched.answers,
            since_unix_secs: touched.since_unix_secs,
            why: touched.why.clone(),
            log_refused: touched.refused.clone(),
            ..AuthorityStatus::default()
        }
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        // It is whole after each change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_as_long_as_its_authority_says_and_rounds_are_about_the_copy() {
        let (touch, copy) = (Touch::default(), LogStatus { size: 4, rounds_size: 4, ..LogStatus::default() });
        assert_eq!(touch.log(copy.clone()), copy);
        let all =
            LogStatus { size: 5, rounds_size: 4, least_witnesses: 2, head_unix_secs: 9, ..copy.clone() };
        touch.told(all.clone());
        assert_eq!(touch.log(copy.clone()), all);
        // It is behind: what is here stays here.
        touch.told(LogStatus { size: 3, ..all });
        assert_eq!(touch.log(copy).size, 4);
    }

    #[test]
    fn what_is_new_is_said_once_and_since_when_is_kept() {
        let (touch, away) = (Touch::default(), || Err("no answer".to_owned()));
        assert_eq!(touch.status("owl:1").since_unix_secs, 0);
        let told = [(away(), 5), (away(), 6), (Ok(()), 7), (Ok(()), 8), (away(), 9)];
        let news = told.map(|(heard, now)| (touch.heard(&heard, now), touch.status("owl:1").since_unix_secs));
        let expected =
            [(News::Silent, 5), (News::None, 5), (News::Answers, 7), (News::None, 7), (News::Silent, 9)];
        assert_eq!(news, expected);
        let status = touch.status("owl:1");
        assert_eq!((status.answers, status.why.as_deref()), (false, Some("no answer")));
        assert!(touch.log_refused(Some("it went back".to_owned())));
        assert!(!touch.log_refused(Some("another branch".to_owned())), "it is said once");
        assert_eq!(touch.status("owl:1").log_refused.as_deref(), Some("another branch"));
        assert!(touch.log_refused(None) && touch.status("owl:1").log_refused.is_none());
        let well = Touch::default();
        assert_eq!(well.heard(&Ok(()), 3), News::None);
        assert_eq!((well.status("a").answers, well.status("a").why), (true, None));
    }
}
