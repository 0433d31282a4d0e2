//! The tree of a log, and what proves something of it.

use crate::merkle::{TreeHash, empty, left_of, node_hash};

/// The hashes of a growing Merkle tree, of every node that is whole: 64 bytes
/// a leaf.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Of each height, from the leaves on; the node `i` of height `h` is over
    /// the leaves from `i · 2^h`.
    levels: Vec<Vec<TreeHash>>,
}

impl Tree {
    /// Adds the hash of a leaf at the end.
    pub fn append(&mut self, leaf: TreeHash) {
        let mut node = leaf;
        for height in 0.. {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[height];
            level.push(node);
            let [.., left, right] = level.as_slice() else { return };
            if level.len() % 2 == 1 {
                return;
            }
            node = node_hash(left, right);
        }
    }

    /// Forgets all leaves but the first `size`.
    pub(super) fn truncate(&mut self, size: u64) {
        for (height, level) in self.levels.iter_mut().enumerate() {
            let whole = size.checked_shr(u32::try_from(height).unwrap_or(u32::MAX)).unwrap_or(0);
            level.truncate(usize::try_from(whole).unwrap_or(usize::MAX));
        }
    }

    /// The leaves there are.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The hash of a leaf.
    pub fn leaf(&self, place: u64) -> Option<&TreeHash> {
        self.levels.first()?.get(usize::try_from(place).ok()?)
    }

    /// The root of the first `size` leaves, if there are so many.
    pub fn root(&self, size: u64) -> Option<TreeHash> {
        match size {
            0 => Some(empty()),
            size if size > self.size() => None,
            size => Some(self.over(0, size)),
        }
    }

    /// What shows that a leaf is in the tree of the first `size` leaves, from
    /// the leaf up (RFC 6962, section 2.1.1).
    pub fn inclusion(&self, place: u64, size: u64) -> Option<Vec<TreeHash>> {
        if place >= size || size > self.size() {
            return None;
        }
        let mut path = Vec::new();
        let (mut from, mut to) = (0, size);
        while to - from > 1 {
            let middle = from + left_of(to - from);
            if place < middle {
                path.push(self.over(middle, to));
                to = middle;
            } else {
                path.push(self.over(from, middle));
                from = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// What shows that the tree of the first `new` leaves goes on from that of
    /// the first `old` (RFC 6962, section 2.1.2).
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<TreeHash>> {
        if old > new || new > self.size() {
            return None;
        }
        let mut path = Vec::new();
        if old == 0 || old == new {
            return Some(path);
        }
        let (mut from, mut to) = (0, new);
        while to != old {
            let middle = from + left_of(to - from);
            if old <= middle {
                path.push(self.over(middle, to));
                to = middle;
            } else {
                path.push(self.over(from, middle));
                from = middle;
            }
        }
        // The old root itself is known to whoever asks.
        if from > 0 {
            path.push(self.over(from, to));
        }
        path.reverse();
        Some(path)
    }

    /// What shows that leaves in many places, in rising order, are in the tree
    /// of the first `size`: the largest nodes without any of them, from left to
    /// right. For k of n about k · log2(n / k), where k paths have k · log2(n).
    pub fn inclusions(&self, places: &[u64], size: u64) -> Option<Vec<TreeHash>> {
        let rising = places.is_sorted_by(|one, next| one < next);
        if !rising || size == 0 || size > self.size() || places.last().is_some_and(|last| *last >= size) {
            return None;
        }
        let mut nodes = Vec::new();
        self.beside(places, (0, size), &mut nodes);
        Some(nodes)
    }

    fn beside(&self, places: &[u64], (from, to): (u64, u64), nodes: &mut Vec<TreeHash>) {
        if places.is_empty() {
            nodes.push(self.over(from, to));
        } else if to - from > 1 {
            let middle = from + left_of(to - from);
            let (left, right) = places.split_at(places.partition_point(|place| *place < middle));
            self.beside(left, (from, middle), nodes);
            self.beside(right, (middle, to), nodes);
        }
    }

    /// The hash over some leaves, at least one, where `from` is where a node
    /// of the tree begins.
    fn over(&self, from: u64, to: u64) -> TreeHash {
        let leaves = to - from;
        if leaves.is_power_of_two() {
            let height = leaves.trailing_zeros();
            // Nodes that are whole are all here, so their number is one of a vector's places.
            let place = usize::try_from(from >> height).unwrap_or(usize::MAX);
            return self.levels[height as usize][place];
        }
        let middle = from + left_of(leaves);
        node_hash(&self.over(from, middle), &self.over(middle, to))
    }
}
