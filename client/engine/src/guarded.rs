//! Libraries that stop themselves (panic) where they should fail: an error, of which nothing is printed.
//!
//! A panic's message may hold what the library was given, and that is the user's text. The process's hook would print it
//! before anybody can catch it.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// That a library stopped itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Runs what is a library's, in silence. What it works on must not be used after it has stopped itself.
pub fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Stopped> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(outer);
    done.map_err(|_| Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_itself_is_an_error_and_others_are_not_silenced() {
        let text = "of the user";
        assert_eq!(guarded(|| panic!("{text}")).map(|()| 1), Err(Stopped));
        assert_eq!(guarded(|| 1), Ok(1));
        assert!(!GUARDED.get());
    }
}
