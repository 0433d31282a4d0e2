//! What a server has around its service: listeners that bound what peers may cost, TLS, certificates, a command line.
//!
//! Two programs are built on it, the coordinator and an enrollment authority apart from it. It knows neither: no task, no
//! round, no token, no key that vouches for devices. [`listener`] accepts everybody and lets a service be called by those
//! who may; [`tls`] is how they are known and [`peer`] who they are; [`pki`] makes the certificates; [`status`] says what was
//! refused, [`seldom`] keeps a log from being flooded; [`plain`] is HTTP in clear for few, and [`post`] asks others by it. [`address`] and [`cli`] are for programs. Start at [`listener::serve`].

pub mod address;
pub mod cli;
pub mod listener;
pub mod peer;
pub mod pki;
pub mod plain;
pub mod post;
pub mod seldom;
pub mod status;
pub mod tls;
