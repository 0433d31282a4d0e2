//! What is found, and what to do about it; nothing here looks for itself.

use std::net::SocketAddr;

use coordinator::descriptors::Shares;
use coordinator::enrollment::CLOCK_SLACK_SECS;
use proto::admin::{AuthorityStatus, LogStatus, WitnessStatus};
use proto::counted::counted;
use proto::shown::{message, shown};
use shell::doctor::Finding;
use shell::store::FREE_SPACE_FLOOR_BYTES;

use crate::output::at;

/// A clock that is farther off than this is worth a word, in milliseconds.
const CLOCK_MILLIS: u64 = 5_000;

/// A certificate that ends within so many days is worth a word.
const DAYS: u64 = 14;

const DAY_SECS: u64 = 24 * 3600;

/// So many bytes free on a disk are no worry.
const ROOM_BYTES: u64 = 1 << 30;

/// A thing that an operator should know, and what to do.
pub(super) fn warning(check: &'static str, what: impl Into<String>, to_do: impl Into<String>) -> Finding {
    Finding::warning(check, what).advising(to_do)
}

/// A thing that is at fault, and what to do.
pub(super) fn fault(check: &'static str, what: impl Into<String>, to_do: impl Into<String>) -> Finding {
    Finding::fault(check, what).advising(to_do).code(3)
}

/// This machine's clock against the coordinator's, which answered between two looks at ours; milliseconds since 1970.
pub(super) fn clock(before: u64, coordinators: u64, after: u64) -> Finding {
    if coordinators == 0 {
        return warning("clock", "the coordinator does not say what its clock shows", "run a newer one");
    }
    // What the way took is no difference.
    let off = before.saturating_sub(coordinators).max(coordinators.saturating_sub(after));
    let side = if coordinators > after { "behind" } else { "ahead of" };
    let says = format!("this machine's is {}.{:03} s {side} the coordinator's", off / 1000, off % 1000);
    let advice = "set the one that is wrong, and let both machines keep time (systemd-timesyncd, chrony)";
    match off {
        0 => Finding::ok("clock", "as the coordinator's"),
        _ if off <= CLOCK_MILLIS => Finding::ok("clock", says),
        _ if off < CLOCK_SLACK_SECS * 1000 => warning("clock", says, advice),
        _ => fault("clock", format!("{says}: certificates of now are not valid there"), advice),
    }
}

/// When a certificate ends, by the time of now; seconds since 1970.
pub(super) fn ends(what: &'static str, now: u64, end: u64, advice: &str) -> Finding {
    if end == 0 {
        return warning(what, "nobody says when it ends", "run a newer coordinator");
    }
    if end <= now {
        return fault(what, format!("ended {}", at(end)), advice);
    }
    let says = format!("ends {}, in {}", at(end), counted((end - now) / DAY_SECS, "day", "days"));
    if end - now < DAYS * DAY_SECS { warning(what, says, advice) } else { Finding::ok(what, says) }
}

/// An authority apart.
pub(super) fn authority(status: &AuthorityStatus) -> Finding {
    const WHAT: &str = "enrollment authority";
    let address = shown(&status.address);
    if status.answers {
        return Finding::ok(WHAT, format!("{address} answers, since {}", at(status.since_unix_secs)));
    }
    match &status.why {
        None => warning(WHAT, format!("{address} was not asked yet"), "ask again in a minute"),
        Some(why) => warning(
            WHAT,
            format!("{address} does not answer, since {}: {}", at(status.since_unix_secs), shown(why)),
            "start it, or mend the way to it: no device enrolls or renews meanwhile, and rounds end when the last head of its log is \
             a day old",
        ),
    }
}

/// The log of an authority apart, where it is not taken.
pub(super) fn refused_log(status: &AuthorityStatus) -> Option<Finding> {
    let why = status.log_refused.as_ref()?;
    let advice = "see \"When a folder came back from a backup\" in deploy/authority.md";
    Some(fault("enrollment authority's log", message(why).to_string(), advice))
}

