//! Messages: what decodes is encoded and decoded to the same again.

use std::fmt::Debug;

use prost::Message;
use proto::attestation::{Attestation, REGISTERS};
use proto::convert::{
    WireError, admin_reply_from_wire, admin_reply_to_wire, admin_request_from_wire, admin_request_to_wire,
    authority_reply_from_wire, authority_reply_to_wire, authority_request_from_wire,
    authority_request_to_wire, base_files_from_wire, base_files_to_wire, enroll_reply_from_wire,
    enroll_reply_to_wire, enroll_request_from_wire, enroll_request_to_wire, log_part_from_wire,
    log_part_to_wire, rejection_from_bytes, rejection_to_bytes, renew_request_from_wire,
    renew_request_to_wire, reply_from_wire, reply_to_wire, request_from_wire, request_to_wire,
};
use proto::tpm::{Key, Signature, Statement};
use proto::wire;

/// A device's request.
pub fn request(bytes: &[u8]) {
    round_trip(bytes, request_from_wire, |request| request_to_wire(&request));
}

/// What a device is answered: by the protocol, and where it asks for a base or reads the enrollment log.
pub fn reply(bytes: &[u8]) {
    round_trip(bytes, base_files_from_wire, |files| base_files_to_wire(&files));
    round_trip(bytes, |part| Ok(log_part_from_wire(part)), log_part_to_wire);
    round_trip(bytes, reply_from_wire, reply_to_wire);
}

/// An operator's request.
pub fn admin_request(bytes: &[u8]) {
    round_trip(bytes, admin_request_from_wire, admin_request_to_wire);
}

/// What an operator is answered.
pub fn admin_reply(bytes: &[u8]) {
    round_trip(bytes, admin_reply_from_wire, admin_reply_to_wire);
}

/// An enrolment, with what a TPM says in it, and a renewal; and what an enrollment authority is asked.
pub fn enroll_request(bytes: &[u8]) {
    let read = wire::EnrollRequest::decode(bytes).ok().and_then(|read| enroll_request_from_wire(read).ok());
    if let Some(Attestation::Tpm(quote)) = read.and_then(|read| read.attestation) {
        drop((Key::read(&quote.key), Signature::read(&quote.signature)));
        if let Ok(statement) = Statement::read(&quote.statement) {
            assert!(statement.registers.iter().all(|register| *register < REGISTERS));
            assert!(!statement.registers.is_empty() && statement.challenge.len() <= 64);
        }
    }
    round_trip(bytes, enroll_request_from_wire, |enrollment| enroll_request_to_wire(&enrollment));
    round_trip(bytes, renew_request_from_wire, |renewal| renew_request_to_wire(&renewal));
    round_trip(bytes, authority_request_from_wire, authority_request_to_wire);
}

/// The answer to an enrolment; and what an enrollment authority answers.
pub fn enroll_reply(bytes: &[u8]) {
    round_trip(bytes, enroll_reply_from_wire, |enrolled| enroll_reply_to_wire(&enrolled));
    round_trip(bytes, authority_reply_from_wire, authority_reply_to_wire);
}

/// The details of a gRPC status.
pub fn rejection(bytes: &[u8]) {
    if let Ok(rejection) = rejection_from_bytes(bytes) {
        assert_eq!(rejection_from_bytes(&rejection_to_bytes(&rejection)), Ok(rejection));
    }
}

fn round_trip<M: Message + Default, T: Clone + Debug>(
    bytes: &[u8],
    from_wire: impl Fn(M) -> Result<T, WireError>,
    to_wire: impl Fn(T) -> M,
) {
    let Some(value) = M::decode(bytes).ok().and_then(|message| from_wire(message).ok()) else { return };
    let encoded = to_wire(value.clone()).encode_to_vec();
    let again = from_wire(M::decode(encoded.as_slice()).unwrap()).unwrap();
    // Protocol buffers leave out what is zero, and with it a zero's sign.
    let text = |value: &T| format!("{value:?}").replace("-0.0", "0.0");
    assert_eq!(text(&value), text(&again));
    assert_eq!(to_wire(again).encode_to_vec(), encoded);
}
