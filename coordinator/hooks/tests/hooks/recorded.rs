//! Quotes that swtpm 0.7.1 (libtpms) made, as it gave them: registers 0 and 7 of a machine that was just started, over a
//! challenge of fives.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_hooks::{QuoteError, Registers, Wanted, verify_quote};
use proto::attestation::Quote;
use proto::ids::Digest;

/// A key, its statement, and the signature, in hexadecimal digits.
type Recorded = [&'static str; 3];

const ECC: Recorded = [
    "0023000b00050072000000100018000b000300100020925f6ffcf8771397cee87831b05d1408ec4a67fff4e234f1420c\
     60cc03f6c519002037587720503dcd1384479dfadddac98dbba9977a76d2162a1d6a6b94896fcf39",
    "ff54434780180022000b2e1dc25484f9a5610766bd71361942e4fee36a34e14ba5052bdecbea766b0a43002005050505\
     050505050505050505050505050505050505050505050505050505050000000000000f56000000010000000001201910\
     230016363600000001000b038100000020f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb\
     4b",
    "0018000b002066de07e32521e95cfcc021e499a708d9faab06c1d8fa0f5800eb92f852ceaf76002024589aa1f8aa85c5\
     3747ae50bb66eb8ca0da43f1093036f10cc458e867537132",
];

const RSA: Recorded = [
    "0001000b00050072000000100014000b0800000000000100f27968f6b73e5ee688d28de3a828e7f141129921c5dc0928\
     a3562810a4089a8d90037c4727aae0dd21c29f67547be13363f0a5b94e9eb8e53d88d5a883c80088762ca2995f7239d3\
     cab9bb5297a7570823dfe02a43a4784fae87fbbf10ac2988ac0d884d02ee9d40f6388c398323f427c79e34be83c3d96e\
     7d05679160a555145c41185e225e5c60b7454c7aae2ee6d5745b59142db3abc4de6d85fa8dec39b816f8bce90edc7440\
     a416c6b3f313c6631faac80da7587e4549894806be0a995c31f6553e47f6199b2931336ce3366df6a712474dcef88915\
     f77c7c3a24a62402d4a937f0a2672cf1d25291209a9e2d6dddc9716ba53dc98bb0e2e41b54ff94c7",
    "ff54434780180022000b98c1358a4264a8ab674514cc385da37a6db1b979abbaceb5ac078214d9c55920002005050505\
     05050505050505050505050505050505050505050505050505050505000000000000118e000000010000000001201910\
     230016363600000001000b038100000020f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb\
     4b",
    "0014000b0100756c26c6c73e9858479d4170b240a64b8eb604cb43fe7120082c1e8781e33f7812e87acbe898a6487d81\
     4a9f26a97210dc789526c5c3a09f6b872c7a6e35f964ca91c8d0dd1113c23c0bdad7e92a3fc3b709e2fa13a78d65118b\
     040dde9844398ba23f3218b9f2251162503b6c03a0a0dc257c4c3760bab626eab34f22bd9ea61e060400ed5f67f320b3\
     11f7c49c4af9261dfb6fbbaa3a2d6dcef4dc9ad29a299aa203b3d22eacc6a9715d6e76bcda5082f8138b2d7f6497596c\
     de4bb8e92d70b70bef7e9d75988d868b8b92c5857f93b73d3ed4b8e8c504934f2c143eee9cfc4bc20c9b4f9f8bce803f\
     45a103d2d6c98a2fca3445a9a85c4e5818c59a264d18",
];

fn quote([key, statement, signature]: Recorded) -> Quote {
    let bytes = |digits: &str| hex::decode(digits).unwrap();
    let registers = vec![(0, Digest([0; 32])), (7, Digest([0; 32]))];
    let (key, statement, signature) = (bytes(key), bytes(statement), bytes(signature));
    Quote { key, statement, signature, registers, certificates: Vec::new() }
}

#[test]
fn what_a_tpm_gave_is_taken_for_the_challenge_and_the_registers_that_it_is_about() {
    let zeros = BTreeSet::from([Digest([0; 32])]);
    let registers = Registers(BTreeMap::from([(0, zeros.clone()), (7, zeros)]));
    let wanted = Wanted { registers: Some(&registers), least_firmware: 1 };
    for recorded in [ECC, RSA] {
        let key = verify_quote(&quote(recorded), &Digest([5; 32]), wanted).unwrap();
        assert_eq!(key.fingerprint, Digest::of(&quote(recorded).key));
        let other = verify_quote(&quote(recorded), &Digest([6; 32]), wanted);
        assert_eq!(other, Err(QuoteError::Challenge));
    }
    let crossed = Quote { key: quote(RSA).key, ..quote(ECC) };
    assert_eq!(verify_quote(&crossed, &Digest([5; 32]), wanted), Err(QuoteError::Signature));
}
