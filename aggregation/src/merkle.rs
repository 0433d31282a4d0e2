//! The Merkle tree hash of [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962),
//! section 2.1.

use crate::hash::sha256;

/// The tree hash of `leaves`.
pub(crate) fn root(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0x00], leaf]),
        more => {
            // The largest power of two below the number of leaves.
            let half = more.len().next_power_of_two() / 2;
            let (left, right) = more.split_at(half);
            sha256(&[&[0x01], &root(left), &root(right)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves and roots of the reference implementation's tests
    /// (certificate-transparency, `merkletree/merkle_tree_test.cc`).
    #[test]
    fn roots_agree_with_certificate_transparency() {
        let leaves: Vec<Vec<u8>> = vec![
            vec![],
            vec![0x00],
            vec![0x10],
            vec![0x20, 0x21],
            vec![0x30, 0x31],
            vec![0x40, 0x41, 0x42, 0x43],
            (0x50..0x58).collect(),
            (0x60..0x70).collect(),
        ];
        let expected = [
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
        // The first root is of no leaf, the second of the first leaf, whose
        // hash is that of one zero byte.
        for (count, hex) in expected.iter().enumerate() {
            let got = root(&leaves[..count]);
            let expected: Vec<u8> =
                (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            assert_eq!(got, *expected, "root of {count} leaves");
        }
    }
}
