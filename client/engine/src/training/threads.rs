//! Runs a computation on its own thread pool, while the calling thread answers its progress reports.

use std::ops::ControlFlow;
use std::sync::mpsc;

use crate::error::TrainError;
use crate::training::job::Step;

/// Runs `work` in a pool of `threads` threads; `progress` answers its reports on the calling thread. Fails if
/// the threads cannot be started, or if `work` does.
///
/// The pool is not shared: in a common one, a training that waits for its parts would begin another device's
/// training, one nested inside the other.
pub(crate) fn on_threads<T: Send>(
    threads: usize,
    progress: &mut dyn FnMut(Step) -> ControlFlow<()>,
    work: impl FnOnce(&mut (dyn FnMut(Step) -> ControlFlow<()> + Send)) -> Result<T, TrainError> + Send,
) -> Result<T, TrainError> {
    let failed = |error: &dyn std::fmt::Display| TrainError::Thread(error.to_string());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|i| format!("training-{i}"))
        .build()
        .map_err(|error| failed(&error))?;
    let (steps, asked) = mpsc::channel::<Step>();
    let (answers, answered) = mpsc::channel::<ControlFlow<()>>();
    std::thread::scope(|scope| {
        // This thread only waits for the pool.
        let worker = std::thread::Builder::new()
            .name("training".to_owned())
            .spawn_scoped(scope, move || {
                pool.install(move || {
                    work(&mut move |step| match steps.send(step) {
                        Ok(()) => answered.recv().unwrap_or(ControlFlow::Break(())),
                        Err(_) => ControlFlow::Break(()),
                    })
                })
            })
            .map_err(|error| failed(&error))?;
        // Ends when `work` does, because that drops its end of the channel.
        while let Ok(step) = asked.recv() {
            if answers.send(progress(step)).is_err() {
                break;
            }
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
