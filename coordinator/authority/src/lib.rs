//! The enrollment authority: who may be a device, apart from the coordinator that devices work for.
//!
//! Whoever holds the enrollment key says which devices exist, and could invent some to surround a real one. So it can lie on a
//! machine of its own, in this program, which takes part in no round: a coordinator hands it what devices say, and has its
//! answers and never its key. A token's key never leaves its device, so what a coordinator sees enrolls nobody else.
//!
//! [`decide`] says what becomes of a request, without any IO; [`keeper`] keeps the records, and has the one place where
//! anything is stated of a device, [`kept_log`] what everybody can read of it, which [`witnesses`] are asked to sign; [`service`] is
//! the wire, [`server`] runs it, [`cli`] is what people type. [`asking`] and [`bundle`] are for coordinators; [`tokens`],
//! [`kept_log`] and [`witnesses`] too, where one is its own authority. [`witness`] is one for logs of others. Start at
//! [`decide::enroll`].

pub mod asking;
pub mod bundle;
pub mod cli;
mod clock;
pub mod config;
pub mod decide;
pub mod keeper;
pub mod kept_log;
pub mod server;
pub mod service;
pub mod tokens;
pub mod witness;
pub mod witnesses;
