//! How much of the machine a trainer takes, and when it gives it back.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
    thread_schedule_policy,
};

/// The highest score: nothing is ended before it.
const OOM_SCORE: &str = "1000";

/// Asks the system to end this process before any other when memory runs out.
pub(super) fn offer_to_go() -> Result<(), String> {
    fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(|error| error.to_string())
}

/// Gives this process what CPU nobody else wants. Threads that it starts have it so too.
pub(super) fn be_idle() -> Result<(), String> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    // After the policy it sets a niceness of 0, which a daemon that is itself nice may not: what counts is the policy.
    match thread_schedule_policy() {
        Ok(policy) if policy == idle => Ok(()),
        Ok(_) | Err(_) => set.map_err(|error| format!("{error:?}")),
    }
}

/// Limits what this process can have written to.
pub(super) fn limit_memory(bytes: u64) -> Result<(), String> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit).map_err(|error| error.to_string())
}
