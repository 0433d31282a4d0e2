//! A scenario of one's own: eight devices, two versions, no noise, and what each version's loss became.
//!
//! ```text
//! cargo run --release -p nightshift-sim --example scenario
//! ```
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use nightshift_sim::demo;
use nightshift_sim::engine::Base;
use nightshift_sim::inputs::Inputs;
use nightshift_sim::run::{Finished, News, run};
use nightshift_sim::scenario::Scenario;
use nightshift_sim::words::plan::Mode;

/// Runs it on people that the project made up, by `seed`.
pub fn eight_devices(folder: &Path, seed: u64) -> Result<Finished, Box<dyn Error>> {
    let base = Arc::new(Base::open(&demo::write_base(folder)?)?);
    let usual = demo::scenario(seed);
    let scenario =
        Scenario { devices: 8, versions: 2, vanishing: 0, mode: Mode::Off, yardsticks: false, ..usual };
    let users = demo::users(&base, &scenario)?;
    let inputs = Inputs { base: &base, users: &users, newcomers: &[], public: None };
    Ok(run(&scenario, &inputs, |news| {
        if let News::Version(version) = news {
            println!("{version:?}");
        }
    })?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join("nightshift-scenario");
    eight_devices(&folder, 1)?;
    Ok(())
}
