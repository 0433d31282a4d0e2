//! The device's machine against a coordinator that may answer anything.

use prost::Message;
use proto::convert::{rejection_from_bytes, reply_from_wire};
use proto::wire;
use session::Event;
use session::policy::Breach;
use session::update::Update;

use super::tape::Tape;
use super::task::change;
use super::world::{Carriage, World};

/// Moves devices by answers that are honest, repeated, changed and invented, and by events out of their order.
pub fn session(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let mut world = World::new(tape.byte());
    while world.goes_on()
        && let Some(operation) = tape.next()
    {
        operate(&mut world, operation % 16, &mut tape);
    }
}

fn operate(world: &mut World, operation: u8, tape: &mut Tape<'_>) {
    let devices = world.devices();
    match operation {
        0 => world.run(1),
        1 => world.run(usize::from(tape.byte() % 32)),
        2 => {
            world.step(tape.below(devices), &Carriage::Whole);
        }
        3 => world.wait_until_due(),
        4 => world.pass(500 * tape.number() as u64),
        5 => {
            world.step(tape.below(devices), &Carriage::ReplyLost);
        }
        6 => {
            world.step(tape.below(devices), &Carriage::Crash);
        }
        7 => world.restart_device(tape.below(devices)),
        8 => {
            // The copy is the same for every call.
            let (index, from) = (tape.below(devices), *tape);
            let flip = |bytes: &mut Vec<u8>| change(bytes, &mut from.clone());
            world.step(index, &Carriage::Changed(&flip));
            change(&mut [], tape);
        }
        9 => {
            let (index, back) = (tape.below(devices), usize::from(tape.byte()));
            let replies = world.replies();
            let Some(place) = back.checked_rem(replies.len()) else { return };
            let Some(earlier) = replies.iter().rev().nth(place).cloned() else { return };
            let replace = |bytes: &mut Vec<u8>| bytes.clone_from(&earlier);
            world.step(index, &Carriage::Changed(&replace));
        }
        10 => {
            let (index, bytes) = (tape.below(devices), tape.part());
            let replace = |reply: &mut Vec<u8>| *reply = bytes.to_vec();
            world.step(index, &Carriage::Changed(&replace));
        }
        _ => {
            let index = tape.below(devices);
            if let Some(event) = event(world, operation, tape) {
                world.lie(index, event);
            }
        }
    }
}

/// An event that the device may not be waiting for.
fn event(world: &World, operation: u8, tape: &mut Tape<'_>) -> Option<Event> {
    Some(match operation {
        11 => Event::Rejected(rejection_from_bytes(tape.part()).ok()?),
        12 => Event::Replied(reply_from_wire(wire::Reply::decode(tape.part()).ok()?).ok()?),
        13 => {
            let (mut plan, mut adapter) = (world.plan_bytes().to_vec(), tape.part().to_vec());
            change(&mut plan, tape);
            change(&mut adapter, tape);
            let frozen = Some(tape.part().to_vec());
            if tape.byte().is_multiple_of(2) {
                Event::PlanLoaded(plan)
            } else {
                Event::Loaded { adapter, frozen, folded: None, before: None }
            }
        }
        14 => {
            let before = world.adapter();
            let mut after: Vec<f32> = before.iter().map(|x| x + f32::from(tape.byte())).collect();
            after.truncate(after.len() - usize::from(tape.byte() % 2));
            Event::Trained(Update::between(before.get(..after.len())?, &after, f64::NAN, u32::MAX)?)
        }
        _ => match tape.byte() % 5 {
            0 => Event::Woke,
            1 => Event::Unreachable,
            2 => Event::Recorded,
            3 => Event::CannotTrain(Breach::Time { found: 2, most: 1 }),
            _ => Event::NotTrained(String::new()),
        },
    })
}
