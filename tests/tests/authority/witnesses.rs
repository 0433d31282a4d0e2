//! Witnesses of the enrollment log, as processes: devices that demand two of three.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::short_lines;
use super::stage::{POLICY, Running, start, text};
use super::world::{AUTHORITY, World, device};

/// A witness: its key, and where it is asked.
struct Witness {
    key: String,
    address: String,
}

impl Witness {
    fn make(world: &World, name: &str) -> Self {
        let mut init = Command::new(AUTHORITY);
        init.args(["witness", "init", "--name", name, "--dir"]).arg(world.stage.path(name));
        Self { key: text(&super::output(&mut init)), address: "127.0.0.1:0".to_owned() }
    }

    /// Serves for a log, and returns when it listens. It keeps the port that it had.
    fn serve(&mut self, world: &World, name: &str, log: &str) -> Running {
        let mut serve = Command::new(AUTHORITY);
        serve.args(["witness", "serve", "--log", log, "--listen", &self.address, "--dir"]);
        serve.arg(world.stage.path(name));
        let mut child = start(serve.stdout(Stdio::null()).stderr(Stdio::piped()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listens = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(' ').next()?.to_owned())
        });
        self.address = listens.unwrap();
        // What it says further is read by nobody, and must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Running::quiet(child)
    }

    fn keys(&self) -> String {
        format!("[[witness]]\nkey = '{}'\nurl = 'http://{}'\ntimeout_secs = 2\n", self.key, self.address)
    }
}

fn log_of(world: &World) -> serde_json::Value {
    let mut log = world.authority_command("authority", &["log", "--format", "json"]);
    serde_json::from_str(&text(&super::output(&mut log))).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn devices_that_demand_two_of_three_witnesses_take_part_while_two_sign() {
    let world = World::new();
    let authority = world.start_authority("authority");
    let log = log_of(&world)["key"].as_str().unwrap().to_owned();
    drop(authority);

    // The third one is never there.
    let mut witnesses = ["one", "two", "three"].map(|name| Witness::make(&world, name));
    let [one, two, three] = &mut witnesses;
    let _one = one.serve(&world, "one", &log);
    let second = two.serve(&world, "two", &log);
    three.address = "127.0.0.1:1".to_owned();
    let keys: Vec<String> = witnesses.iter().map(Witness::keys).collect();
    let more = format!("least_witnesses = 2\n{}", keys.concat());
    fs::write(world.stage.path("authority-more.toml"), more).unwrap();
    let authority = world.start_authority("authority");
    world.give_file("authority");
    let _coordinator = world.stage.coordinator();
    let demanded: Vec<String> = witnesses.iter().map(|witness| format!("'{}'", witness.key)).collect();
    world.stage.configure(&format!(
        "{POLICY}allow_without_noise = true\n[policy.log]\nleast_witnesses = 2\nwitnesses = [{}]\n",
        demanded.join(", ")
    ));

    let devices = ["anna", "bela", "cem"];
    let mut ids = Vec::new();
    for (place, name) in devices.iter().enumerate() {
        ids.push(device(&text(&world.enroll(name, &world.token(name)))));
        let lines: Vec<String> =
            short_lines(place).iter().map(|line| serde_json::json!({ "text": line }).to_string()).collect();
        fs::write(world.stage.path(&format!("{name}.jsonl")), lines.join("\n")).unwrap();
    }
    world.until(|| {
        let log = log_of(&world);
        let signed = |place: usize| log["witnesses"][place]["signed_size"] == 3;
        log["rounds_size"] == 3 && signed(0) && signed(1) && !log["witnesses"][2]["trouble"].is_null()
    });
    let shown = text(&super::output(&mut world.authority_command("authority", &["log"])));
    assert!(shown.contains("2 of the witnesses signed") && shown.contains("cannot be reached"), "{shown}");
    let base = world.stage.path("base");
    let create =
        "task create --name owl --cohort 3 --report-goal 3 --versions 1 --privacy off --clip 4 --base";
    let create: Vec<&str> = create.split(' ').chain([base.to_str().unwrap()]).collect();
    world.stage.operator(&create);
    // The coordinator reads on by and by. Where that was a moment before they signed, whoever demands it leaves, and comes again.
    world.until(|| {
        let health = world.stage.operator(&["health", "--format", "json"]);
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        (0..2).all(|place| health["log"]["witnesses"][place]["signed_size"] == 3)
    });
    world.until(|| {
        let mut agents: Vec<Running> =
            devices.iter().map(|name| world.stage.run(name, &["--once"])).collect();
        for agent in &mut agents {
            agent.0.wait().unwrap();
        }
        world.stage.task()["version"] == 1
    });
    assert_eq!(world.stage.task()["versions"][0]["survivors"].as_u64(), Some(3));
    let verified = text(&super::output(world.stage.agent("anna").args(["log", "verify"])));
    assert!(verified.contains("signed by 2 witnesses"), "{verified}");

    // With one of them enrollment goes on, and rounds stay about what two signed.
    world.until(|| log_of(&world)["rounds_size"] == 4);
    drop(second);
    text(&world.enroll("dora", &world.token("dora")));
    let waits = |log: &serde_json::Value| log["size"] == 5 && log["rounds_size"] == 4;
    world.until(|| {
        let log = log_of(&world);
        waits(&log) && log["witnesses"][0]["signed_size"] == 5 && !log["witnesses"][1]["trouble"].is_null()
    });
    // The coordinator says so too.
    world.until(|| {
        let health = world.stage.operator(&["health", "--format", "json"]);
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        let log = &health["log"];
        health["authority"]["answers"] == true
            && log["least_witnesses"] == 2
            && log["size"] == 5
            && log["rounds_size"] == 4
            && log["witnesses"][1]["name"] == "two"
            && !log["witnesses"][1]["trouble"].is_null()
    });
    // When it is there again, it signs within its next turn.
    let _second = witnesses[1].serve(&world, "two", &log);
    world.until(|| log_of(&world)["rounds_size"] == 5);

    // An authority that comes back without its last entries, and goes on: both saw another log, and say so.
    drop(authority);
    copy(&world.stage.path("authority"), &world.stage.path("backup"));
    let authority = world.start_authority("authority");
    text(&world.enroll("emil", &world.token("emil")));
    world.until(|| log_of(&world)["rounds_size"] == 6);
    drop(authority);
    fs::remove_dir_all(world.stage.path("authority")).unwrap();
    copy(&world.stage.path("backup"), &world.stage.path("authority"));
    let _authority = world.start_authority("authority");
    // It writes another entry where they saw one.
    text(&super::output(&mut world.authority_command("authority", &["device", "revoke", &ids[0]])));
    world.until(|| {
        let log = log_of(&world);
        log["size"] == 6 && (0..2).all(|place| log["witnesses"][place]["saw_other_log"] == true)
    });
    let said = fs::read_to_string(world.stage.path("authority.log")).unwrap();
    assert!(
        said.contains("ERROR") && said.contains("the log does not go on from the 6 entries that it saw"),
        "{said}"
    );
}
