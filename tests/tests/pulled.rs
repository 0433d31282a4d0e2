//! What an operator pulls: measured on text of their own, written over nothing else, and loaded by PEFT.
//!
//! PEFT is asked through the Python of `NIGHTSHIFT_PYTHON`, else `python3`. Where it has no transformers and peft the test says
//! so and is skipped, unless `NIGHTSHIFT_REQUIRE_PEFT` is set.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "says by name what was skipped")]

#[path = "common/stage.rs"]
mod stage;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use client::adapter_files::{Adapter, read_peft};
use engine::{Base, Blocks, Engine};
use serde_json::{Value, json};
use text::{Corpus, ReadOptions, UserText};

use stage::{Running, Stage, output, short_lines};

/// A task that came to its end on four devices.
fn finished() -> (Stage, Running) {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    let mine = stage.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("notes.md"), "gonna bring bread later\n\nthe boats come at noon\n").unwrap();
    fs::write(mine.join("more.txt"), "violins for lime, and roses for the mossgate\n").unwrap();
    let training = ["--local-steps", "8", "--learning-rate", "0.05", "--sequence-len", "32"];
    let task = ["--versions", "1", "--privacy", "off", "--clip", "50", "--eval", mine.to_str().unwrap()];
    stage.create_task(&[&task[..], &training[..]].concat());
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let _agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();
    stage.operator(&["task", "watch", "owl"]);
    (stage, coordinator)
}

/// What the operator's text comes to, in blocks of so many tokens.
fn blocks(base: &Base, mine: &Path, len: u32) -> Blocks {
    let text = UserText::read(&[mine.to_owned()], &ReadOptions::default()).unwrap();
    let corpus = Corpus::new(base, &text).unwrap();
    corpus.train(len).and(corpus.held_out(len))
}

fn pull(stage: &Stage, task: &str, out: &Path, more: &[&str]) -> std::process::Output {
    let words = ["model", "pull", "--task", task, "--out", out.to_str().unwrap()];
    output(stage.nightshift().args([&words[..], more].concat()))
}

#[test]
fn versions_are_measured_on_text_of_the_operators_own_and_pulled_over_nothing_else() {
    let (stage, _coordinator) = finished();
    let base = Arc::new(Base::open(&stage.path("base")).unwrap());
    let own = blocks(&base, &stage.path("mine"), 256);
    let engine = Engine::new(Arc::clone(&base));
    let out = stage.path("out");
    assert!(pull(&stage, "owl", &out, &[]).status.success());
    let Adapter { spec, frozen, trained, .. } = read_peft(&out, &base).unwrap();
    let before = engine.base_loss(&own).unwrap();
    let after = engine.loss(&spec, &frozen, &trained, &own).unwrap();
    assert!((before.nats_per_token - after.nats_per_token).abs() > 1e-3, "too little to see a mistake");

    let said: Value = serde_json::from_str(&stage.operator(&["eval", "owl", "--format", "json"])).unwrap();
    let rows = said["rows"].as_array().unwrap();
    assert_eq!((said["tokens"].as_u64(), rows.len()), (Some(before.tokens), 2), "{said}");
    for (row, loss) in rows.iter().zip([before, after]) {
        let told = row["nats_per_token"].as_f64().unwrap();
        assert!((told - loss.nats_per_token).abs() < 1e-5, "{told} is not {loss:?}");
        assert!((row["perplexity"].as_f64().unwrap() - told.exp()).abs() < 1e-6);
    }
    assert_eq!((rows[0]["version"].as_u64(), rows[1]["version"].as_u64()), (None, Some(1)));
    let shown = stage.operator(&["task", "show", "owl"]);
    assert!(shown.contains("your text  version 1 has "), "{shown}");
    let shown = stage.task();
    assert_eq!(shown["own_text"]["versions"][0]["version"].as_u64(), Some(1), "{shown}");
    // Nobody but this operator has heard of the text.
    let heard = fs::read_to_string(stage.path("coordinator.log")).unwrap();
    assert!(!heard.contains("notes.md") && !heard.contains("/mine"), "{heard}");

    // The same task's folder is written again; one of another task or of a person is left as it is.
    assert!(pull(&stage, "owl", &out, &[]).status.success());
    let base = stage.path("base");
    let create = ["task", "create", "--name", "bat", "--base", base.to_str().unwrap(), "--privacy", "off"];
    stage.operator(&create);
    let weights = fs::read(out.join("adapter_model.safetensors")).unwrap();
    let refused = pull(&stage, "bat", &out, &["--version", "0"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), why.contains("version 1 of another task")), (Some(3), true), "{why}");
    assert_eq!(fs::read(out.join("adapter_model.safetensors")).unwrap(), weights);
    assert!(pull(&stage, "bat", &out, &["--version", "0", "--force"]).status.success());
    assert_ne!(fs::read(out.join("adapter_model.safetensors")).unwrap(), weights);
    // Two tasks that go on have two names.
    let again = output(stage.nightshift().args(create));
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!((again.status.code(), why.contains("is called `bat` too")), (Some(6), true), "{why}");
}

