//! Who is enrolled, in memory: every call of a device asks for it, and a read of the store may wait for the disk.
//!
//! All devices that ever enrolled are here, so what is said is exact. It is read from the store at the start, and changed
//! by whoever changed the store, in the same step and on the same thread, so that no caller who goes away comes between.
//! A device takes 18 bytes of a table that is at least 7/16 full: 24 bytes each for 100,000 devices, 42 at most.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use proto::ids::DeviceId;
use shell::store::Store;

use crate::records::{self, RecordError};

/// The devices that ever enrolled.
#[derive(Debug, Default)]
pub struct KnownDevices(RwLock<Devices>);

#[derive(Debug, Default)]
struct Devices {
    standings: HashMap<DeviceId, Standing>,
    /// How often one was enrolled or revoked since the start.
    changes: u64,
}

/// Whether a device may ask. One that was shut out stays so, whatever comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Enrolled,
    Revoked,
}

impl KnownDevices {
    /// Reads all devices. One whose record is damaged is none. Blocks.
    pub(crate) fn read(store: &Store) -> Result<Self, RecordError> {
        let standing = |revoked| if revoked { Standing::Revoked } else { Standing::Enrolled };
        let devices = records::devices(store)?;
        let standings = devices.iter().map(|device| (device.device, standing(device.revoked))).collect();
        Ok(Self(RwLock::new(Devices { standings, changes: 0 })))
    }

    /// Whether the device is enrolled and not shut out.
    pub fn is_enrolled(&self, device: DeviceId) -> bool {
        self.devices().standings.get(&device) == Some(&Standing::Enrolled)
    }

    /// The store says that the device is enrolled.
    pub(crate) fn enrolled(&self, device: DeviceId) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // A revocation may have come between the record and this.
        devices.standings.entry(device).or_insert(Standing::Enrolled);
        devices.changes += 1;
    }

    /// The store says that the device is shut out.
    pub(crate) fn revoked(&self, device: DeviceId) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        devices.standings.insert(device, Standing::Revoked);
        devices.changes += 1;
    }

    /// How many were ever enrolled.
    pub(crate) fn count(&self) -> usize {
        self.devices().standings.len()
    }

    /// How many are enrolled, and how many are shut out.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let devices = self.devices();
        let revoked = devices.standings.values().filter(|standing| **standing == Standing::Revoked).count();
        (devices.standings.len() - revoked, revoked)
    }

    /// How often something changed since the start.
    pub(crate) fn changes(&self) -> u64 {
        self.devices().changes
    }

    /// All that are enrolled, in no telling order, and how often something had changed.
    pub(crate) fn all_enrolled(&self) -> (Vec<DeviceId>, u64) {
        let devices = self.devices();
        let enrolled = devices.standings.iter().filter(|(_, standing)| **standing == Standing::Enrolled);
        (enrolled.map(|(device, _)| *device).collect(), devices.changes)
    }

    fn devices(&self) -> RwLockReadGuard<'_, Devices> {
        // The table is whole after each change.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_shut_out_stays_so_also_where_the_enrollment_is_heard_of_later() {
        let known = KnownDevices::default();
        let (anna, bela) = (DeviceId([1; 16]), DeviceId([2; 16]));
        known.enrolled(anna);
        known.revoked(bela);
        known.enrolled(bela);
        assert!(known.is_enrolled(anna) && !known.is_enrolled(bela));
        assert_eq!(known.all_enrolled(), (vec![anna], 3));
        known.revoked(anna);
        assert!(!known.is_enrolled(anna) && !known.is_enrolled(DeviceId([3; 16])));
        assert_eq!(known.changes(), 4);
    }

    #[test]
    fn a_device_takes_as_many_bytes_as_is_said() {
        assert_eq!(size_of::<(DeviceId, Standing)>(), 17);
    }
}
