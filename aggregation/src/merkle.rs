//! The Merkle tree hash of [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962),
//! section 2.1.

use crate::hash::sha256;

/// The hash of a leaf, of a node or of a whole tree.
pub type TreeHash = [u8; 32];

/// The tree hash of `leaves`.
pub(crate) fn root(leaves: &[Vec<u8>]) -> TreeHash {
    match leaves {
        [] => empty(),
        [leaf] => leaf_hash(leaf),
        more => {
            let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

/// The hash of a tree without leaves.
pub(crate) fn empty() -> TreeHash {
    sha256(&[])
}

/// The hash of one leaf.
pub(crate) fn leaf_hash(leaf: &[u8]) -> TreeHash {
    sha256(&[&[0x00], leaf])
}

/// The hash of a node over two.
pub(crate) fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    sha256(&[&[0x01], left, right])
}

/// How many of `leaves`, at least two, are below the left node: the largest
/// power of two that is fewer.
pub(crate) const fn left_of(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The leaves of the reference implementation's tests
    /// (certificate-transparency, `merkletree/merkle_tree_test.cc`).
    pub(crate) fn reference_leaves() -> Vec<Vec<u8>> {
        vec![
            vec![],
            vec![0x00],
            vec![0x10],
            vec![0x20, 0x21],
            vec![0x30, 0x31],
            vec![0x40, 0x41, 0x42, 0x43],
            (0x50..0x58).collect(),
            (0x60..0x70).collect(),
        ]
    }

    /// The roots of the first 0 to 8 of them.
    pub(crate) const REFERENCE_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    pub(crate) fn from_hex(hex: &str) -> TreeHash {
        let byte = |place: usize| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    #[test]
    fn roots_agree_with_certificate_transparency() {
        // The first root is of no leaf, the second of the first leaf, whose
        // hash is that of one zero byte.
        for (count, hex) in REFERENCE_ROOTS.iter().enumerate() {
            let got = root(&reference_leaves()[..count]);
            assert_eq!(got, from_hex(hex), "root of {count} leaves");
        }
    }

    #[test]
    fn the_left_node_has_the_largest_power_of_two_that_is_fewer() {
        let left = |leaves| (leaves, left_of(leaves));
        let expected = [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (1 << 40, 1 << 39)];
        assert_eq!(expected.map(|(leaves, _)| left(leaves)), expected);
    }
}
