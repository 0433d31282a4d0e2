//! What a device asks the machine that it runs on.

use std::sync::Arc;

use session::conditions::Snapshot;
use tokio::sync::Notify;

/// Says what the machine is doing now: its power, its heat, whether somebody uses it, and how busy others keep it.
///
/// The device asks before it trains, and twice a second while it does, on a thread that may wait. What a monitor cannot
/// know is unknown, which counts as a condition that does not hold unless the settings assume it.
pub trait DeviceMonitor: Send + Sync + 'static {
    /// Looks at the machine; may take as long as a look needs, up to a second or so. What the device counts itself
    /// ([`Snapshot::usage`]) is filled in by the device.
    fn look(&self) -> Snapshot;

    /// Told whenever a look would see something else, where the machine says so by itself: the device then looks at
    /// once. Without it the device looks as often as its settings say.
    fn changes(&self) -> Option<Arc<Notify>> {
        None
    }
}

impl<M: DeviceMonitor + ?Sized> DeviceMonitor for Arc<M> {
    fn look(&self) -> Snapshot {
        (**self).look()
    }

    fn changes(&self) -> Option<Arc<Notify>> {
        (**self).changes()
    }
}
