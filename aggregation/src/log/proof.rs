//! Checks of what a log says about its tree, by whoever has not the tree.

use thiserror::Error;

use crate::merkle::{TreeHash, empty, left_of, node_hash};

/// A proof that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// It has too few or too many hashes for these places and sizes.
    #[error("the proof has too few or too many hashes")]
    Length,
    /// It leads to another root.
    #[error("the proof leads to another root")]
    Root,
    /// A place is not below the size, or not above the one before.
    #[error("a place is outside of the tree, or named twice")]
    Place,
}

/// Fails unless a leaf is in a place of the tree with `size` leaves and this
/// root. `path` is as [`Tree::inclusion`](super::Tree::inclusion) makes it.
pub fn check_inclusion(
    leaf: &TreeHash,
    place: u64,
    (size, root): (u64, &TreeHash),
    path: &[TreeHash],
) -> Result<(), ProofError> {
    if place >= size {
        return Err(ProofError::Place);
    }
    // From the root down, which is from the end of the path.
    let mut turns = Vec::with_capacity(path.len());
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + left_of(to - from);
        let is_left = place < middle;
        turns.push(is_left);
        if is_left { to = middle } else { from = middle }
    }
    if turns.len() != path.len() {
        return Err(ProofError::Length);
    }
    let join = |hash: TreeHash, (is_left, beside): (&bool, &TreeHash)| {
        if *is_left { node_hash(&hash, beside) } else { node_hash(beside, &hash) }
    };
    let found = turns.iter().rev().zip(path).fold(*leaf, join);
    if found == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Fails unless the tree of `new` goes on from that of `old`. `path` is as
/// [`Tree::consistency`](super::Tree::consistency) makes it.
pub fn check_consistency(
    (old, old_root): (u64, &TreeHash),
    (new, new_root): (u64, &TreeHash),
    path: &[TreeHash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Place);
    }
    if old == 0 || old == new {
        let same = if old == 0 { *old_root == empty() } else { old_root == new_root };
        return match (path.is_empty(), same) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let mut turns = Vec::new();
    let (mut from, mut to) = (0, new);
    while to != old {
        let middle = from + left_of(to - from);
        let is_left = old <= middle;
        turns.push(is_left);
        if is_left { to = middle } else { from = middle }
    }
    // Where the old tree is a node of the new one, it is known.
    let (first, beside) = match path.split_first() {
        Some((first, rest)) if from > 0 => (first, rest),
        Some(_) | None if from == 0 => (old_root, path),
        Some(_) | None => return Err(ProofError::Length),
    };
    if turns.len() != beside.len() {
        return Err(ProofError::Length);
    }
    let join = |(before, after): (TreeHash, TreeHash), (is_left, beside): (&bool, &TreeHash)| {
        if *is_left {
            (before, node_hash(&after, beside))
        } else {
            (node_hash(beside, &before), node_hash(beside, &after))
        }
    };
    let found = turns.iter().rev().zip(beside).fold((*first, *first), join);
    if found == (*old_root, *new_root) { Ok(()) } else { Err(ProofError::Root) }
}

