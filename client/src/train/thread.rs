//! One computation on one thread of its own.
//!
//! candle spreads large operations over the rayon pool of the thread that asks. A device that trains
//! among others on such a pool would wait for its splits by training another device, one inside the
//! other. So a computation runs in a pool of one, and its caller blocks.

use std::ops::ControlFlow;
use std::sync::mpsc;

use super::engine::{Step, TrainError};

/// Runs `work` on a thread of its own; its reports are answered by `progress` on this thread.
pub(crate) fn on_one_thread<T: Send>(
    progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    work: impl FnOnce(&mut dyn FnMut(Step) -> ControlFlow<()>) -> Result<T, TrainError> + Send,
) -> Result<T, TrainError> {
    let failed = |error: &dyn std::fmt::Display| TrainError::Thread(error.to_string());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|error| failed(&error))?;
    let (steps, asked) = mpsc::channel::<Step>();
    let (answers, answered) = mpsc::channel::<ControlFlow<()>>();
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("training".to_owned())
            .spawn_scoped(scope, move || {
                pool.install(move || {
                    work(&mut |step| match steps.send(step) {
                        Ok(()) => answered.recv().unwrap_or(ControlFlow::Break(())),
                        Err(_) => ControlFlow::Break(()),
                    })
                })
            })
            .map_err(|error| failed(&error))?;
        // Ends when the work does, because that drops its end of the channel.
        while let Ok(step) = asked.recv() {
            if answers.send(progress(step)).is_err() {
                break;
            }
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
