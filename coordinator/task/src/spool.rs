//! Where masked inputs wait until they are complete.
//!
//! An input counts whole or not at all, so its chunks cannot go into the sum as they come; and a thousand
//! unfinished inputs do not fit in memory. A round spools them: it does not know whether to memory or to a disk.

#[cfg(feature = "folder")]
mod folder;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;

use aggregation::DeviceIndex;
use proto::ids::SessionId;

#[cfg(feature = "folder")]
pub use folder::FolderSpooler;

/// Opens a spool for each round.
pub trait Spooler: Debug + Send + Sync {
    /// An empty spool for the inputs of one round.
    fn open(&self, session: SessionId) -> io::Result<Box<dyn Spool>>;
}

/// The unfinished inputs of one round. What is left in it goes when it is dropped.
pub trait Spool: Debug + Send {
    /// Keeps bytes of the input of the device in place `index`, from byte `at` on.
    fn write(&mut self, index: DeviceIndex, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads the bytes from `at` on back, as many as fit.
    fn read(&mut self, index: DeviceIndex, at: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Forgets an input.
    fn remove(&mut self, index: DeviceIndex);
}

/// Spools to memory: for simulations and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl Spooler for InMemory {
    fn open(&self, _: SessionId) -> io::Result<Box<dyn Spool>> {
        Ok(Box::new(Memory::default()))
    }
}

#[derive(Debug, Default)]
struct Memory(BTreeMap<DeviceIndex, Vec<u8>>);

impl Spool for Memory {
    fn write(&mut self, index: DeviceIndex, at: u64, bytes: &[u8]) -> io::Result<()> {
        let input = self.0.entry(index).or_default();
        input.resize(usize::try_from(at).map_err(io::Error::other)?, 0);
        input.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, index: DeviceIndex, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let kept = self.0.get(&index).and_then(|input| input.get(at..at + bytes.len()));
        bytes.copy_from_slice(kept.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn remove(&mut self, index: DeviceIndex) {
        self.0.remove(&index);
    }
}
