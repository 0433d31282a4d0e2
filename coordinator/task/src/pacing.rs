//! When a device for which there is no work asks again, so that devices come at a steady rate however many there are.
//!
//! A coordinator that answered everybody "in half a minute" would hear ten thousand devices 330 times a second for the
//! twenty that it needs, and after a restart all of them at once. So the window follows how many devices there are and how
//! many are wanted a second (pace steering: Bonawitz and others 2019, "Towards federated learning at scale", section 2.3).

use proto::message::Window;

/// The shortest mean wait, in milliseconds: however few there are, nobody asks more often.
pub const LEAST_MILLIS: u64 = 30_000;

/// The longest mean wait, in milliseconds: a device asks at least about twice a day, for the version that its user has.
pub const MOST_MILLIS: u64 = 12 * 3_600_000;

/// How many devices a second are let come where nobody is wanted: what a new task finds when it is created.
pub const IDLE_A_SECOND: f64 = 20.0;

/// How long the places of a version may take to be filled, in seconds.
pub const FILL_SECS: f64 = 30.0;

/// The longest window.
pub const MOST_WINDOW: Window = Window::around(MOST_MILLIS);

/// The window for one of so many `devices`, of which so many are to come `a_second`.
pub fn window(devices: usize, a_second: f64) -> Window {
    let mean = to_f64(devices) / a_second.max(f64::MIN_POSITIVE) * 1000.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let mean = mean.clamp(to_f64_millis(LEAST_MILLIS), to_f64_millis(MOST_MILLIS)) as u64;
    Window::around(mean)
}

/// The window for one of so many `devices` where a version has so many `places`: those that come within
/// [`FILL_SECS`] are as many as places, or as come anyway.
pub fn window_for(devices: usize, places: usize) -> Window {
    window(devices, (to_f64(places) / FILL_SECS).max(to_f64(1) / FILL_SECS))
}

/// The window where nobody is wanted.
pub fn idle(devices: usize) -> Window {
    window(devices, IDLE_A_SECOND)
}

#[expect(clippy::cast_precision_loss, reason = "devices are counted, and far below 2^52")]
fn to_f64(devices: usize) -> f64 {
    devices as f64
}

#[expect(clippy::cast_precision_loss, reason = "hours in milliseconds are far below 2^52")]
fn to_f64_millis(millis: u64) -> f64 {
    millis as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_devices_ask_often_and_many_ask_seldom() {
        assert_eq!(window_for(3, 3), Window::around(30_000));
        assert_eq!(window_for(0, 0), Window::around(30_000));
        // 550 places in 30 seconds are 18.3 devices a second: one of 10,000 comes every 545 seconds.
        assert_eq!(window_for(10_000, 550), Window::around(545_454));
        assert_eq!(idle(10), Window::around(30_000));
        assert_eq!(idle(100_000), Window::around(5_000_000));
        assert_eq!(window_for(100_000_000, 10), Window::around(MOST_MILLIS));
    }
}