/// Loads the adapter as its users do, and takes the mean over the tokens that count.
const LOSS: &str = r"
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
folder, blocks = sys.argv[1], json.load(open(sys.argv[2]))
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
total, count = 0.0, 0
for block in blocks:
    tokens = torch.tensor([block['tokens']])
    counts = torch.tensor(block['counts'][1:])
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[0, :-1].double()
    losses = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction='none')
    total, count = total + losses[counts].sum().item(), count + int(counts.sum())
print(json.dumps({'loss': total / count, 'tokens': count}))
";

/// A Python that has what the script needs; none where there is no such one.
fn python() -> Option<String> {
    let python = std::env::var("NIGHTSHIFT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let asked = Command::new(&python).args(["-c", "import torch, transformers, peft"]).output();
    match asked {
        Ok(asked) if asked.status.success() => return Some(python),
        Ok(asked) => eprintln!("skipped: {python} lacks torch, transformers or peft: {:?}", asked.status),
        Err(error) => eprintln!("skipped: {python} does not run: {error}"),
    }
    assert!(std::env::var_os("NIGHTSHIFT_REQUIRE_PEFT").is_none(), "NIGHTSHIFT_REQUIRE_PEFT is set");
    None
}

#[test]
fn peft_loads_what_is_pulled_and_comes_to_the_same_loss() {
    let Some(python) = python() else { return };
    let (stage, _coordinator) = finished();
    let base = Arc::new(Base::open(&stage.path("base")).unwrap());
    let own = blocks(&base, &stage.path("mine"), 64);
    let out = stage.path("out");
    assert!(pull(&stage, "owl", &out, &[]).status.success());
    let Adapter { spec, frozen, trained, .. } = read_peft(&out, &base).unwrap();
    let engine = Engine::new(base);
    let ours = engine.loss(&spec, &frozen, &trained, &own).unwrap();
    let alone = engine.base_loss(&own).unwrap();
    assert!((ours.nats_per_token - alone.nats_per_token).abs() > 1e-2, "too little to see a mistake");

    let given: Vec<Value> = own
        .as_slice()
        .iter()
        .map(|block| json!({ "tokens": block.tokens(), "counts": block.learned() }))
        .collect();
    let (script, file) = (stage.path("loss.py"), stage.path("blocks.json"));
    fs::write(&script, LOSS).unwrap();
    fs::write(&file, serde_json::to_vec(&given).unwrap()).unwrap();
    let mut command = Command::new(python);
    // What it needs is here: nothing is asked of a hub.
    command.env("HF_HUB_OFFLINE", "1").arg(&script).arg(&out).arg(&file);
    let said = output(&mut command);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let theirs: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(theirs["tokens"].as_u64(), Some(ours.tokens));
    let loss = theirs["loss"].as_f64().unwrap();
    assert!((loss - ours.nats_per_token).abs() < 1e-3, "{loss} is not {ours:?}");
}
