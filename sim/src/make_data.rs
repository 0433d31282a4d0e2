//! Writes what the run without arguments uses as files: the base, the people's text, and the public sample. For
//! trying the coordinator and the agents, or other settings, on it.

use std::fs;
use std::io;
use std::path::Path;

use crate::corpus;
use crate::demo;

/// How much is written.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// People
    #[arg(long, default_value_t = 64)]
    pub devices: usize,
}

/// Writes `base/`, `users/*.jsonl` and `public.jsonl` into `out`.
pub fn run(options: &Options, out: &Path, seed: u64) -> io::Result<()> {
    demo::write_base(&out.join("base"))?;
    let users = out.join("users");
    fs::create_dir_all(&users)?;
    for (place, persona) in corpus::personas(seed, options.devices).iter().enumerate() {
        let path = users.join(format!("{place:03}-{}.jsonl", persona.name));
        fs::write(path, jsonl(&persona.lines(seed)))?;
    }
    fs::write(out.join("public.jsonl"), jsonl(&demo::public_lines()))
}

fn jsonl(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::json!({ "text": line }).to_string());
        text.push('\n');
    }
    text
}
