//! What the demonstration's settings were chosen by: one line of settings from stdin, one line of figures to stdout.
//!
//! ```text
//! echo "devices=300 versions=4 method=core rank=8 z=3.05 server=1,0.5" |
//!     cargo run --release -p nightshift-sim --example sweep
//! ```
//!
//! It trains as the devices do and clips as they do, but takes the mean in the open and adds normal noise of the standard
//! deviation that the devices' noise has together: the protocol would give the same distribution to within its
//! rounding, and take most of the time. What a line leaves out is as in the demonstration. The loss is that on what the
//! first 96 devices held out.
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nightshift_sim::demo;
use nightshift_sim::engine::{Base, Blocks, Engine};
use nightshift_sim::inputs::{User, prepare};
use nightshift_sim::measure::losses;
use nightshift_sim::plain::federate;
use nightshift_sim::scenario::Scenario;
use nightshift_sim::words::training::ServerOptimizer;
use privacy::Delta;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use text::Corpus;

/// Devices whose held-out text is measured.
const MEASURED: usize = 96;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join("nightshift-sweep");
    let base = Arc::new(Base::open(&demo::write_base(&folder)?)?);
    let public = Corpus::new(&base, &demo::public())?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (scenario, from_public) = settings(&line)?;
        let users = demo::users(&base, &scenario)?;
        let public = public.train(scenario.training.sequence_len);
        println!("{line}: {}", figures(&scenario, &base, &users, from_public.then_some(&public))?);
    }
    Ok(())
}

/// The demonstration with the settings of `line`, and whether the factors come from public text.
fn settings(line: &str) -> Result<(Scenario, bool), Box<dyn Error>> {
    let (mut scenario, mut from_public) = (demo::scenario(1), true);
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or("a setting is written name=value")?;
        let training = &mut scenario.training;
        match name {
            "devices" => scenario.devices = value.parse()?,
            "versions" => scenario.versions = value.parse()?,
            "method" => scenario.method = serde_json::from_value(value.into())?,
            "rank" => scenario.rank = value.parse()?,
            "alpha" => scenario.alpha = value.parse()?,
            "layers" => scenario.projections = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "steps" => training.local_steps = value.parse()?,
            "batch" => training.batch_size = value.parse()?,
            "rate" => training.learning_rate = value.parse()?,
            "z" => scenario.noise_multiplier = value.parse()?,
            "clip" => scenario.clip_norm = value.parse()?,
            "server" => {
                let (rate, momentum) = value.split_once(',').ok_or("server=RATE,MOMENTUM")?;
                scenario.server =
                    ServerOptimizer::FedAvgM { rate: rate.parse()?, momentum: momentum.parse()? };
            }
            "factors" => from_public = value == "public",
            other => return Err(format!("unknown setting {other}").into()),
        }
    }
    Ok((scenario, from_public))
}

fn figures(
    scenario: &Scenario,
    base: &Arc<Base>,
    users: &[User],
    public: Option<&Blocks>,
) -> Result<String, Box<dyn Error>> {
    let (engine, len) = (Engine::new(Arc::clone(base)), scenario.training.sequence_len);
    let (plan, given) = prepare(scenario, base, &engine, public)?;
    let text: Vec<Blocks> = users.iter().map(|user| user.corpus.train(len)).collect();
    let held_out: Vec<Blocks> = users.iter().take(MEASURED).map(|user| user.corpus.held_out(len)).collect();
    let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
    let start = plan.state_at(
        0,
        given.as_deref(),
        None,
        &plan.adapter.initial(&plan.initial_seed, given.as_deref()),
    )?;
    let before = mean(losses(&engine, &start, &held_out)?);

    let (mechanism, devices) = (plan.mechanism()?, users.len() as f64);
    let epsilon = mechanism.epsilon(scenario.versions, Delta::new(scenario.delta)?).epsilon;
    let noise = (mechanism.device_variance() * devices).sqrt() / plan.privacy.scale / devices;
    let mut rng = ChaCha20Rng::from_seed(scenario.digest("sweep").0);
    #[expect(clippy::cast_possible_truncation, reason = "updates are single precision")]
    let disturb = |mean: &mut [f32]| mean.iter_mut().for_each(|x| *x += (noise * normal(&mut rng)) as f32);
    let mut after = before;
    let (stop, seed) = (AtomicBool::new(false), scenario.digest("training"));
    federate((&engine, &stop), &plan, given.as_deref(), &text, seed, disturb, |_, state| {
        after = mean(losses(&engine, state, &held_out)?);
        Ok(ControlFlow::Continue(()))
    })?;
    let numbers = plan.adapter.update_len(0);
    Ok(format!("{numbers} numbers, ε {epsilon:.2}, {before:.3} to {after:.3}, gain {:.3}", before - after))
}

/// By Box and Muller (1958).
fn normal(rng: &mut ChaCha20Rng) -> f64 {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let (length, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    length * angle.cos()
}
