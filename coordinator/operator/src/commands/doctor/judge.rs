//! What is found, and what to do about it; nothing here looks for itself.

use std::net::SocketAddr;

use coordinator::descriptors::Shares;
use coordinator::enrollment::CLOCK_SLACK_SECS;
use serde::Serialize;
use shell::store::FREE_SPACE_FLOOR_BYTES;

use crate::output::at;

/// A clock that is farther off than this is worth a word, in milliseconds.
const CLOCK_MILLIS: u64 = 5_000;

/// A certificate that ends within so many days is worth a word.
const DAYS: u64 = 14;

const DAY_SECS: u64 = 24 * 3600;

/// So many bytes free on a disk are no worry.
const ROOM_BYTES: u64 = 1 << 30;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Fault,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) level: Level,
    pub(super) says: String,
    /// What to do.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, level: Level::Ok, says: says.into(), advice: None }
    }

    pub(super) fn warning(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, level: Level::Warning, says: says.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fault(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, level: Level::Fault, says: says.into(), advice: Some(advice.into()) }
    }
}

/// This machine's clock against the coordinator's, which answered between two looks at ours; milliseconds since 1970.
pub(super) fn clock(before: u64, coordinators: u64, after: u64) -> Finding {
    if coordinators == 0 {
        return Finding::warning(
            "clock",
            "the coordinator does not say what its clock shows",
            "run a newer one",
        );
    }
    // What the way took is no difference.
    let off = before.saturating_sub(coordinators).max(coordinators.saturating_sub(after));
    let side = if coordinators > after { "behind" } else { "ahead of" };
    let says = format!("this machine's is {}.{:03} s {side} the coordinator's", off / 1000, off % 1000);
    let advice = "set the one that is wrong, and let both machines keep time (systemd-timesyncd, chrony)";
    match off {
        0 => Finding::ok("clock", "as the coordinator's"),
        _ if off <= CLOCK_MILLIS => Finding::ok("clock", says),
        _ if off < CLOCK_SLACK_SECS * 1000 => Finding::warning("clock", says, advice),
        _ => Finding::fault("clock", format!("{says}: certificates of now are not valid there"), advice),
    }
}

/// When a certificate ends, by the time of now; seconds since 1970.
pub(super) fn ends(what: &'static str, now: u64, end: u64, advice: &str) -> Finding {
    if end == 0 {
        return Finding::warning(what, "nobody says when it ends", "run a newer coordinator");
    }
    if end <= now {
        return Finding::fault(what, format!("ended {}", at(end)), advice);
    }
    let says = format!("ends {}, in {} days", at(end), (end - now) / DAY_SECS);
    if end - now < DAYS * DAY_SECS { Finding::warning(what, says, advice) } else { Finding::ok(what, says) }
}

/// What is free where the coordinator writes.
pub(super) fn disk(free: u64) -> Finding {
    let says = format!("{} MiB are free where the coordinator writes", free >> 20);
    let floor = FREE_SPACE_FLOOR_BYTES >> 20;
    if free < FREE_SPACE_FLOOR_BYTES {
        let says = format!("{says}, and below {floor} MiB it writes nothing");
        Finding::fault("disk", says, "make room on that disk; what is only read goes on meanwhile")
    } else if free < ROOM_BYTES {
        let advice = format!("make room: below {floor} MiB nothing is written any more");
        Finding::warning("disk", says, advice)
    } else {
        Finding::ok("disk", says)
    }
}

/// How many files this process may open, against the connections of the configuration.
pub(super) fn descriptors(wanted: Shares, granted: usize) -> Finding {
    const ADVICE: &str = "raise LimitNOFILE (systemd) or `ulimit -n`, or lower limits.connections";
    let connections = wanted.devices.connections;
    match wanted.fit(granted) {
        Err(error) => Finding::fault("open files", error.to_string(), ADVICE),
        Ok(shares) if shares == wanted => {
            Finding::ok("open files", format!("enough for {connections} connections of devices"))
        }
        Ok(shares) => Finding::warning(
            "open files",
            format!(
                "a process that is started from here may open {granted} files, which leaves {} connections of devices of \
                 {connections}",
                shares.devices.connections
            ),
            ADVICE,
        ),
    }
}

