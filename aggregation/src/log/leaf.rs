//! What a log has of each thing that its authority did.

use crate::{
    identity::IdentityPublic,
    merkle::{self, TreeHash},
};

const CREDENTIAL: u8 = 1;
const REVOCATION: u8 = 2;
const VERSION: u8 = 3;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// A device was given a credential: it enrolled, or renewed.
    Credential {
        /// The device, by a name that says nothing of its user.
        device: [u8; 16],
        /// Its identity key.
        identity: IdentityPublic,
        /// The first second since 1970 at which the credential no longer holds.
        expires_unix_secs: u64,
        /// When the device enrolled first.
        enrolled_unix_secs: u64,
        /// By which its operator finds their own among the leaves: a keyed hash of what they call it.
        label: [u8; 16],
        /// The digest of the policy under which it was attested; zeros for none.
        attested: [u8; 32],
    },
    /// A device was shut out.
    Revocation {
        /// Which.
        device: [u8; 16],
        /// When, in seconds since 1970.
        unix_secs: u64,
    },
    /// A version came out of a round.
    Version {
        /// The task.
        task: [u8; 16],
        /// The version.
        version: u32,
        /// The plan's hash.
        plan: [u8; 32],
        /// The hash of the trained parameters.
        adapter: [u8; 32],
        /// The root of the roster whose sum it is from.
        roster: [u8; 32],
        /// The devices in that sum.
        survivors: u32,
        /// When, in seconds since 1970.
        unix_secs: u64,
    },
}

impl Leaf {
    /// The entry as bytes: its kind, then its fields in order, whole numbers with the highest byte first.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Credential { device, identity, expires_unix_secs, enrolled_unix_secs, label, attested } => {
                [
                    &[CREDENTIAL],
                    device.as_slice(),
                    &identity.0,
                    &expires_unix_secs.to_be_bytes(),
                    &enrolled_unix_secs.to_be_bytes(),
                    label,
                    attested,
                ]
                .concat()
            }
            Self::Revocation { device, unix_secs } => {
                [&[REVOCATION], device.as_slice(), &unix_secs.to_be_bytes()].concat()
            }
            Self::Version { task, version, plan, adapter, roster, survivors, unix_secs } => [
                &[VERSION],
                task.as_slice(),
                &version.to_be_bytes(),
                plan,
                adapter,
                roster,
                &survivors.to_be_bytes(),
                &unix_secs.to_be_bytes(),
            ]
            .concat(),
        }
    }

    /// The entry that these bytes are, if they are one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let mut fields = Fields(rest);
        let leaf = match *kind {
            CREDENTIAL => Self::Credential {
                device: fields.take()?,
                identity: IdentityPublic(fields.take()?),
                expires_unix_secs: u64::from_be_bytes(fields.take()?),
                enrolled_unix_secs: u64::from_be_bytes(fields.take()?),
                label: fields.take()?,
                attested: fields.take()?,
            },
            REVOCATION => {
                Self::Revocation { device: fields.take()?, unix_secs: u64::from_be_bytes(fields.take()?) }
            }
            VERSION => Self::Version {
                task: fields.take()?,
                version: u32::from_be_bytes(fields.take()?),
                plan: fields.take()?,
                adapter: fields.take()?,
                roster: fields.take()?,
                survivors: u32::from_be_bytes(fields.take()?),
                unix_secs: u64::from_be_bytes(fields.take()?),
            },
            _ => return None,
        };
        fields.0.is_empty().then_some(leaf)
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> TreeHash {
        merkle::leaf_hash(&self.to_bytes())
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let all = [
            Leaf::Credential {
                device: [1; 16],
                identity: IdentityPublic([2; 32]),
                expires_unix_secs: 3,
                enrolled_unix_secs: 4,
                label: [5; 16],
                attested: [6; 32],
            },
            Leaf::Revocation { device: [1; 16], unix_secs: 2 },
            Leaf::Version {
                task: [1; 16],
                version: 2,
                plan: [3; 32],
                adapter: [4; 32],
                roster: [5; 32],
                survivors: 6,
                unix_secs: 7,
            },
        ];
        let lengths = all.each_ref().map(|leaf| leaf.to_bytes().len());
        assert_eq!(lengths, [113, 25, 129]);
        for leaf in all {
            let bytes = leaf.to_bytes();
            assert_eq!(Leaf::from_bytes(&bytes), Some(leaf));
            for cut in 0..bytes.len() {
                assert_eq!(Leaf::from_bytes(&bytes[..cut]), None);
            }
            assert_eq!(Leaf::from_bytes(&[bytes.as_slice(), &[0]].concat()), None);
            assert_eq!(Leaf::from_bytes(&[&[9], &bytes[1..]].concat()), None);
        }
    }
}
