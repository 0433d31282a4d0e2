//! An authority apart that asks devices' machines: whoever is not admitted is no device, in no log, and may come again.

use std::fs;

use proto::ids::DeviceId;

use super::output;
use super::stage::text;
use super::world::{World, device, said};

fn log_size(world: &World) -> u64 {
    let health = world.stage.operator(&["health", "--format", "json"]);
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    health["log"]["size"].as_u64().unwrap()
}

#[test]
fn a_device_that_is_not_admitted_uses_nothing_up_and_is_in_no_log_until_it_is() {
    let world = World::new();
    let list = world.stage.path("list");
    fs::write(&list, "").unwrap();
    let asks = format!("[attestation]\nkind = 'allow-list'\nallow_list = '{}'\n", list.display());
    fs::write(world.stage.path("authority-more.toml"), asks).unwrap();
    world.configure_authority("authority", "127.0.0.1:0");
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let token = world.token("anna");

    let why = said(&world.enroll("anna", &token));
    assert!(why.contains("does not take this machine") && why.contains("the token is not used"), "{why}");
    assert_eq!((world.devices().len(), world.coordinator_devices().len(), log_size(&world)), (0, 0, 0));
    let tokens = text(&output(&mut world.authority_command("authority", &["token", "ls"])));
    assert!(tokens.contains("open") && !tokens.contains("redeemed"), "{tokens}");

    // It was told by which key it is known.
    let (_, key) = why.split_once("identity key ").unwrap();
    let key: String = key.chars().take_while(char::is_ascii_hexdigit).collect();
    fs::write(&list, format!("identity {key}\n")).unwrap();
    let anna = device(&text(&world.enroll("anna", &token)));
    assert_eq!(world.devices()[0]["device"].as_str(), Some(anna.as_str()));
    let shown = world.stage.operator(&["device", "show", &anna]);
    let machine = shown.lines().find(|line| line.starts_with("machine")).unwrap();
    assert!(machine.contains("allow-list") && machine.contains("as is asked today"), "{machine}");
    assert!(!text(&output(world.stage.nightshift().args(["audit", "tail"]))).is_empty());
    assert_eq!(log_size(&world), 1);

    // A demand of its own, by the policy that the log names.
    let shown = world.stage.operator(&["device", "show", &anna, "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let policy = shown["attested"]["policy"].as_str().unwrap();
    assert_eq!(policy.len(), 64);
    assert!(anna.parse::<DeviceId>().is_ok());
    drop(authority);
}

#[test]
fn a_coordinator_asks_no_machines_beside_its_authority() {
    let world = World::new();
    let _authority = world.start_authority("authority");
    world.give_file("authority");
    let path = world.stage.path("home").join("coordinator.toml");
    let config = fs::read_to_string(&path).unwrap();
    let list = world.stage.path("list");
    fs::write(&list, "").unwrap();
    let asks = format!("{config}[attestation]\nkind = 'allow-list'\nallow_list = '{}'\n", list.display());
    fs::write(&path, asks).unwrap();
    let why = world.refused_to_start();
    assert!(why.contains("attestation.kind must be none") && why.contains("got allow-list"), "{why}");
}
