//! The stores that need no server do what is asked of every one.

use std::sync::atomic::{AtomicUsize, Ordering};

use nightshift_support::conformance::conforms;
use shell::store::Store;

#[test]
fn a_store_in_a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    conforms(&|| {
        let number = number.fetch_add(1, Ordering::AcqRel);
        Store::open(&folder.path().join(number.to_string())).unwrap()
    });
}

#[test]
fn a_store_in_memory_conforms() {
    conforms(&Store::memory);
}
