//! Event files: their bytes, by a reader of this test's own, and as `TensorBoard` reads them.
//!
//! The Python is that of `NIGHTSHIFT_PYTHON`, else `python3`. Where it has no tensorboard the test says so and is skipped, unless
//! `NIGHTSHIFT_REQUIRE_TENSORBOARD` is set.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nightshift_sim::population::Report;

use super::{Desk, files, stderr};

/// By tag each number with its step and its second.
type Events = BTreeMap<String, Vec<(i64, f64, f64)>>;

/// CRC-32C, bit by bit: the polynomial of Castagnoli, turned round.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// So many bytes, and those behind them.
fn split(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), String> {
    bytes.split_at_checked(len).ok_or_else(|| format!("{} of {len} bytes", bytes.len()))
}

/// So many bytes of a record whose masked checksum is behind them, and what follows.
fn checked(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), String> {
    let (part, rest) = split(bytes, len)?;
    let (masked, rest) = split(rest, 4)?;
    let crc = crc32c(part);
    let wanted = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    if masked == wanted.to_le_bytes() { Ok((part, rest)) } else { Err("another checksum".to_owned()) }
}

/// The fields of a message of protobuf: numbers, and bytes as they are.
fn fields(mut bytes: &[u8]) -> Result<BTreeMap<u64, &[u8]>, String> {
    fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = split(bytes, 1)?;
            *bytes = rest;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err("a number without an end".to_owned())
    }
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let len = match key & 7 {
            0 => {
                let before = bytes;
                varint(&mut bytes)?;
                found.insert(key >> 3, &before[..before.len() - bytes.len()]);
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).map_err(|error| error.to_string())?,
            5 => 4,
            other => return Err(format!("wire type {other}")),
        };
        let (value, rest) = split(bytes, len)?;
        found.insert(key >> 3, value);
        bytes = rest;
    }
    Ok(found)
}

/// What stands in an event file, by a reader that shares nothing with the writer.
fn read_events(mut bytes: &[u8]) -> Result<Events, String> {
    let mut events = Events::new();
    let mut version = None;
    while !bytes.is_empty() {
        let (len, rest) = checked(bytes, 8)?;
        let len = u64::from_le_bytes(len.try_into().unwrap());
        let (event, rest) = checked(rest, usize::try_from(len).map_err(|error| error.to_string())?)?;
        bytes = rest;
        let event = fields(event)?;
        if version.is_none() {
            let found = event.get(&3).copied().ok_or("the first record says no version")?;
            version = Some(found);
            if found != b"brain.Event:2" {
                return Err("another version".to_owned());
            }
            continue;
        }
        let secs = f64::from_le_bytes(event[&1].try_into().map_err(|_| "no time")?);
        // Steps here are below 128: one byte; 0 is left out.
        let step = event.get(&2).map_or(0, |step| i64::from(step[0]));
        let value = fields(fields(event[&5])?[&1])?;
        let tag = String::from_utf8(value[&1].to_vec()).map_err(|error| error.to_string())?;
        let number = value.get(&2).copied().ok_or("no number")?;
        let number = f32::from_le_bytes(number.try_into().map_err(|_| "no number")?);
        events.entry(tag).or_default().push((step, secs, number.into()));
    }
    Ok(events)
}

/// The event file of a small run, with what came of it.
fn board(desk: &Desk) -> (Report, PathBuf) {
    desk.prints(&["population", "--devices", "40", "--cohort", "8", "--versions", "3", "--out", "out"]);
    let report = serde_json::from_slice(&fs::read(desk.path("out/summary.json")).unwrap()).unwrap();
    (report, desk.path("out/tensorboard"))
}

/// Fails where event files say other numbers than the report.
fn assert_says(events: &Events, report: &Report) {
    let near = |read: f64, wanted: f64| (read - wanted).abs() <= 1e-6 * wanted.abs();
    let loss = &events["loss"];
    assert_eq!(loss.len(), 4);
    assert!(near(loss[0].2, report.start.unwrap()));
    for (place, version) in report.versions.iter().enumerate() {
        assert_eq!(loss[place + 1].0, i64::from(version.version));
        assert!(near(loss[place + 1].1, 1_700_000_000.0 + version.at_secs));
        assert!(near(loss[place + 1].2, version.measure.unwrap()));
        assert!(near(events["devices/counted"][place].2, version.survivors.into()));
        assert!(near(events["devices/missing"][place].2, version.missing.into()));
        assert!(near(events["epsilon"][place].2, version.epsilon.unwrap()));
        assert!(near(events["signal_to_noise"][place].2, version.snr.unwrap()));
    }
}

#[test]
fn event_files_have_the_checksums_and_the_numbers() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let desk = Desk::new();
    let (report, folder) = board(&desk);
    let found = files(&folder);
    let (name, bytes) = found.iter().next().unwrap();
    assert!(found.len() == 1 && name.to_str().unwrap().contains(".tfevents."), "{name:?}");
    assert_says(&read_events(bytes).unwrap(), &report);
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(read_events(&changed).is_err(), "a changed byte {place} is not seen");
    }
}

/// Reads an event file as `TensorBoard` does, with its checksums, and prints what is in it.
const EVENTS: &str = r"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
print(json.dumps({tag: [[e.step, e.wall_time, e.value] for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))
";

/// A Python that has tensorboard; none where there is no such one.
fn python() -> Option<String> {
    let python = std::env::var("NIGHTSHIFT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    match Command::new(&python).args(["-c", "import tensorboard"]).output() {
        Ok(asked) if asked.status.success() => return Some(python),
        Ok(asked) => eprintln!("skipped: {python} lacks tensorboard: {:?}", asked.status),
        Err(error) => eprintln!("skipped: {python} does not run: {error}"),
    }
    assert!(
        std::env::var_os("NIGHTSHIFT_REQUIRE_TENSORBOARD").is_none(),
        "NIGHTSHIFT_REQUIRE_TENSORBOARD is set"
    );
    None
}

#[test]
fn tensorboard_reads_what_is_written() {
    let Some(python) = python() else { return };
    let desk = Desk::new();
    let (report, folder) = board(&desk);
    let read = Command::new(python).args(["-c", EVENTS]).arg(&folder).output().unwrap();
    assert!(read.status.success(), "{}", stderr(&read));
    assert_says(&serde_json::from_slice(&read.stdout).unwrap(), &report);
}
