//! One record as it lies on disk: format version (1 byte) ‖ checksum
//! (8 bytes) ‖ payload. The checksum covers the tree's name and the key too, so
//! a record that lies in a wrong place is damaged as well.
//!
//! The checksum is the beginning of the SHA-256 of, in the [default tree](DEFAULT_TREE),
//! version ‖ key ‖ 0 ‖ payload, and in every other one version ‖ length of the
//! tree's name ‖ name ‖ length of the key ‖ key ‖ payload, with lengths as
//! big-endian `u64`. Both are on disks: devices have always used the former,
//! the coordinator the latter.

use ring::digest::{Context, SHA256};

use super::DEFAULT_TREE;

/// The largest framed record; larger values become leaking blob files in sled.
pub(super) const RECORD_LIMIT_BYTES: usize = 4096;

/// Bytes that framing adds.
pub(super) const OVERHEAD_BYTES: usize = 1 + CHECKSUM_BYTES;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Frames a payload; `None` when the record would be over the limit.
pub(super) fn encode(tree: &str, key: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    if OVERHEAD_BYTES + payload.len() > RECORD_LIMIT_BYTES {
        return None;
    }
    let mut record = Vec::with_capacity(OVERHEAD_BYTES + payload.len());
    record.push(FORMAT);
    record.extend_from_slice(&checksum(tree, key, payload));
    record.extend_from_slice(payload);
    Some(record)
}

/// Gives back the payload; `None` when the record is damaged.
pub(super) fn decode<'a>(tree: &str, key: &[u8], record: &'a [u8]) -> Option<&'a [u8]> {
    let (&format, rest) = record.split_first()?;
    let (stored, payload) = rest.split_at_checked(CHECKSUM_BYTES)?;
    (format == FORMAT && stored == checksum(tree, key, payload)).then_some(payload)
}

fn checksum(tree: &str, key: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(&[FORMAT]);
    if tree == DEFAULT_TREE {
        context.update(key);
        // Keys are words there, and neither they nor JSON text hold a zero byte.
        context.update(&[0]);
    } else {
        for part in [tree.as_bytes(), key] {
            // usize is at most 64 bits on every platform that Rust supports today.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.update(payload);
    let digest = context.finish();
    let mut checksum = [0; CHECKSUM_BYTES];
    for (to, from) in checksum.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_undoes_encoding(key: Vec<u8>, payload: Vec<u8>) {
            let record = encode("tasks", &key, &payload).unwrap();
            prop_assert_eq!(decode("tasks", &key, &record), Some(payload.as_slice()));
        }

        #[test]
        fn any_flipped_bit_is_seen(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut record = encode("tasks", b"k", &payload).unwrap();
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert_eq!(decode("tasks", b"k", &record), None);
        }
    }

    #[test]
    fn a_record_in_a_wrong_place_is_damaged() {
        let record = encode("tasks", b"one", b"payload").unwrap();
        assert_eq!(decode("tasks", b"two", &record), None);
        assert_eq!(decode("devices", b"one", &record), None);
        assert_eq!(decode("task", b"sone", &record), None);
    }

    /// Computed from the description above by other code; bytes on disks must never read otherwise.
    #[test]
    fn the_bytes_of_a_record_are_those_on_disks() {
        let record = |tree, key: &[u8], payload| hex::encode(encode(tree, key, payload).unwrap());
        let in_a_tree = record("tasks", &7_u64.to_be_bytes(), br#"["night",4]"#);
        assert_eq!(in_a_tree, "01d93fa0a87988179e5b226e69676874222c345d");
        assert_eq!(record(DEFAULT_TREE, b"installed", b"2"), "014f61328ca099b08132");
    }

    #[test]
    fn a_record_that_moved_into_or_out_of_the_default_tree_is_damaged() {
        let record = encode(DEFAULT_TREE, b"one", b"2").unwrap();
        assert_eq!(decode(DEFAULT_TREE, b"one", &record), Some(b"2".as_slice()));
        assert_eq!(decode(DEFAULT_TREE, b"two", &record), None);
        assert_eq!(decode("tasks", b"one", &record), None);
        let record = encode("tasks", b"one", b"2").unwrap();
        assert_eq!(decode(DEFAULT_TREE, b"one", &record), None);
    }

    #[test]
    fn a_cut_record_is_damaged() {
        let record = encode("tasks", b"one", b"payload").unwrap();
        for length in 0..record.len() {
            assert_eq!(decode("tasks", b"one", &record[..length]), None);
        }
    }

    #[test]
    fn the_limit_counts_the_frame() {
        let largest = vec![0; RECORD_LIMIT_BYTES - OVERHEAD_BYTES];
        assert!(encode("t", b"k", &largest).is_some());
        let larger = vec![0; largest.len() + 1];
        assert!(encode("t", b"k", &larger).is_none());
    }
}
