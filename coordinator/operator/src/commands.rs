//! `nightshift`: what the operator types.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use coordinator::cli::{CliError, EXIT_CODES};

mod audit;
mod dashboard;
mod device;
mod doctor;
mod eval;
mod exit_codes;
mod health;
mod model;
mod operators;
mod planning;
mod privacy;
mod store;
mod task;
mod token;
mod up;

/// Runs and watches a federated fine-tuning coordinator.
#[derive(Debug, Parser)]
#[command(name = "nightshift", bin_name = "nightshift", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The folder with the operator's certificate and the coordinator's address.
    #[arg(long, global = true, default_value = ".nightshift", value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a development coordinator here, with an authority of its own.
    Up(up::Arguments),
    /// Fine-tuning tasks.
    #[command(subcommand)]
    Task(task::Command),
    /// Devices that may take part.
    #[command(subcommand)]
    Device(device::Command),
    /// Bootstrap tokens, with which devices enroll.
    #[command(subcommand)]
    Token(token::Command),
    /// What noise buys, and what was spent.
    #[command(subcommand)]
    Privacy(privacy::Command),
    /// Adapters that came out.
    #[command(subcommand)]
    Model(model::Command),
    /// Measure versions on text of your own, here: neither text nor path leaves this machine.
    Eval(eval::Arguments),
    /// Show the coordinator's page in a browser on this machine: tasks, loss by version, privacy, devices, certificates.
    Dashboard(dashboard::Arguments),
    /// Certificates of operators, and their roles.
    #[command(subcommand)]
    Operator(operators::Command),
    /// Who changed what.
    #[command(subcommand)]
    Audit(audit::Command),
    /// The records of a coordinator that is stopped, on its own machine.
    #[command(subcommand)]
    Store(store::Command),
    /// Look at this machine and at a coordinator's folder: ports, clock, certificates, disk, open files, store. Fails where
    /// something is a fault.
    Doctor(doctor::Arguments),
    /// Whether the coordinator writes, which bases it serves, and what it turned away.
    Health(health::Arguments),
    /// Say what each exit code means, and what to do.
    ExitCodes(exit_codes::Arguments),
}

pub(crate) async fn operate(Arguments { dir, command }: Arguments) -> Result<(), CliError> {
    match command {
        Command::Up(arguments) => up::up(&dir, arguments).await,
        Command::Task(command) => task::run(&dir, command).await,
        Command::Device(command) => device::run(&dir, command).await,
        Command::Token(command) => token::run(&dir, command).await,
        Command::Privacy(command) => privacy::run(&dir, command).await,
        Command::Model(command) => model::run(&dir, command).await,
        Command::Eval(arguments) => eval::run(&dir, arguments).await,
        Command::Dashboard(arguments) => dashboard::run(&dir, arguments).await,
        Command::Operator(command) => operators::run(&dir, command).await,
        Command::Audit(command) => audit::run(&dir, command).await,
        Command::Store(command) => store::run(&dir, command),
        Command::Doctor(arguments) => doctor::run(&dir, arguments).await,
        Command::Health(arguments) => health::run(&dir, arguments).await,
        Command::ExitCodes(arguments) => exit_codes::run(arguments),
    }
}
