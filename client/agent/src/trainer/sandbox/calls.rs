//! What a trainer may ask the kernel for, by seccomp: everything but what is listed here.
//!
//! A list of what is forbidden, and not of what is allowed, because the latter depends on the C library, the allocator and
//! a GPU's driver, and would end somebody's training for a call that did no harm. What is refused says so (`EPERM`), so
//! that a library that only tries has its way around it.
//!
//! What goes over descriptors that are open stays possible: the two pipes, and the pair of sockets by which a signal
//! reaches the thread that waits for it, made before this.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod filter;

/// Forbids them, for this thread and all that it starts. Fails, in words, where this kernel cannot.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub(super) fn forbid() -> Result<(), String> {
    filter::install().map_err(|error| {
        format!(
            "no sockets and no programs (seccomp): {error}; train where the kernel has CONFIG_SECCOMP_FILTER, and not in \
             an emulator"
        )
    })
}

/// Fails: the filter is not written for this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub(super) fn forbid() -> Result<(), String> {
    Err("no sockets and no programs (seccomp): not on this processor; train on x86-64, AArch64 or RISC-V"
        .to_owned())
}
