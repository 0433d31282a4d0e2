//! What a device asks the machine that it runs on.

use session::conditions::Snapshot;

/// Says what the machine is doing now: its power, its heat, and how busy others keep it.
///
/// The device asks before it trains and while it does, on a thread that may wait. What a monitor cannot know is `None`,
/// which counts as a condition that does not hold unless the settings assume it.
pub trait DeviceMonitor: Send + Sync + 'static {
    /// Looks at the machine; may take as long as a look needs, up to a second or so.
    fn look(&self) -> Snapshot;
}
