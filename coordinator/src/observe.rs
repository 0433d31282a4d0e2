//! What others may see of a coordinator that runs: its metrics (`observe/scrape.rs`) and whether it serves, over HTTP on a listener
//! of their own (`observe/endpoint.rs`) and as gRPC's health service (`observe/health.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::driver::Driver;

pub mod endpoint;
pub mod health;
mod process;
pub mod scrape;

/// Whether the coordinator takes on work. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Readiness {
    driver: Driver,
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// Of a coordinator that serves.
    pub fn new(driver: Driver) -> Self {
        Self { driver, stopping: Arc::default() }
    }

    /// From now on it only ends what is open.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether it only ends what is open.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why it takes on no work; `None` where it does. A disk that is full is no reason: what is only read goes on, and devices
    /// are told to wait.
    pub fn why_not(&self) -> Option<&'static str> {
        if self.driver.is_failed() {
            Some("stopped after a failed write")
        } else if self.is_stopping() {
            Some("stopping")
        } else {
            None
        }
    }
}