/// The log of enrollments, and each of its witnesses that does not sign.
pub(super) fn log(now: u64, status: &LogStatus) -> Vec<Finding> {
    const WHAT: &str = "enrollment log";
    let hours = now.saturating_sub(status.rounds_unix_secs) / 3600;
    let says = format!(
        "{}, {} within a day; rounds are about a head of {} that is {} old",
        counted(status.size, "entry", "entries"),
        counted(status.young_devices, "device enrolled", "devices enrolled"),
        counted(status.rounds_size, "entry", "entries"),
        counted(hours, "hour", "hours")
    );
    let advice =
        "look why no newer head is signed: the authority that keeps the log, its disk, its witnesses";
    let mut findings = vec![match hours {
        _ if status.head_unix_secs == 0 => {
            warning(WHAT, "it has no head yet", "wait until the authority answers")
        }
        24.. => fault(WHAT, format!("{says}, and devices take none that is more than a day old"), advice),
        _ if !status.is_witnessed() => {
            let fewer = counted(status.least_witnesses, "witness", "witnesses");
            fault(
                WHAT,
                format!("{says}, and fewer than {fewer} signed it: devices that demand them take no part"),
                advice,
            )
        }
        2.. => warning(WHAT, format!("{says}, and devices take none that is more than a day old"), advice),
        _ if status.waiting_versions > 0 => Finding::ok(
            WHAT,
            format!(
                "{says}; {} to become an entry",
                counted(status.waiting_versions, "version waits", "versions wait")
            ),
        ),
        _ => Finding::ok(WHAT, says),
    }];
    let names = |witness: &WitnessStatus| shown(&witness.name).to_string();
    for witness in &status.witnesses {
        let Some(why) = &witness.trouble else { continue };
        let says = format!("{}: {}", names(witness), shown(why));
        findings.push(if witness.saw_other_log {
            let advice = "where the folder came back from a backup, put a newer one back; where it did not, somebody else has the \
                          enrollment key, or keeps a second log with it";
            fault("witness", says, advice)
        } else {
            warning("witness", says, "it is asked again; see whoever runs it")
        });
    }
    if !status.witnesses.is_empty() && findings.len() == 1 {
        let says = status.witnesses.iter().map(names).collect::<Vec<_>>().join(", ");
        findings.push(Finding::ok("witnesses", format!("{says} sign")));
    }
    findings
}

/// What is free where the coordinator writes.
pub(super) fn disk(free: u64) -> Finding {
    let says = format!("{} MiB are free where the coordinator writes", free >> 20);
    let floor = FREE_SPACE_FLOOR_BYTES >> 20;
    if free < FREE_SPACE_FLOOR_BYTES {
        let says = format!("{says}, and below {floor} MiB it writes nothing");
        fault("disk", says, "make room on that disk; what is only read goes on meanwhile")
    } else if free < ROOM_BYTES {
        let advice = format!("make room: below {floor} MiB nothing is written any more");
        warning("disk", says, advice)
    } else {
        Finding::ok("disk", says)
    }
}

