//! What a device works out in no time, and what it needs a processor for.

use proto::message::Reply;
use session::Event;

/// Whether the machine takes the event in no time.
pub(crate) fn is_light(event: &Event) -> bool {
    match event {
        Event::Replied(reply) => matches!(reply, Reply::Wait { .. }),
        Event::Woke
        | Event::Rejected(_)
        | Event::Unreachable
        | Event::CertificateEnded
        | Event::NotTrained(_)
        | Event::NoText(_)
        | Event::TrainerFailed(_)
        | Event::CannotTrain(_)
        | Event::NoWindow
        | Event::WindowOpened
        | Event::ClockStepped
        | Event::LeavesRound => true,
        Event::Renewed { .. }
        | Event::PlanLoaded(_)
        | Event::Loaded { .. }
        | Event::Trained(_)
        | Event::Recorded => false,
    }
}
