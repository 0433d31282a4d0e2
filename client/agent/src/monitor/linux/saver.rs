//! Whether the machine saves power: what power-profiles-daemon says, else the firmware's profile.

use std::path::Path;

use session::conditions::Reading;

use super::files::word;
use super::told::Told;

/// A machine without profiles has no saver that could be on.
pub(super) fn saver(told: &Told<String>, profile: impl FnOnce() -> Option<String>) -> Reading<bool> {
    match told {
        Told::Value(active) => match active.as_str() {
            "power-saver" => Reading::of(true, "power-profiles-daemon ActiveProfile"),
            "balanced" | "performance" => Reading::of(false, "power-profiles-daemon ActiveProfile"),
            other => {
                let beginning: String = other.chars().take(20).collect();
                Reading::unknown(format!(
                    "power-profiles-daemon has a profile {beginning:?}, which is not known"
                ))
            }
        },
        Told::Absent(_) => match profile() {
            Some(profile) => Reading::of(profile == "low-power", "/sys/firmware/acpi/platform_profile"),
            None => Reading::of(false, "no power profiles"),
        },
        Told::Trouble(why) => Reading::unknown(why.clone()),
    }
}

/// The firmware's profile, below `root`, where it has one.
pub(super) fn firmware_profile(root: &Path) -> Option<String> {
    word(&root.join("sys/firmware/acpi/platform_profile"))
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn the_daemon_goes_before_the_firmware_and_nonsense_is_unknown() {
        let said = |text: &str| saver(&Told::Value(text.to_owned()), || Some("low-power".to_owned())).value;
        assert_eq!(said("power-saver"), Some(true));
        assert_eq!((said("balanced"), said("performance")), (Some(false), Some(false)));
        assert_eq!(said("\u{1b}[2J"), None);
        let trouble = Told::Trouble("power-profiles-daemon does not answer".to_owned());
        assert_eq!(saver(&trouble, || None).value, None);
    }

    #[test]
    fn without_the_daemon_the_firmware_says_and_without_both_nothing_saves() {
        let absent = Told::Absent("no power-profiles-daemon on the bus".to_owned());
        let file = "sys/firmware/acpi/platform_profile";
        let said = |files: &[(&str, &str)]| {
            let root = tree(files);
            saver(&absent, || firmware_profile(root.path()))
        };
        assert_eq!(said(&[(file, "low-power\n")]).value, Some(true));
        assert_eq!(said(&[(file, "balanced\n")]), Reading::of(false, "/sys/firmware/acpi/platform_profile"));
        assert_eq!(said(&[]), Reading::of(false, "no power profiles"));
    }
}
