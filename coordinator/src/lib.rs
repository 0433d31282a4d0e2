//! The coordinator: adds up what devices contribute without reading any one of them.
//!
//! [`task`] and [`round`] are pure machines: they decide. [`optimizer`] turns a mean update into the next
//! version, [`export`] writes what other programs load. The rest is the shell. The coordinator never links a
//! tensor library and never holds a contribution that is not masked. Start at [`round::Round`].

pub mod export;
pub mod optimizer;
pub mod round;
pub mod task;
