//! A device of an authority apart whose certificate ends soon: the authority states the same of it again, and the coordinator
//! makes the certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::store::DeviceStore;

use super::stage::text;
use super::world::{World, device, said};

const DAY: u64 = 24 * 3600;

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Makes the device believe that more than half of its certificate's life is over.
fn ages(world: &World, name: &str) {
    let store = DeviceStore::open(&world.stage.path(name)).unwrap();
    let mut enrolled: serde_json::Value = store.get("enrolled").unwrap().unwrap();
    enrolled["issued_unix_secs"] = (unix_secs() - 20 * DAY).into();
    enrolled["expires_unix_secs"] = (unix_secs() + 10 * DAY).into();
    store.put("enrolled", &enrolled).unwrap();
}

/// When what is stated of the only device ends, by the authority and by the coordinator.
fn ends(world: &World) -> (u64, u64) {
    let of = |devices: Vec<serde_json::Value>| devices[0]["expires_unix_secs"].as_u64().unwrap();
    (of(world.devices()), of(world.coordinator_devices()))
}

#[test]
fn a_device_renews_by_way_of_the_coordinator_and_waits_while_the_authority_is_away() {
    let world = World::new();
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let anna = device(&text(&world.enroll("anna", &world.token("anna"))));
    std::fs::write(world.stage.path("anna.jsonl"), "{\"text\": \"gonna bring bread later\"}").unwrap();
    let (first, known) = ends(&world);
    assert_eq!(first, known);
    // Nobody states anything: the device says so, and keeps what it has.
    drop(authority);
    ages(&world, "anna");
    let running = world.stage.run("anna", &[]);
    let log = world.stage.path("anna.log");
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    world.until(|| logged().contains("the enrollment authority does not answer"));
    assert_eq!(world.coordinator_devices()[0]["expires_unix_secs"].as_u64(), Some(first));
    drop(running);
    // An authority states nothing of a device twice within a minute.
    while unix_secs() + 30 * DAY < first + 61 {
        std::thread::sleep(Duration::from_millis(200));
    }

    let authority = world.start_authority("authority");
    let running = world.stage.run("anna", &[]);
    world.until(|| {
        let (stated, known) = ends(&world);
        stated > first && known == stated
    });
    // By the new one it asks for work.
    world.until(|| world.coordinator_devices()[0]["last_seen_unix_secs"].as_u64().unwrap_or(0) > 0);
    drop(running);
    assert_eq!(world.devices()[0]["device"].as_str(), Some(anna.as_str()));
    // What was stated again is an entry of the log, and the device is now there.
    let mut verify = world.stage.agent("anna");
    let log = text(&super::output(verify.args(["log", "verify", "--format", "json"])));
    let log: serde_json::Value = serde_json::from_str(&log).unwrap();
    let numbers = ["size", "devices", "place"].map(|name| log[name].as_u64().unwrap());
    assert_eq!(numbers, [2, 1, 1], "{log}");

    // One that was revoked there gets nothing more.
    text(&super::output(&mut world.authority_command("authority", &["device", "revoke", &anna])));
    world.until(|| world.coordinator_devices()[0]["revoked"].as_bool() == Some(true));
    ages(&world, "anna");
    let mut once = world.stage.agent("anna");
    once.arg("--data").arg(world.stage.path("anna.jsonl"));
    let refused = said(&super::output(once.args(["run", "--once", "--override-conditions"])));
    assert!(refused.contains("enroll"), "{refused}");
    assert_eq!(world.devices()[0]["expires_unix_secs"].as_u64(), Some(ends(&world).0));
    drop(authority);
}
