//! Who may connect: how many devices are in which state, and whose certificates end soon.

use proto::admin::{DeviceStatus, OperatorStatus};
use proto::ids::DeviceId;
use serde::Serialize;

/// Certificates that end within so many seconds are named: a week.
const SOON_SECS: u64 = 7 * 24 * 3600;

/// As many are named; of the others it is said how many there are.
const MOST_NAMED: usize = 20;

/// Who may connect.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Census {
    devices: Devices,
    operators: Vec<Operator>,
}

/// How many devices are in which state.
#[derive(Clone, Debug, Default, Serialize)]
struct Devices {
    /// They may connect.
    enrolled: usize,
    revoked: usize,
    /// Their certificate has ended; they may renew it or enroll again.
    ended: usize,
    /// Of those that may connect, how many certificates end within a week: they were not renewed when it was due.
    ends_soon: usize,
    /// The first of these.
    named: Vec<EndsSoon>,
}

#[derive(Clone, Debug, Serialize)]
struct EndsSoon {
    device: DeviceId,
    label: String,
    expires_unix_secs: u64,
}

/// A certificate of an operator that has not ended and is not revoked.
#[derive(Clone, Debug, Serialize)]
struct Operator {
    name: String,
    expires_unix_secs: u64,
    ends_soon: bool,
}

impl Census {
    /// Of all devices and all certificates of operators.
    pub(crate) fn of(devices: Vec<DeviceStatus>, operators: Vec<OperatorStatus>, now_secs: u64) -> Self {
        let soon = now_secs.saturating_add(SOON_SECS);
        let mut counted = Devices::default();
        for device in devices {
            if device.revoked {
                counted.revoked += 1;
            } else if device.expires_unix_secs < now_secs {
                counted.ended += 1;
            } else {
                counted.enrolled += 1;
                if device.expires_unix_secs <= soon {
                    counted.ends_soon += 1;
                    let DeviceStatus { device, label, expires_unix_secs, .. } = device;
                    counted.named.push(EndsSoon { device, label, expires_unix_secs });
                }
            }
        }
        counted.named.sort_by_key(|device| (device.expires_unix_secs, device.device));
        counted.named.truncate(MOST_NAMED);
        let holds = |operator: &OperatorStatus| !operator.revoked && operator.expires_unix_secs >= now_secs;
        let operators = operators.into_iter().filter(holds).map(|operator| Operator {
            ends_soon: operator.expires_unix_secs <= soon,
            name: operator.name,
            expires_unix_secs: operator.expires_unix_secs,
        });
        Self { devices: counted, operators: operators.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::Serial;
    use proto::role::Role;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn device(i: u8, revoked: bool, expires_unix_secs: u64) -> DeviceStatus {
        let device = DeviceId([i; 16]);
        DeviceStatus {
            device,
            label: format!("d{i}"),
            enrolled_unix_millis: 0,
            revoked,
            expires_unix_secs,
            last_seen_unix_secs: 0,
            client: String::new(),
            participations: 0,
        }
    }

    #[test]
    fn devices_are_counted_once_and_those_that_end_first_are_named() {
        let mut devices = vec![
            device(1, true, NOW + 1),
            device(2, false, NOW - 1),
            device(3, false, NOW + SOON_SECS + 1),
            device(4, false, NOW + SOON_SECS),
            device(5, false, NOW),
        ];
        devices.extend((10..40).map(|i| device(i, false, NOW + 1000)));
        let Devices { enrolled, revoked, ended, ends_soon, named } =
            Census::of(devices, Vec::new(), NOW).devices;
        assert_eq!((enrolled, revoked, ended, ends_soon), (33, 1, 1, 32));
        assert_eq!((named.len(), named[0].label.as_str()), (MOST_NAMED, "d5"));
    }

    #[test]
    fn an_operator_who_may_do_nothing_is_not_there() {
        let operator = |i: u8, expires_unix_secs, revoked| OperatorStatus {
            serial: Serial([i; 16]),
            name: format!("o{i}"),
            role: Role::Viewer,
            issued_unix_secs: 0,
            expires_unix_secs,
            revoked,
        };
        let all = vec![operator(1, NOW, false), operator(2, NOW - 1, false), operator(3, NOW + 9, true)];
        let there = Census::of(Vec::new(), all, NOW).operators;
        assert_eq!(
            there.iter().map(|one| (one.name.as_str(), one.ends_soon)).collect::<Vec<_>>(),
            [("o1", true)]
        );
    }
}
