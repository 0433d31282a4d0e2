//! What a trainer may read, by Landlock: <https://docs.kernel.org/userspace-api/landlock.html>.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// The newest version of Landlock whose rights are named here. An older kernel has fewer of them, and then fewer hold.
const NEWEST: ABI = ABI::V6;

/// What a trainer reads of the system: how much memory is free.
const OF_THE_SYSTEM: [&str; 1] = ["/proc/meminfo"];

/// What a GPU's driver reads.
const OF_A_DRIVER: [&str; 8] = ["/proc", "/sys", "/usr", "/lib", "/lib64", "/etc", "/opt", "/run"];

/// Leaves this process nothing of all disks but to read `paths` and what is below them, no TCP, no signal to others and no
/// abstract socket. Fails, in words, where this kernel has none of it.
pub(super) fn shut(paths: &[PathBuf], gpu: bool) -> Result<(), String> {
    match restrict(paths, gpu) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => {
            Err("this kernel has no Landlock, or it is not switched on".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn restrict(paths: &[PathBuf], gpu: bool) -> Result<RulesetStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(paths, read))?
        .add_rules(path_beneath_rules(OF_THE_SYSTEM, read))?;
    let ruleset = if gpu {
        let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
        ruleset
            .add_rules(path_beneath_rules(OF_A_DRIVER, read | AccessFs::Execute))?
            .add_rules(path_beneath_rules(["/dev"], device))?
    } else {
        ruleset
    };
    Ok(ruleset.restrict_self()?.ruleset)
}
