//! What shows that somebody uses a terminal, a keyboard or a mouse: times and counters that the kernel keeps.
//!
//! Nothing is opened that is somebody's: of terminals only the times are asked, which that does not change. The kernel
//! notes a terminal's times to eight seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{entries, word};
use super::idle::{Hands, Moment};

/// How long a list of USB keyboards and mice is good.
const LIST_HOLDS: Duration = Duration::from_secs(20);

/// Watches counters from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    counters: BTreeMap<String, u64>,
    watched: Option<Duration>,
    moved: Option<Duration>,
    /// Counters of USB devices, and when they were listed.
    usb: Vec<PathBuf>,
    listed: Option<Duration>,
}

impl Watcher {
    /// Looks below `root`.
    pub(super) fn look(&mut self, root: &Path, now: Moment) -> Hands {
        if self.listed.is_none_or(|listed| now.up.saturating_sub(listed) >= LIST_HOLDS) {
            self.usb = usb_counters(root);
            self.listed = Some(now.up);
        }
        let mut counters = fs::read_to_string(root.join("proc/interrupts"))
            .map(|text| interrupts(&text))
            .unwrap_or_default();
        for counter in &self.usb {
            let count = word(counter).and_then(|text| text.parse::<u64>().ok());
            counters.extend(count.map(|count| (counter.display().to_string(), count)));
        }
        // A counter that is new or gone is a device that somebody plugged in or out, unless this is the first look.
        if self.watched.is_some() && counters != self.counters {
            self.moved = Some(now.up);
        }
        if !counters.is_empty() {
            self.watched = self.watched.or(Some(now.up));
        }
        self.counters = counters;
        Hands {
            terminals: terminals(root),
            plugged: entries(&root.join("dev/input"), "event").iter().filter_map(|path| touched(path)).max(),
            watched: self.watched,
            moved: self.moved,
        }
    }
}

/// When each terminal was typed at last.
fn terminals(root: &Path) -> BTreeMap<String, Duration> {
    let dev = root.join("dev");
    let mut names: BTreeSet<String> = ["console".to_owned()].into();
    let numbered = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()))
    };
    let in_dev = entries(&dev, "tty").into_iter().filter_map(|path| file_name(&path));
    names.extend(in_dev.filter(|name| numbered(name, "tty")));
    let pseudo = entries(&dev.join("pts"), "").into_iter().filter_map(|path| file_name(&path));
    names.extend(pseudo.filter(|name| numbered(name, "")).map(|name| format!("pts/{name}")));
    // Serial lines and the like, where the system has a console there.
    let consoles = fs::read_to_string(root.join("proc/consoles")).unwrap_or_default();
    let consoles = consoles.lines().filter_map(|line| line.split_whitespace().next());
    names.extend(consoles.filter(|name| name.chars().all(char::is_alphanumeric)).map(str::to_owned));
    let used = names.into_iter().filter_map(|name| {
        let metadata = fs::metadata(dev.join(&name)).ok()?;
        // Reading it is typing at it; writing is what programs do.
        let accessed = since_1970(metadata.atime(), metadata.atime_nsec());
        Some((name, accessed))
    });
    used.collect()
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// When a device's file was made.
fn touched(path: &Path) -> Option<Duration> {
    let metadata = fs::metadata(path).ok()?;
    Some(since_1970(metadata.mtime(), metadata.mtime_nsec()))
}

fn since_1970(secs: i64, nanos: i64) -> Duration {
    Duration::new(u64::try_from(secs).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
}

/// The sums of the counters of keyboards, mice and the like in `/proc/interrupts`: a line has one number for each
/// processor, and names the devices behind them.
fn interrupts(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((number, rest)) = line.split_once(':') else { continue };
        if !is_of_hands(rest) {
            continue;
        }
        let counts = rest.split_whitespace().map_while(|count| count.parse::<u64>().ok());
        found.insert(number.trim().to_owned(), counts.fold(0, u64::wrapping_add));
    }
    found
}

/// Whether a line of `/proc/interrupts` is of something that hands move: the controller of old keyboards and mice, HID
/// devices at an I²C bus, touchpads, touchscreens and keys.
fn is_of_hands(line: &str) -> bool {
    const NAMES: [&str; 7] = ["i8042", "hid", "keyboard", "mouse", "touchpad", "touchscreen", "keys"];
    // Touchpads and touchscreens at an I²C bus have names of their makers in the firmware.
    const MAKERS: [&str; 7] = ["elan", "syna", "wcom", "alps", "goodix", "gdix", "atml"];
    let line = line.to_ascii_lowercase();
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| NAMES.contains(&word) || MAKERS.iter().any(|maker| word.starts_with(maker)))
}

