//! Devices that play at the same time. Each is heard of, also where it breaks, and none is waited for forever once the load ends.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::instant;
use crate::player::Left;

/// How long it may take to take the place of those that did not leave.
const ENDING: Duration = Duration::from_secs(2);

/// Devices that play.
pub(crate) struct Away<T> {
    playing: JoinSet<(T, Left)>,
    stop: CancellationToken,
    leaving: Duration,
    overdue: Option<Instant>,
}

/// What is heard of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came<T> {
    /// It is back.
    Back(T, Left),
    /// This program failed at it, and it is lost.
    Broken(String),
    /// Nobody is away.
    Nobody,
    /// The load ended, and those that are still away took too long to leave.
    Overdue,
}

impl<T: Send + 'static> Away<T> {
    /// Nobody yet. After `stop` devices are waited for so long.
    pub(crate) fn new(stop: CancellationToken, leaving: Duration) -> Self {
        Self { playing: JoinSet::new(), stop, leaving, overdue: None }
    }

    pub(crate) fn goes(&mut self, visit: impl Future<Output = (T, Left)> + Send + 'static) {
        self.playing.spawn(visit);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.playing.is_empty()
    }

    /// Waits for the next. Whoever stops to wait misses nothing.
    pub(crate) async fn comes(&mut self) -> Came<T> {
        let Self { playing, stop, leaving, overdue } = self;
        let late = async {
            stop.cancelled().await;
            let until = *overdue.get_or_insert_with(|| instant() + *leaving);
            sleep_until(until.into()).await;
        };
        tokio::select! {
            biased;
            joined = playing.join_next() => match joined {
                None => Came::Nobody,
                Some(Ok((who, left))) => Came::Back(who, left),
                Some(Err(error)) => Came::Broken(error.to_string()),
            },
            () = late => Came::Overdue,
        }
    }

    /// Ends those that are still away, and gives how many they were.
    pub(crate) async fn end(mut self) -> u64 {
        let not_left = self.playing.len() as u64;
        // What they carried counts when they are gone. One that does not even end is not waited for.
        drop(timeout(ENDING, self.playing.shutdown()).await);
        not_left
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Gone(Arc<AtomicBool>);

    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_left_is_kept_although_another_does_not_leave_and_another_broke() {
        let (stop, is_gone) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let mut away = Away::new(stop.clone(), Duration::from_millis(50));
        assert_eq!(away.comes().await, Came::Nobody);
        let gone = Gone(Arc::clone(&is_gone));
        away.goes(async move {
            let _gone = gone;
            pending::<(u32, Left)>().await
        });
        let told = stop.clone();
        away.goes(async move {
            told.cancelled().await;
            (1, Left::Stopped)
        });
        away.goes(async { panic!("no keys") });
        let Came::Broken(why) = away.comes().await else { panic!("a fault is heard of") };
        assert!(why.contains("no keys"), "{why}");
        // Before the end nobody is overdue.
        timeout(Duration::from_millis(200), away.comes()).await.unwrap_err();
        stop.cancel();
        assert_eq!(away.comes().await, Came::Back(1, Left::Stopped));
        assert_eq!(away.comes().await, Came::Overdue);
        assert!(!is_gone.load(Ordering::Relaxed) && !away.is_empty());
        assert_eq!(away.end().await, 1);
        assert!(is_gone.load(Ordering::Relaxed));
    }
}
