//! One sync for all commits that wait at the same time.
//!
//! A sync makes durable everything that was applied before it began. So a commit that was applied needs one that begins
//! from then on, and it is no matter which thread runs it. A sync that is under way already may have begun too early;
//! whoever comes meanwhile waits for its end, one of them runs the next, and that is for all of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The syncs of one store, one at a time.
#[derive(Debug, Default)]
pub(super) struct Together {
    syncs: Mutex<Syncs>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Syncs {
    /// How many have begun.
    begun: u64,
    /// The last of them that ended well.
    durable: u64,
    is_under_way: bool,
    /// After one that failed nobody knows what is on disk: there is no other.
    has_failed: bool,
    /// How often somebody began to wait, so that a test knows that they do.
    #[cfg(test)]
    waits: usize,
}

/// Why it is not known whether a commit is durable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed<E> {
    /// The sync that this caller ran failed.
    Here(E),
    /// One that another ran did.
    Elsewhere,
}

impl Together {
    /// Returns when a sync has ended that began after this was called: by `sync`, or by what another caller brought.
    pub(super) fn sync<E>(&self, sync: impl FnOnce() -> Result<(), E>) -> Result<(), Failed<E>> {
        let mut syncs = self.lock();
        let needed = syncs.begun + 1;
        loop {
            if syncs.durable >= needed {
                return Ok(());
            }
            if syncs.has_failed {
                return Err(Failed::Elsewhere);
            }
            if !syncs.is_under_way {
                break;
            }
            #[cfg(test)]
            {
                syncs.waits += 1;
            }
            syncs = self.ended.wait(syncs).unwrap_or_else(PoisonError::into_inner);
        }
        syncs.begun += 1;
        syncs.is_under_way = true;
        let under_way = UnderWay { together: self, number: syncs.begun, is_durable: false };
        drop(syncs);
        let outcome = sync();
        under_way.end(outcome.is_ok());
        outcome.map_err(Failed::Here)
    }

    fn lock(&self) -> MutexGuard<'_, Syncs> {
        // Numbers are whole after each change.
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sync that runs. One that breaks off has failed.
struct UnderWay<'a> {
    together: &'a Together,
    number: u64,
    is_durable: bool,
}

impl UnderWay<'_> {
    fn end(mut self, is_durable: bool) {
        self.is_durable = is_durable;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut syncs = self.together.lock();
        syncs.is_under_way = false;
        if self.is_durable {
            syncs.durable = self.number;
        } else {
            syncs.has_failed = true;
        }
        drop(syncs);
        self.together.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const LATER: usize = 8;

    /// A sync that is held, and callers that come while it runs: what each of these was told, and how often it synced.
    fn held(end: Result<(), &'static str>) -> (Vec<Result<(), Failed<&'static str>>>, usize) {
        let (together, syncs) = (Together::default(), AtomicUsize::new(0));
        let told = thread::scope(|scope| {
            let ((began, has_begun), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
            let together = &together;
            let first = scope.spawn(move || {
                together.sync(|| {
                    began.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    end
                })
            });
            has_begun.recv().unwrap();
            let later: Vec<_> = (0..LATER)
                .map(|_| {
                    let syncs = &syncs;
                    scope.spawn(move || {
                        together.sync(|| {
                            syncs.fetch_add(1, Ordering::AcqRel);
                            Ok(())
                        })
                    })
                })
                .collect();
            while together.lock().waits < LATER {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            let first = first.join().unwrap();
            assert_eq!(first, end.map_err(Failed::Here));
            later.into_iter().map(|later| later.join().unwrap()).collect()
        });
        (told, syncs.load(Ordering::Acquire))
    }

    #[test]
    fn a_sync_that_had_begun_before_is_not_enough_and_the_next_is_for_many() {
        let (told, syncs) = held(Ok(()));
        assert!(told.iter().all(Result::is_ok), "{told:?}");
        assert_eq!(syncs, 1);
    }

    #[test]
    fn nobody_is_told_that_something_is_durable_after_a_sync_that_failed() {
        let (told, syncs) = held(Err("a test"));
        assert!(told.iter().all(|told| *told == Err(Failed::Elsewhere)), "{told:?}");
        assert_eq!(syncs, 0);
    }

    #[test]
    fn a_sync_that_breaks_off_has_failed() {
        let together = Together::default();
        let broke_off =
            catch_unwind(AssertUnwindSafe(|| together.sync(|| -> Result<(), ()> { panic!("a test") })));
        assert!(broke_off.is_err());
        assert_eq!(together.sync(|| Ok::<(), ()>(())), Err(Failed::Elsewhere));
    }

    #[test]
    fn one_after_another_each_syncs() {
        let (together, mut syncs) = (Together::default(), 0);
        for _ in 0..3 {
            let sync = || {
                syncs += 1;
                Ok::<(), ()>(())
            };
            together.sync(sync).unwrap();
        }
        assert_eq!(syncs, 3);
    }
}
