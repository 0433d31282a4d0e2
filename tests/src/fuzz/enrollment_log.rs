//! The log of enrollments: its texts, its entries, and what proves something of it.

use aggregation::log::{
    Auditor, Leaf, SignedHead, Tree, Watch, Witness, check_consistency, check_inclusion, check_inclusions,
};
use aggregation::{IdentityKey, TreeHash};

use super::tape::Tape;

/// The authority whose heads are read.
pub(super) fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

/// The first byte says what the others are: a head, a witness's key, entries, or a tape of proofs.
pub fn enrollment_log(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => head(rest),
        1 => {
            if let Some(witness) =
                std::str::from_utf8(rest).ok().and_then(|text| text.parse::<Witness>().ok())
            {
                assert_eq!(witness.to_string().parse(), Ok(witness));
            }
        }
        2 => entries(rest),
        _ => proofs(&mut Tape::new(rest)),
    }
}

fn head(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let authority = authority().public();
    let Ok(signed) = SignedHead::parse(text, &authority) else { return };
    assert_eq!(SignedHead::parse(&signed.to_string(), &authority).as_ref(), Ok(&signed));
    let watch = Watch { longest_age_secs: u64::MAX, ..Watch::default() };
    let seen = watch.accept(None, &signed, &[], signed.head().unix_secs).unwrap();
    assert_eq!(watch.accept(Some(&seen), &signed, &[], signed.head().unix_secs), Ok(seen));
}

fn entries(bytes: &[u8]) {
    let mut auditor = Auditor::default();
    // As long as the longest entry.
    for bytes in bytes.chunks(129) {
        for length in [113, 25, 129] {
            let leaf = bytes.get(..length).and_then(Leaf::from_bytes);
            if let Some(leaf) = leaf {
                assert_eq!(leaf.to_bytes(), bytes[..length]);
                auditor.add(&leaf);
            }
        }
    }
    let size = auditor.size();
    assert!(auditor.tree().root(size).is_some());
}

/// Proofs of a small tree hold, and what was changed in them does not.
fn proofs(tape: &mut Tape<'_>) {
    let size = 1 + u64::from(tape.byte() % 40);
    let mut tree = Tree::default();
    for leaf in 0..size {
        tree.append(Leaf::Revocation { device: [0; 16], unix_secs: leaf }.hash());
    }
    let root = |size| tree.root(size).unwrap();
    let (place, old) = (u64::from(tape.byte()) % size, u64::from(tape.byte()) % (size + 1));
    let leaf = *tree.leaf(place).unwrap();
    let change = |mut path: Vec<TreeHash>, with: u8| {
        let at = usize::from(with);
        if path.is_empty() || with == 0 {
            path.push([with; 32]);
        } else {
            let at = at % path.len();
            path[at][at % 32] ^= with;
        }
        path
    };
    let path = tree.inclusion(place, size).unwrap();
    assert_eq!(check_inclusion(&leaf, place, (size, &root(size)), &path), Ok(()));
    let with = tape.byte();
    assert!(check_inclusion(&leaf, place, (size, &root(size)), &change(path, with)).is_err());
    let path = tree.consistency(old, size).unwrap();
    assert_eq!(check_consistency((old, &root(old)), (size, &root(size)), &path), Ok(()));
    assert!(check_consistency((old, &root(old)), (size, &root(size)), &change(path, with)).is_err());
    let mut places: Vec<u64> = (0..tape.byte() % 8).map(|_| u64::from(tape.byte()) % size).collect();
    places.sort_unstable();
    places.dedup();
    let nodes = tree.inclusions(&places, size).unwrap();
    let leaves: Vec<(u64, TreeHash)> =
        places.iter().map(|place| (*place, *tree.leaf(*place).unwrap())).collect();
    assert_eq!(check_inclusions(&leaves, (size, &root(size)), &nodes), Ok(()));
    assert!(check_inclusions(&leaves, (size, &root(size)), &change(nodes, with)).is_err());
}
