//! Turns panics of libraries into errors, and prints nothing of them.
//!
//! A panic's message may quote the library's input, which is the user's text, and the process's panic hook
//! prints it before anybody can catch the panic.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A library panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Runs a library's code without printing its panics; fails if it panics. What it works on must not be used
/// after that.
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