/// What holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Free,
    Held,
    /// It cannot be had, for another reason.
    Refused(String),
}

/// A port of the configuration, where the coordinator answers operators at `answers`, if it does.
pub(super) fn port(what: &'static str, address: SocketAddr, port: &Port, answers: bool) -> Finding {
    match port {
        Port::Free if address.port() == 0 => Finding::ok(what, "chosen by the system at each start"),
        Port::Free if answers => Finding::warning(
            what,
            format!("{address} is free, and a coordinator answers elsewhere"),
            "it was started with another configuration; name that one with --config",
        ),
        Port::Free => Finding::ok(what, format!("{address} is free")),
        Port::Held if answers => Finding::ok(what, format!("{address} is held, and our coordinator answers")),
        Port::Held => Finding::fault(
            what,
            format!("{address} is held by another program, or by a coordinator that does not answer"),
            "stop that one, or give the coordinator another port",
        ),
        Port::Refused(why) => Finding::fault(
            what,
            format!("{address} cannot be listened on: {why}"),
            "use an address of this machine, and a port that this user may have",
        ),
    }
}

#[cfg(test)]
mod tests {
    use coordinator::listener::Limits;

    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_the_way_does_not_explain() {
        let level = |before, there, after| clock(before, there, after).level;
        assert_eq!(level(10_000, 10_500, 11_000), Level::Ok);
        assert_eq!(level(10_000, 14_000, 11_000), Level::Ok);
        assert_eq!(level(100_000, 111_500, 101_000), Level::Warning);
        assert_eq!(level(100_000, 89_000, 101_000), Level::Warning);
        let far = CLOCK_SLACK_SECS * 1000;
        assert_eq!(level(10_000, 11_000 + far, 11_000), Level::Fault);
        assert!(clock(10_000, 30_000, 11_000).says.contains("19.000 s behind"));
        assert!(clock(30_000, 10_000, 31_000).says.contains("20.000 s ahead of"));
        assert_eq!(level(1, 0, 2), Level::Warning);
    }

    #[test]
    fn what_ends_soon_is_a_warning_and_what_has_ended_a_fault() {
        let level = |end| ends("certificate", 1000 * DAY_SECS, end, "renew it").level;
        assert_eq!(level(1000 * DAY_SECS), Level::Fault);
        assert_eq!(level(1010 * DAY_SECS), Level::Warning);
        assert_eq!(level(1014 * DAY_SECS), Level::Ok);
        assert_eq!(level(0), Level::Warning);
    }

    #[test]
    fn a_disk_and_files_are_held_against_what_the_coordinator_needs() {
        assert_eq!(disk(FREE_SPACE_FLOOR_BYTES - 1).level, Level::Fault);
        assert_eq!(disk(FREE_SPACE_FLOOR_BYTES).level, Level::Warning);
        assert_eq!(disk(ROOM_BYTES).level, Level::Ok);
        let wanted = Shares { devices: Limits::default(), operators: Limits::default() };
        assert_eq!(descriptors(wanted, 100).level, Level::Fault);
        assert_eq!(descriptors(wanted, 1024).level, Level::Warning);
        assert_eq!(descriptors(wanted, 1 << 20).level, Level::Ok);
    }

    #[test]
    fn a_port_is_ours_or_free_or_a_fault() {
        let at: SocketAddr = "127.0.0.1:7001".parse().unwrap();
        assert_eq!(port("port", at, &Port::Free, false).level, Level::Ok);
        assert_eq!(port("port", at, &Port::Free, true).level, Level::Warning);
        assert_eq!(port("port", at, &Port::Held, true).level, Level::Ok);
        assert_eq!(port("port", at, &Port::Held, false).level, Level::Fault);
        assert_eq!(port("port", at, &Port::Refused("no such address".to_owned()), false).level, Level::Fault);
    }
}