/// Fails unless all these leaves, each with its place, in rising order, are in
/// the tree with `size` leaves and this root. `nodes` is as
/// [`Tree::inclusions`](super::Tree::inclusions) makes it.
pub fn check_inclusions(
    leaves: &[(u64, TreeHash)],
    (size, root): (u64, &TreeHash),
    nodes: &[TreeHash],
) -> Result<(), ProofError> {
    let rising = leaves.is_sorted_by(|(one, _), (next, _)| one < next);
    if !rising || size == 0 || leaves.last().is_some_and(|(last, _)| *last >= size) {
        return Err(ProofError::Place);
    }
    let mut nodes = nodes.iter();
    let found = over(leaves, (0, size), &mut nodes).ok_or(ProofError::Length)?;
    if nodes.next().is_some() {
        return Err(ProofError::Length);
    }
    if found == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// At most as deep as a size has bits: [`left_of`] halves it.
fn over(
    leaves: &[(u64, TreeHash)],
    (from, to): (u64, u64),
    nodes: &mut std::slice::Iter<'_, TreeHash>,
) -> Option<TreeHash> {
    match leaves {
        [] => nodes.next().copied(),
        [(_, leaf)] if to - from == 1 => Some(*leaf),
        more => {
            let middle = from + left_of(to - from);
            let (left, right) = more.split_at(more.partition_point(|(place, _)| *place < middle));
            let left = over(left, (from, middle), nodes)?;
            Some(node_hash(&left, &over(right, (middle, to), nodes)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        log::Tree,
        merkle::{
            leaf_hash, root,
            tests::{REFERENCE_ROOTS, from_hex, reference_leaves},
        },
    };

    fn at(place: u64) -> usize {
        usize::try_from(place).unwrap()
    }

    fn tree(leaves: u64) -> (Tree, Vec<TreeHash>) {
        let hashes: Vec<TreeHash> = (0..leaves).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect();
        let mut tree = Tree::default();
        for hash in &hashes {
            tree.append(*hash);
        }
        (tree, hashes)
    }

    #[test]
    fn a_growing_tree_has_the_roots_of_certificate_transparency() {
        let mut tree = Tree::default();
        for leaf in reference_leaves() {
            tree.append(leaf_hash(&leaf));
        }
        for (size, hex) in (0..).zip(REFERENCE_ROOTS) {
            assert_eq!(tree.root(size), Some(from_hex(hex)), "{size}");
        }
        assert_eq!(tree.root(9), None);
    }

    /// Paths of the same tests: of leaf 0 of 8, leaf 5 of 8, leaf 2 of 3 and leaf 1 of 5.
    #[test]
    fn paths_agree_with_certificate_transparency() {
        let mut tree = Tree::default();
        for leaf in reference_leaves() {
            tree.append(leaf_hash(&leaf));
        }
        let expected: [(u64, u64, &[&str]); 4] = [
            (
                0,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                5,
                8,
                &[
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
            (
                1,
                5,
                &[
                    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ];
        for (place, size, path) in expected {
            let path: Vec<TreeHash> = path.iter().map(|hex| from_hex(hex)).collect();
            assert_eq!(tree.inclusion(place, size), Some(path.clone()), "{place} of {size}");
            let leaf = tree.leaf(place).unwrap();
            check_inclusion(leaf, place, (size, &tree.root(size).unwrap()), &path).unwrap();
        }
    }

    /// Of the same tests: 1 → 1, 1 → 8, 6 → 8, 2 → 5.
    #[test]
    fn consistency_agrees_with_certificate_transparency() {
        let mut tree = Tree::default();
        for leaf in reference_leaves() {
            tree.append(leaf_hash(&leaf));
        }
        let expected: [(u64, u64, &[&str]); 4] = [
            (1, 1, &[]),
            (
                1,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                6,
                8,
                &[
                    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (
                2,
                5,
                &[
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ];
        for (old, new, path) in expected {
            let path: Vec<TreeHash> = path.iter().map(|hex| from_hex(hex)).collect();
            assert_eq!(tree.consistency(old, new), Some(path.clone()), "{old} to {new}");
            let root = |size| tree.root(size).unwrap();
            check_consistency((old, &root(old)), (new, &root(new)), &path).unwrap();
        }
    }

    /// What `ARCHITECTURE.md` says of many leaves at once.
    #[test]
    fn a_thousand_of_a_hundred_thousand_take_two_fifths_of_their_paths() {
        let (tree, hashes) = tree(100_000);
        let places: Vec<u64> = (0..1000).map(|leaf| leaf * 100 + (leaf * leaf) % 97).collect();
        let nodes = tree.inclusions(&places, 100_000).unwrap();
        let leaves: Vec<(u64, TreeHash)> = places.iter().map(|place| (*place, hashes[at(*place)])).collect();
        let root = tree.root(100_000).unwrap();
        check_inclusions(&leaves, (100_000, &root), &nodes).unwrap();
        let paths: usize = places.iter().map(|place| tree.inclusion(*place, 100_000).unwrap().len()).sum();
        assert_eq!((nodes.len(), paths), (6_439, 16_931));
    }

    #[test]
    fn everything_of_small_trees_is_proved_and_nothing_else() {
        let (tree, hashes) = tree(20);
        let root = |size| tree.root(size).unwrap();
        for size in 1..=20 {
            for place in 0..size {
                let path = tree.inclusion(place, size).unwrap();
                let check =
                    |as_place, hash: &TreeHash| check_inclusion(hash, as_place, (size, &root(size)), &path);
                assert_eq!(check(place, &hashes[at(place)]), Ok(()));
                for other in (0..size).filter(|other| *other != place) {
                    assert!(check(other, &hashes[at(place)]).is_err(), "{place} as {other} of {size}");
                    assert!(check(place, &hashes[at(other)]).is_err());
                }
                assert_eq!(check(size, &hashes[at(place)]), Err(ProofError::Place));
            }
            for old in 0..=size {
                let path = tree.consistency(old, size).unwrap();
                let check =
                    |path: &[TreeHash]| check_consistency((old, &root(old)), (size, &root(size)), path);
                assert_eq!(check(&path), Ok(()), "{old} to {size}");
                assert_eq!(check(&[path.as_slice(), &[[0; 32]]].concat()), Err(ProofError::Length));
                if let Some((_, cut)) = path.split_first() {
                    assert!(check(cut).is_err(), "{old} to {size}");
                }
                let forked = |root: &TreeHash| check_consistency((old, &[7; 32]), (size, root), &path);
                assert!(forked(&tree.root(size).unwrap()).is_err(), "{old} to {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn many_leaves_are_proved_at_once(size in 1_u64..200, picked in proptest::collection::btree_set(0_u64..200, 0..40)) {
            let (tree, hashes) = tree(200);
            let places: Vec<u64> = picked.into_iter().filter(|place| *place < size).collect();
            let of = |places: &[u64]| -> Vec<(u64, TreeHash)> {
                places.iter().map(|place| (*place, hashes[at(*place)])).collect()
            };
            let nodes = tree.inclusions(&places, size).unwrap();
            let root = tree.root(size).unwrap();
            let check = |leaves: &[(u64, TreeHash)], nodes: &[TreeHash]| check_inclusions(leaves, (size, &root), nodes);
            prop_assert_eq!(check(&of(&places), &nodes), Ok(()));
            let more = [nodes.as_slice(), &[[0; 32]]].concat();
            prop_assert_eq!(check(&of(&places), &more), Err(ProofError::Length));
            for changed in 0..places.len() {
                let mut leaves = of(&places);
                leaves[changed].1[0] ^= 1;
                prop_assert_eq!(check(&leaves, &nodes), Err(ProofError::Root));
                let mut fewer = of(&places);
                fewer.remove(changed);
                prop_assert!(check(&fewer, &nodes).is_err());
            }
            if let [place] = places.as_slice() {
                let mut one = nodes.clone();
                let mut path = tree.inclusion(*place, size).unwrap();
                one.sort_unstable();
                path.sort_unstable();
                prop_assert_eq!(one, path);
            }
        }

        #[test]
        fn a_tree_has_the_root_of_its_leaves(size in 0_usize..300) {
            let leaves: Vec<Vec<u8>> = (0..size).map(|leaf| leaf.to_be_bytes().to_vec()).collect();
            let mut tree = Tree::default();
            for leaf in &leaves {
                tree.append(leaf_hash(leaf));
            }
            prop_assert_eq!(tree.root(size as u64), Some(root(&leaves)));
        }

        #[test]
        fn a_proof_of_anything_is_refused_and_never_panics(
            old in any::<u64>(), new in any::<u64>(), path in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            let hash = [1; 32];
            prop_assert!(check_inclusion(&hash, old, (new, &[2; 32]), &path).is_err());
            prop_assert!(check_consistency((old.max(1), &hash), (new, &[2; 32]), &path).is_err());
            prop_assert!(check_inclusions(&[(old, hash)], (new, &[2; 32]), &path).is_err());
        }
    }
}
