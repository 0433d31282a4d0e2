//! A process that writes and is killed, again and again: what it said was durable is, and little more.
//!
//! SIGKILL does not lose the page cache, so this shows that records are written whole and in order before they
//! are acknowledged, and not that they are synced; the sync is for a loss of power.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the writer acknowledges on stdout")]

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use client::store::{DeviceStore, Entry};
use coordinator::records::{self, TaskHeader};
use privacy::accountant::RdpCurve;
use proto::admin::TaskState;
use proto::ids::{DeviceId, Digest, TaskId};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use session::spending::Charge;
use shell::store::{Batch, Key, Store};

/// Says to this very program that it is the one that writes, and where.
const FOLDER: &str = "NIGHTSHIFT_WRITES_IN";

const KILLS: u64 = 30;

/// A value of a device's state.
const LAST: &str = "last";

/// The tests take turns: a process that one of them starts has, for a moment, the other's locks open too.
static TURN: Mutex<()> = Mutex::new(());

const TASK: TaskId = TaskId([1; 16]);

const DEVICES: [DeviceId; 3] = [DeviceId([1; 16]), DeviceId([2; 16]), DeviceId([3; 16])];

#[test]
fn a_ledger_whose_writer_is_killed_holds_every_charge_that_was_acknowledged() {
    if let Some(folder) = env::var_os(FOLDER) {
        let mut memory = DeviceStore::open(Path::new(&folder)).unwrap();
        write_forever(memory.entries().len() as u64, |round| {
            memory.charge(charge(round), round).unwrap();
            memory.put(LAST, &round).unwrap();
        });
    }
    let folder = tempfile::tempdir().unwrap();
    kill_again_and_again(
        "a_ledger_whose_writer_is_killed_holds_every_charge_that_was_acknowledged",
        folder.path(),
        || {
            let memory = DeviceStore::open(folder.path()).unwrap();
            memory.verify().unwrap();
            for (entry, round) in memory.entries().iter().zip(1..) {
                assert_eq!(*entry, Entry::Charge { unix_millis: round, charge: charge(round) });
            }
            let charged = memory.entries().len() as u64;
            // The state, too, is there when it is acknowledged.
            let last: u64 = memory.get(LAST).unwrap().unwrap_or(0);
            assert!(last == charged || last + 1 == charged, "{charged} charges, and {last} in the state");
            charged
        },
    );
}

#[test]
fn a_store_whose_writer_is_killed_holds_every_round_that_was_acknowledged_whole() {
    if let Some(folder) = env::var_os(FOLDER) {
        let store = Store::open(Path::new(&folder)).unwrap();
        write_forever(rounds(&store), |round| {
            let mut batch = Batch::new();
            records::insert_survivors(&mut batch, TASK, round, &DEVICES).unwrap();
            for device in DEVICES {
                let count = u32::try_from(round).unwrap();
                records::put_participations(&mut batch, TASK, device, count).unwrap();
            }
            records::put_header(&mut batch, TASK, &header(round)).unwrap();
            store.commit_blocking(&batch).unwrap();
        });
    }
    let folder = tempfile::tempdir().unwrap();
    kill_again_and_again(
        "a_store_whose_writer_is_killed_holds_every_round_that_was_acknowledged_whole",
        folder.path(),
        || {
            let store = Store::open(folder.path()).unwrap();
            assert_eq!(store.check().unwrap().damaged, []);
            let last = rounds(&store);
            for round in 1..=last {
                assert_eq!(
                    records::survivors(&store, TASK, round).unwrap(),
                    DEVICES,
                    "round {round} of {last}"
                );
            }
            assert_eq!(records::survivors(&store, TASK, last + 1).unwrap(), []);
            for device in DEVICES {
                let key = Key::from(TASK.0).and_bytes(&device.0);
                let count: Option<u64> = store.get("participations", key).unwrap();
                assert_eq!(count.unwrap_or(0), last, "{device}");
            }
            last
        },
    );
}

/// Runs one test of this program as a process of its own, in which [`FOLDER`] is set, and kills it after a random
/// number of acknowledgements, [`KILLS`] times. `recover` opens what is left and says how many writes it holds:
/// all that were acknowledged, and at most the one that was under way.
fn kill_again_and_again(test: &str, folder: &Path, mut recover: impl FnMut() -> u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut held = 0;
    for kill in 0..KILLS {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let more = u64::from(rng.next_u32() % 12);
        let (mut acknowledged, mut first) = (held, true);
        // What it said before it died counts, also where it is only read now.
        for line in lines.map(Result::unwrap) {
            let Some((_, number)) = line.split_once(WRITTEN) else { continue };
            acknowledged = number.parse().unwrap();
            if first && acknowledged >= held + more {
                // A moment that has nothing to do with the writer's steps.
                for _ in 0..rng.next_u32() % 200_000 {
                    std::hint::spin_loop();
                }
                writer.kill().unwrap();
                first = false;
            }
        }
        writer.wait().unwrap();
        assert!(!first, "the writer ended by itself after {acknowledged}");
        held = recover();
        let may_be = BTreeSet::from([acknowledged, acknowledged + 1]);
        assert!(may_be.contains(&held), "kill {kill}: {acknowledged} were acknowledged, {held} are there");
    }
}

const WRITTEN: &str = "written ";

/// Writes, says so, and so on, until the process is killed.
fn write_forever(before: u64, mut write: impl FnMut(u64)) -> ! {
    let mut number = before;
    loop {
        number += 1;
        write(number);
        println!("{WRITTEN}{number}");
    }
}

fn charge(round: u64) -> Charge {
    Charge {
        task: TASK,
        version: 0,
        round,
        plan: Digest([2; 32]),
        cost: RdpCurve::Unbounded,
        delta: 1e-5,
        bytes: 10,
        examples: 3,
    }
}

fn header(round: u64) -> TaskHeader {
    TaskHeader {
        order: 0,
        state: TaskState::Active,
        plan: Digest([2; 32]),
        frozen: None,
        initial: Digest([3; 32]),
        adapter: Digest([4; 32]),
        folded: None,
        gathered: None,
        optimizer: Digest([5; 32]),
        rounds_charged: round,
        last_round: round,
        devices: 0,
    }
}

/// The last round that the store's task knows.
fn rounds(store: &Store) -> u64 {
    records::headers(store).unwrap().first().map_or(0, |(_, header)| header.last_round)
}
