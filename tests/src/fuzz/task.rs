//! The coordinator's machine against devices that may send anything.

use aggregation::Signature;
use prost::Message;
use proto::convert::request_to_wire;
use proto::ids::Digest;
use proto::message::{Request, input_digest};

use super::tape::Tape;
use super::world::{Carriage, World};

/// Moves a task by requests that are honest, repeated, lent, changed and invented, by time and by crashes.
///
/// Where the first byte's highest bit is set, the devices are left alone afterwards and must come to a version.
pub fn task(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let shape = tape.byte();
    let mut world = World::new(shape);
    while world.goes_on()
        && let Some(operation) = tape.next()
    {
        operate(&mut world, operation % 16, &mut tape);
    }
    if shape >= 128 {
        world.comes_to_a_version();
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
            world.step(tape.below(devices), &Carriage::RequestLost);
        }
        6 => {
            world.step(tape.below(devices), &Carriage::ReplyLost);
        }
        7 => {
            world.step(tape.below(devices), &Carriage::Crash);
        }
        8 => world.crash(),
        9 => world.abort(),
        10 => world.restart_device(tape.below(devices)),
        // A request from before, as it was or changed, in its own device's name or another's.
        11..=13 => {
            let Some((from, mut bytes)) = earlier(world, tape) else { return };
            if operation == 12 {
                in_the_last_session(world, &mut bytes);
            } else if operation == 13 {
                change(&mut bytes, tape);
            }
            let lent = tape.byte();
            let from = if lent.is_multiple_of(4) { usize::from(lent / 4) % (devices + 1) } else { from };
            world.forge(from, &bytes);
        }
        14 => {
            let from = tape.below(devices + 1);
            world.forge(from, tape.part());
        }
        _ => submit_another_input(world, tape),
    }
}

/// One of the last requests.
fn earlier(world: &World, tape: &mut Tape<'_>) -> Option<(usize, Vec<u8>)> {
    let back = usize::from(tape.byte());
    let requests = world.requests();
    requests.iter().rev().nth(back.checked_rem(requests.len())?).cloned()
}

/// Puts the last session's name where the request has its own.
fn in_the_last_session(world: &World, bytes: &mut [u8]) {
    let Some(session) = world.session() else { return };
    let Some(own) = session_of(bytes) else { return };
    if let Some(at) = bytes.windows(own.len()).position(|window| window == own) {
        bytes[at..at + own.len()].copy_from_slice(&session.0);
    }
}

fn session_of(bytes: &[u8]) -> Option<[u8; 32]> {
    let message = proto::wire::Request::decode(bytes).ok()?;
    Some(proto::convert::request_from_wire(message).ok()?.session()?.0)
}

/// Changes up to four bytes.
pub(super) fn change(bytes: &mut [u8], tape: &mut Tape<'_>) {
    for _ in 0..=tape.byte() % 4 {
        let (at, mask) = (tape.below(bytes.len()), tape.byte());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= mask;
        }
    }
}

/// A device whose input would begin now submits another one, with the hash that fits it and some signature.
fn submit_another_input(world: &mut World, tape: &mut Tape<'_>) {
    let index = tape.below(world.devices());
    let Some(Request::MaskedChunk { session, offset, mut packed }) = world.request_of(index) else { return };
    change(&mut packed, tape);
    let digest = input_digest(&[Digest::of(&packed)]);
    let chunk = Request::MaskedChunk { session, offset, packed };
    let mut sharing = [0; 64];
    change(&mut sharing, tape);
    let done = Request::MaskedDone { session, digest, sharing: Signature(sharing) };
    for request in [chunk, done] {
        world.forge(index, &request_to_wire(&request).encode_to_vec());
    }
}
