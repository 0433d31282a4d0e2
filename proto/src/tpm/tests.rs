use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn statement(registers: &BTreeSet<u8>) -> Vec<u8> {
    [
        &GENERATED.to_be_bytes()[..],
        &ATTEST_QUOTE.to_be_bytes(),
        &sized(&[7; 34]),
        &sized(&[8; 32]),
        &123_456_u64.to_be_bytes(),
        &4_u32.to_be_bytes(),
        &5_u32.to_be_bytes(),
        &[1],
        &0x0102_u64.to_be_bytes(),
        &selection(registers),
        &sized(&[9; 32]),
    ]
    .concat()
}

fn ecc_key(attributes: u32) -> Vec<u8> {
    let words = [ECC, SHA_256].map(u16::to_be_bytes).concat();
    let scheme = [NULL, ECDSA, SHA_256, P_256, NULL].map(u16::to_be_bytes).concat();
    [&words[..], &attributes.to_be_bytes(), &sized(&[]), &scheme, &sized(&[1; 31]), &sized(&[2; 32])].concat()
}

fn rsa_key(bits: u16, modulus: &[u8]) -> Vec<u8> {
    let words = [RSA, SHA_256].map(u16::to_be_bytes).concat();
    let scheme = [NULL, RSASSA, SHA_256, bits].map(u16::to_be_bytes).concat();
    [&words[..], &OF_ATTESTATION.to_be_bytes(), &sized(&[]), &scheme, &0_u32.to_be_bytes(), &sized(modulus)]
        .concat()
}

fn signature() -> Vec<u8> {
    [&ECDSA.to_be_bytes()[..], &SHA_256.to_be_bytes(), &sized(&[3; 32]), &sized(&[4; 30])].concat()
}

#[test]
fn a_statement_says_what_was_asked_and_of_which_registers() {
    let registers = BTreeSet::from([0, 7, 23]);
    let read = Statement::read(&statement(&registers)).unwrap();
    assert_eq!(read.challenge, [8; 32]);
    assert_eq!((read.clock_millis, read.resets, read.restarts, read.is_safe), (123_456, 4, 5, true));
    assert_eq!((read.firmware, read.registers, read.digest), (0x0102, registers, Digest([9; 32])));
}

#[test]
fn every_field_of_a_statement_that_is_another_is_named() {
    let whole = statement(&BTreeSet::from([0]));
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        Statement::read(&bytes).unwrap_err().to_string()
    };
    let (clock, selection) = (6 + 36 + 34, 6 + 36 + 34 + 25);
    for (at, byte, word) in [
        (0, 0, "magic"),
        (5, 0x17, "type"),
        (clock, 0xff, "clock"),
        (clock + 16, 2, "safe"),
        (selection + 3, 2, "count of banks"),
        (selection + 5, 4, "bank"),
        (selection + 6, 5, "selection's length"),
        (selection + 7, 0, "count of registers"),
    ] {
        let said = with(at, byte);
        assert!(said.contains(&format!("its {word} is")), "{word}: {said}");
    }
    // A digest of another hash, and a register that there is not.
    let mut long = whole.clone();
    long.truncate(whole.len() - 34);
    let other = [long.clone(), sized(&[9; 48])].concat();
    assert!(Statement::read(&other).unwrap_err().to_string().contains("digest's length"));
    let at = long.len() - 4;
    let four = [&long[..at], &[4, 0, 0, 0, 1], &sized(&[9; 32])].concat();
    assert!(Statement::read(&four).unwrap_err().to_string().contains("its register is 0x18"));
}

#[test]
fn keys_are_taken_that_sign_what_their_tpm_made_only() {
    let key = Key::read(&ecc_key(OF_ATTESTATION)).unwrap();
    let mut x = [1; 32];
    x[0] = 0;
    assert_eq!(key.public, Public::Ecdsa { x, y: [2; 32] });
    assert_eq!(key.fingerprint, Digest::of(&ecc_key(OF_ATTESTATION)));
    let rsa = Key::read(&rsa_key(2048, &[5; 256])).unwrap();
    assert_eq!(rsa.public, Public::Rsa { modulus: vec![5; 256], exponent: 65_537 });
    // Each of the five attributes is needed, and decrypt makes it a key that answers other things.
    for bit in [1, 4, 5, 16, 18] {
        let error = Key::read(&ecc_key(OF_ATTESTATION & !(1 << bit))).unwrap_err();
        assert!(error.to_string().contains("attributes"), "{bit}: {error}");
    }
    assert!(Key::read(&ecc_key(OF_ATTESTATION | DECRYPT)).is_err());
    assert!(Key::read(&rsa_key(1024, &[5; 128])).unwrap_err().to_string().contains("its size is 0x400"));
    assert!(Key::read(&rsa_key(2048, &[5; 255])).is_err());
}

#[test]
fn whatever_is_cut_or_goes_on_is_refused() {
    let (statement, key, signature) = (statement(&BTreeSet::from([3])), ecc_key(OF_ATTESTATION), signature());
    Signature::read(&signature).unwrap();
    for length in 0..statement.len() {
        assert!(Statement::read(&statement[..length]).is_err(), "{length}");
    }
    for length in 0..key.len() {
        assert!(Key::read(&key[..length]).is_err(), "{length}");
    }
    for length in 0..signature.len() {
        assert!(Signature::read(&signature[..length]).is_err(), "{length}");
    }
    let more = |bytes: &[u8]| [bytes, &[0]].concat();
    assert_eq!(Statement::read(&more(&statement)), Err(TpmError::Trailing(1)));
    assert_eq!(Key::read(&more(&key)), Err(TpmError::Trailing(1)));
    assert_eq!(Signature::read(&more(&signature)), Err(TpmError::Trailing(1)));
}

proptest! {
    #[test]
    fn a_selection_is_read_as_it_was_written(registers in btree_set(0..REGISTERS, 1..24)) {
        let bytes = selection(&registers);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(read_selection(&mut reader).unwrap(), registers);
        reader.end().unwrap();
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        drop((Statement::read(&bytes), Key::read(&bytes), Signature::read(&bytes)));
    }

    #[test]
    fn one_byte_that_is_another_never_gives_the_same_statement(at in 42_usize..180, flip in 1_u8..) {
        let whole = statement(&BTreeSet::from([0, 1, 2]));
        let at = at % whole.len();
        // The signer's name is not looked at: the signature says whose it is.
        prop_assume!(!(6..42).contains(&at));
        let mut other = whole.clone();
        other[at] ^= flip;
        prop_assert_ne!(Statement::read(&other), Statement::read(&whole));
    }
}
