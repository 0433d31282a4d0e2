//! Many signatures at once.
//!
//! One equation of a random combination of all of them, which costs a fifth of
//! one equation each ([Bernstein and others 2012], section 5). Whatever holds
//! one by one holds together. What holds together and not one by one differs by
//! a point of small order, which only the key's holder can bring about: it is
//! still nobody else's signature.
//!
//! [Bernstein and others 2012]: https://doi.org/10.1007/s13389-012-0027-1

use std::collections::BTreeMap;

use ed25519_dalek::{Signature as DalekSignature, VerifyingKey, verify_batch};

use crate::{
    hash,
    identity::{IdentityPublic, Signature},
};

/// Whether a signature is a key's over these parts under this domain, as far
/// as is known yet.
pub(crate) type Check<'a> = dyn FnMut(&IdentityPublic, &str, &[&[u8]], &Signature) -> bool + 'a;

/// Verifies the signatures of all items together, and, only if that fails, one
/// by one, to say which does not hold. `verify` does whatever else there is to
/// check of an item.
pub(crate) fn verify_all<T, E>(
    items: impl Iterator<Item = T> + Clone,
    verify: impl Fn(T, &mut Check<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut batch = Batch::default();
    for item in items.clone() {
        verify(item, &mut |key, domain, parts, signature| batch.add(key, domain, parts, signature))?;
    }
    if batch.holds() {
        return Ok(());
    }
    for item in items {
        verify(item, &mut |key, domain, parts, signature| key.verify(domain, parts, signature))?;
    }
    Ok(())
}

/// Signatures that are to be verified together.
#[derive(Default)]
struct Batch {
    messages: Vec<Vec<u8>>,
    signatures: Vec<DalekSignature>,
    keys: Vec<VerifyingKey>,
    /// To read a key is a fifth of the work, and one signed all credentials.
    read: BTreeMap<IdentityPublic, VerifyingKey>,
}

impl Batch {
    /// Adds a signature; false if the key is none.
    fn add(&mut self, key: &IdentityPublic, domain: &str, parts: &[&[u8]], signature: &Signature) -> bool {
        let known = self.read.get(key).copied();
        let Some(read) = known.or_else(|| VerifyingKey::from_bytes(&key.0).ok()) else { return false };
        self.read.insert(*key, read);
        self.messages.push(hash::encode(domain, parts));
        self.signatures.push(DalekSignature::from_bytes(&signature.0));
        self.keys.push(read);
        true
    }

    fn holds(&self) -> bool {
        let messages: Vec<&[u8]> = self.messages.iter().map(Vec::as_slice).collect();
        verify_batch(&messages, &self.signatures, &self.keys).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;

    type Signed = (IdentityPublic, Vec<u8>, Signature);

    fn signed(count: u8) -> Vec<Signed> {
        let one = |number: u8| {
            // Two in a row by one key.
            let key = IdentityKey::from_seed(&[number / 2; 32]);
            let message = vec![number; 5];
            (key.public(), message.clone(), key.sign("test", &[&message]))
        };
        (0..count).map(one).collect()
    }

    fn holds(all: &[Signed]) -> bool {
        let one_by_one =
            all.iter().all(|(key, message, signature)| key.verify("test", &[message], signature));
        let verified =
            verify_all(
                all.iter(),
                |(key, message, signature), check| {
                    if check(key, "test", &[message], signature) { Ok(()) } else { Err(()) }
                },
            );
        assert_eq!(verified.is_ok(), one_by_one);
        let mut batch = Batch::default();
        let added = all.iter().all(|(key, message, signature)| batch.add(key, "test", &[message], signature));
        assert_eq!(added && batch.holds(), one_by_one);
        one_by_one
    }

    #[test]
    fn signatures_that_hold_hold_together() {
        for count in [0, 1, 2, 40] {
            assert!(holds(&signed(count)));
        }
    }

    #[test]
    fn one_that_does_not_hold_spoils_them_all() {
        for at in [0, 7, 19] {
            let spoil = |change: &dyn Fn(&mut Signed)| {
                let mut all = signed(20);
                change(&mut all[at]);
                holds(&all)
            };
            assert!(!spoil(&|(_, message, _)| message.push(0)));
            assert!(!spoil(&|(_, _, signature)| signature.0[0] ^= 1));
            assert!(!spoil(&|(_, _, signature)| signature.0[40] ^= 1));
            assert!(!spoil(&|(_, _, signature)| signature.0[63] ^= 0x80));
            assert!(!spoil(&|(key, _, _)| *key = IdentityKey::from_seed(&[99; 32]).public()));
            // Not a point of the curve.
            assert!(!spoil(&|(key, _, _)| key.0 = [2; 32]));
        }
    }

    #[test]
    fn two_messages_that_were_exchanged_do_not_hold() {
        let mut all = signed(4);
        let second = all[2].1.clone();
        all[2].1 = std::mem::replace(&mut all[0].1, second);
        assert!(!holds(&all));
    }
}
