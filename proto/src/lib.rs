//! The words that both sides use, and their bytes on the wire.
//!
//! [`plan`] is what both sides must agree on, [`adapter`] says what the flat vector of parameters means, [`message`]
//! what a device asks and is answered, [`admin`] the same for the operator, [`authority`] for an enrollment authority, [`role`]
//! what an operator may, [`token`] what a device enrolls with, [`attestation`] what it shows of its machine then, in the forms of
//! [`tpm`], [`base`] what a coordinator says of a base that it serves.
//! [`convert`] is the only place where foreign bytes become these types, but for those of other programs' files, which
//! `nightshift-formats` reads. [`files`] is how both sides' shells keep a file whole and a secret file secret: the only
//! code here that touches a disk, and the rest does not use it. [`shown`] is how text of others is printed, [`counted`](mod@counted) how
//! many there are of something. [`dumps`]
//! keeps what their processes hold out of core dumps. [`linear`] has what of linear algebra both sides need with the same
//! bits. [`loose`] reads JSON as programs in Python write it. Nothing here decides, waits, or touches a network. Start at [`plan::Plan`].

pub mod adapter;
pub mod admin;
pub mod attestation;
pub mod authority;
pub mod base;
pub mod convert;
pub mod counted;
pub mod dumps;
pub mod files;
pub mod ids;
pub mod linear;
pub mod loose;
pub mod message;
pub mod metrics;
pub mod plan;
pub mod role;
pub mod shown;
pub mod token;
pub mod tpm;
pub mod training;
pub mod wire;
