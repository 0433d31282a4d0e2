//! The filter itself.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Calls that are refused whatever is asked of them.
const REFUSED: &[c_long] = &[
    // Networks, and other processes by sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes' memory, descriptors and signals.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    // What is written beside the contents of files.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    // Ways around a filter of calls, and large parts of the kernel that nobody here needs.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_seccomp,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_personality,
    // Memory that others see.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_mq_open,
    // More of the machine than it was given.
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_setrlimit,
];

/// Those that only this processor has.
#[cfg(target_arch = "x86_64")]
const OF_THIS_PROCESSOR: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];

/// Those that only this processor has.
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_PROCESSOR: &[c_long] = &[];

/// What `prctl` is not asked for: not to end with the daemon, to be dumpable, to be traced.
const PRCTL: [i32; 4] =
    [libc::PR_SET_PDEATHSIG, libc::PR_SET_DUMPABLE, libc::PR_SET_PTRACER, libc::PR_SET_MM];

/// The bit of the calls of x32, a second numbering that an x86-64 kernel may have, under the same architecture.
const X32: c_long = 0x4000_0000;

/// The calls that only x32 has, all of them: they are its own forms of calls above, and nothing here is x32.
const OF_X32: std::ops::RangeInclusive<c_long> = 512..=547;

/// Installs both filters.
pub(super) fn install() -> Result<(), seccompiler::Error> {
    // The C library asks for `clone3` first, whose flags a filter cannot see, and where there is none for `clone`.
    let unknown = SeccompAction::Errno(errno(libc::ENOSYS));
    apply_filter(&program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), unknown)?)?;
    apply_filter(&program(refused()?, SeccompAction::Errno(errno(libc::EPERM)))?)
}

fn program(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, matched, processor)?.try_into()
}

fn refused() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let always = |call: &c_long| (*call, Vec::new());
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        REFUSED.iter().chain(OF_THIS_PROCESSOR).map(always).collect();
    let own = u64::from(std::process::id());
    let number = SeccompCmpArgLen::Dword;
    let when = |argument, length, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
    };
    // A thread is started, and no process.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let is_process = when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![is_process]);
    // It may abort, and signal nobody else.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![when(0, number.clone(), SeccompCmpOp::Ne, own)?]);
    }
    let prctl =
        PRCTL.iter().map(|what| when(0, number.clone(), SeccompCmpOp::Eq, u64::from(what.unsigned_abs())));
    rules.insert(libc::SYS_prctl, prctl.collect::<Result<_, _>>()?);
    // A limit is read, and not set.
    rules.insert(libc::SYS_prlimit64, vec![when(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?]);
    if cfg!(target_arch = "x86_64") {
        let again: Vec<c_long> = rules.keys().map(|call| call | X32).collect();
        rules.extend(again.into_iter().chain(OF_X32.map(|call| call | X32)).map(|call| (call, Vec::new())));
    }
    Ok(rules)
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}