/// How many files this process may open, against the connections of the configuration.
pub(super) fn descriptors(wanted: Shares, granted: usize) -> Finding {
    const ADVICE: &str = "raise LimitNOFILE (systemd) or `ulimit -n`, or lower limits.connections";
    let connections = wanted.devices.connections;
    match wanted.fit(granted) {
        Err(error) => fault("open files", error.to_string(), ADVICE),
        Ok(shares) if shares == wanted => {
            Finding::ok("open files", format!("enough for {connections} connections of devices"))
        }
        Ok(shares) => warning(
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
    if address.port() == 0 {
        return warning(
            what,
            "0: the system chooses another one at each start, and tokens and devices name the one before",
            "write a number into the configuration",
        );
    }
    match port {
        Port::Free if answers => warning(
            what,
            format!("{address} is free, and a coordinator answers elsewhere"),
            "it was started with another configuration; name that one with --config",
        ),
        Port::Free => Finding::ok(what, format!("{address} is free")),
        Port::Held if answers => Finding::ok(what, format!("{address} is held, and our coordinator answers")),
        Port::Held => fault(
            what,
            format!("{address} is held by another program, or by a coordinator that does not answer"),
            "stop that one, or give the coordinator another port",
        ),
        Port::Refused(why) => fault(
            what,
            format!("{address} cannot be listened on: {why}"),
            "use an address of this machine, and a port that this user may have",
        ),
    }
}

#[cfg(test)]
mod tests {
    use coordinator::listener::Limits;

    use shell::doctor::Verdict;

    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_the_way_does_not_explain() {
        let level = |before, there, after| clock(before, there, after).verdict();
        assert_eq!(level(10_000, 10_500, 11_000), Verdict::Ok);
        assert_eq!(level(10_000, 14_000, 11_000), Verdict::Ok);
        assert_eq!(level(100_000, 111_500, 101_000), Verdict::Warning);
        assert_eq!(level(100_000, 89_000, 101_000), Verdict::Warning);
        let far = CLOCK_SLACK_SECS * 1000;
        assert_eq!(level(10_000, 11_000 + far, 11_000), Verdict::Fault);
        assert!(clock(10_000, 30_000, 11_000).what().contains("19.000 s behind"));
        assert!(clock(30_000, 10_000, 31_000).what().contains("20.000 s ahead of"));
        assert_eq!(level(1, 0, 2), Verdict::Warning);
    }

    #[test]
    fn what_ends_soon_is_a_warning_and_what_has_ended_a_fault() {
        let level = |end| ends("certificate", 1000 * DAY_SECS, end, "renew it").verdict();
        assert_eq!(level(1000 * DAY_SECS), Verdict::Fault);
        assert_eq!(level(1010 * DAY_SECS), Verdict::Warning);
        assert_eq!(level(1014 * DAY_SECS), Verdict::Ok);
        assert_eq!(level(0), Verdict::Warning);
    }

    #[test]
    fn a_log_is_judged_by_the_head_that_rounds_are_about_and_by_its_witnesses() {
        let now = 1_000_000_000;
        let witness = |trouble: Option<&str>, saw_other_log| WitnessStatus {
            name: "owl".into(),
            trouble: trouble.map(str::to_owned),
            saw_other_log,
            ..WitnessStatus::default()
        };
        let levels = |hours: u64, witnesses: Vec<WitnessStatus>| {
            let signed = now - hours * 3600;
            let status = LogStatus {
                size: 9,
                head_unix_secs: now,
                rounds_size: 7,
                rounds_unix_secs: signed,
                witnesses,
                ..LogStatus::default()
            };
            log(now, &status).iter().map(Finding::verdict).collect::<Vec<_>>()
        };
        assert_eq!(levels(1, vec![]), [Verdict::Ok]);
        assert_eq!(levels(2, vec![]), [Verdict::Warning]);
        assert_eq!(levels(24, vec![]), [Verdict::Fault]);
        assert_eq!(levels(0, vec![witness(None, false)]), [Verdict::Ok, Verdict::Ok]);
        let both = vec![witness(Some("away"), false), witness(Some("forked"), true)];
        assert_eq!(levels(0, both), [Verdict::Ok, Verdict::Warning, Verdict::Fault]);
        assert_eq!(log(now, &LogStatus::default())[0].verdict(), Verdict::Warning);
        let away = AuthorityStatus {
            why: Some("no answer".into()),
            since_unix_secs: 5,
            ..AuthorityStatus::default()
        };
        assert!(authority(&away).what().contains("does not answer"));
        assert_eq!(authority(&AuthorityStatus { answers: true, ..away }).verdict(), Verdict::Ok);
        assert_eq!(authority(&AuthorityStatus::default()).verdict(), Verdict::Warning);
        assert!(refused_log(&AuthorityStatus::default()).is_none());
        let back =
            AuthorityStatus { log_refused: Some("it went back".to_owned()), ..AuthorityStatus::default() };
        assert_eq!(refused_log(&back).map(|finding| finding.verdict()), Some(Verdict::Fault));
    }

    #[test]
    fn a_disk_and_files_are_held_against_what_the_coordinator_needs() {
        assert_eq!(disk(FREE_SPACE_FLOOR_BYTES - 1).verdict(), Verdict::Fault);
        assert_eq!(disk(FREE_SPACE_FLOOR_BYTES).verdict(), Verdict::Warning);
        assert_eq!(disk(ROOM_BYTES).verdict(), Verdict::Ok);
        let wanted = Shares { devices: Limits::default(), operators: Limits::default() };
        assert_eq!(descriptors(wanted, 100).verdict(), Verdict::Fault);
        assert_eq!(descriptors(wanted, 1024).verdict(), Verdict::Warning);
        assert_eq!(descriptors(wanted, 1 << 20).verdict(), Verdict::Ok);
    }

    #[test]
    fn a_port_is_ours_or_free_or_a_fault() {
        let at: SocketAddr = "127.0.0.1:7001".parse().unwrap();
        assert_eq!(port("port", at, &Port::Free, false).verdict(), Verdict::Ok);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(port("port", any, &Port::Free, true).verdict(), Verdict::Warning);
        assert_eq!(port("port", at, &Port::Free, true).verdict(), Verdict::Warning);
        assert_eq!(port("port", at, &Port::Held, true).verdict(), Verdict::Ok);
        assert_eq!(port("port", at, &Port::Held, false).verdict(), Verdict::Fault);
        assert_eq!(
            port("port", at, &Port::Refused("no such address".to_owned()), false).verdict(),
            Verdict::Fault
        );
    }
}
