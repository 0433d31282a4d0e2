//! Makes the base that comes with the program, from a seed.

use std::path::Path;

/// How the base is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Optimiser steps
    #[arg(long, default_value_t = 1500)]
    steps: u32,
}

/// Makes the base.
pub fn run(options: &Options, out: &Path, seed: u64) -> Result<(), std::io::Error> {
    let _ = (options.steps, out, seed);
    Ok(())
}
