//! Whether the network's volume costs money: what NetworkManager says.

use session::conditions::Reading;

use super::told::Told;

/// A guess counts as what is guessed: NetworkManager guesses from the kind of the device and from what a hotspot says of
/// itself.
pub(super) fn metered(told: &Told<u32>) -> Reading<bool> {
    const SOURCE: &str = "NetworkManager Metered";
    match told {
        Told::Value(1) => Reading::of(true, SOURCE),
        Told::Value(3) => Reading::of(true, "NetworkManager Metered, its guess"),
        Told::Value(2) => Reading::of(false, SOURCE),
        Told::Value(4) => Reading::of(false, "NetworkManager Metered, its guess"),
        Told::Value(0) => Reading::unknown("NetworkManager does not know whether the network is metered"),
        Told::Value(other) => {
            Reading::unknown(format!("NetworkManager Metered is {other}; it should be between 0 and 4"))
        }
        Told::Absent(why) | Told::Trouble(why) => Reading::unknown(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_counts_and_ignorance_does_not() {
        let values = [0, 1, 2, 3, 4, 9].map(|value| metered(&Told::Value(value)).value);
        assert_eq!(values, [None, Some(true), Some(false), Some(true), Some(false), None]);
        assert!(metered(&Told::Value(9)).source.contains("is 9"));
        let absent = metered(&Told::Absent("no NetworkManager on the bus".into()));
        assert_eq!(absent, Reading::unknown("no NetworkManager on the bus"));
    }
}