/// The counters of transfers of USB keyboards and mice: they are idle until a key or a mouse is moved.
fn usb_counters(root: &Path) -> Vec<PathBuf> {
    let devices = root.join("sys/bus/usb/devices");
    let mut found = BTreeSet::new();
    for interface in entries(&devices, "") {
        // `1-2:1.0` is an interface of `1-2`.
        let Some(name) = file_name(&interface) else { continue };
        let Some((device, _)) = name.split_once(':') else { continue };
        let says = |file: &str| word(&interface.join(file));
        // HID; a keyboard is of protocol 1, a mouse of protocol 2, and an uninterruptible supply is of none.
        let hid = says("bInterfaceClass").as_deref() == Some("03");
        if hid && matches!(says("bInterfaceProtocol").as_deref(), Some("01" | "02")) {
            found.insert(devices.join(device).join("urbnum"));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{tree, write};
    use super::*;

    fn at(up: u64) -> Moment {
        Moment { wall: Duration::from_secs(1_000_000 + up), up: Duration::from_secs(up) }
    }

    const INTERRUPTS: &str = "           CPU0       CPU1\n  1:        40          2  IO-APIC    1-edge      i8042\n \
                              16:       900        100  IO-APIC   16-fasteoi   xhci-hcd:usb1\n 51:          7          \
                              0  intel-gpio   50  ELAN0676:00\nNMI:          0          0   Non-maskable interrupts\n";

    #[test]
    fn only_the_counters_of_hands_are_summed() {
        let expected = [("1".to_owned(), 42), ("51".to_owned(), 7)];
        assert_eq!(interrupts(INTERRUPTS), expected.into());
        assert!(interrupts("nonsense\n: i8042\n").get("").is_some_and(|count| *count == 0));
    }

    #[test]
    fn a_counter_that_moves_is_use_and_the_first_look_is_none() {
        let root = tree(&[("proc/interrupts", INTERRUPTS)]);
        let mut watcher = Watcher::default();
        let first = watcher.look(root.path(), at(10));
        assert_eq!((first.watched, first.moved), (Some(at(10).up), None));
        assert_eq!(watcher.look(root.path(), at(20)).moved, None);
        write(root.path(), &[("proc/interrupts", &INTERRUPTS.replace("  40 ", "  41 "))]);
        assert_eq!(watcher.look(root.path(), at(30)).moved, Some(at(30).up));
        // Disks and networks are nobody's hands.
        write(
            root.path(),
            &[("proc/interrupts", &INTERRUPTS.replace("  40 ", "  41 ").replace(" 900 ", " 999 "))],
        );
        let later = watcher.look(root.path(), at(40));
        assert_eq!((later.watched, later.moved), (Some(at(10).up), Some(at(30).up)));
    }

    #[test]
    fn a_usb_keyboard_s_transfers_are_use_and_a_disk_s_are_not() {
        let usb = "sys/bus/usb/devices";
        let files = |keyboard: &str, disk: &str, supply: &str| {
            [
                (format!("{usb}/1-2/urbnum"), keyboard.to_owned()),
                (format!("{usb}/1-2:1.0/bInterfaceClass"), "03\n".to_owned()),
                (format!("{usb}/1-2:1.0/bInterfaceProtocol"), "01\n".to_owned()),
                (format!("{usb}/1-3/urbnum"), disk.to_owned()),
                (format!("{usb}/1-3:1.0/bInterfaceClass"), "08\n".to_owned()),
                (format!("{usb}/1-4/urbnum"), supply.to_owned()),
                (format!("{usb}/1-4:1.0/bInterfaceClass"), "03\n".to_owned()),
                (format!("{usb}/1-4:1.0/bInterfaceProtocol"), "00\n".to_owned()),
            ]
        };
        let root = tree(&[]);
        let put = |keyboard: &str, disk: &str, supply: &str| {
            for (path, text) in files(keyboard, disk, supply) {
                write(root.path(), &[(&path, &text)]);
            }
        };
        let mut watcher = Watcher::default();
        put("5", "5", "5");
        assert_eq!(watcher.look(root.path(), at(1)).watched, Some(at(1).up));
        put("5", "500", "50");
        assert_eq!(watcher.look(root.path(), at(2)).moved, None);
        put("6", "500", "50");
        assert_eq!(watcher.look(root.path(), at(3)).moved, Some(at(3).up));
    }

    #[test]
    fn terminals_are_the_numbered_ones_and_the_system_s_consoles() {
        let root = tree(&[
            ("dev/tty", ""),
            ("dev/tty1", ""),
            ("dev/ttyS0", ""),
            ("dev/ttyUSB0", ""),
            ("dev/console", ""),
            ("dev/pts/0", ""),
            ("dev/pts/ptmx", ""),
            ("dev/hvc0", ""),
            ("dev/input/event3", ""),
            ("dev/input/mice", ""),
            ("proc/consoles", "hvc0  -W- (EC p a) 229:0\nttyS0 -W- (E) 4:64\n../x  - 1:1\n"),
        ]);
        let hands = Watcher::default().look(root.path(), at(1));
        let names: Vec<&str> = hands.terminals.keys().map(String::as_str).collect();
        assert_eq!(names, ["console", "hvc0", "pts/0", "tty1", "ttyS0"]);
        assert!(hands.plugged.is_some());
    }

    #[test]
    fn a_terminal_s_use_is_when_it_was_read_and_not_when_it_was_written() {
        let root = tree(&[("dev/pts/4", "")]);
        let file = fs::File::options().write(true).open(root.path().join("dev/pts/4")).unwrap();
        let read = Duration::from_secs(1_000);
        let stamp = |at: Duration| std::time::UNIX_EPOCH + at;
        let times = fs::FileTimes::new().set_accessed(stamp(read)).set_modified(stamp(2 * read));
        file.set_times(times).unwrap();
        let hands = Watcher::default().look(root.path(), at(1));
        assert_eq!(hands.terminals.get("pts/4"), Some(&read));
        // Looking is no use.
        assert_eq!(Watcher::default().look(root.path(), at(2)), hands.clone());
    }

    #[test]
    fn a_machine_without_any_of_these_shows_nothing() {
        let root = tree(&[]);
        assert_eq!(Watcher::default().look(root.path(), at(1)), Hands::default());
    }
}
