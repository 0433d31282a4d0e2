//! A store that an earlier version wrote: `old_store` holds its files, less the ballast and the lock. They are never made
//! anew; what they hold must be read by every later version.

use std::fs;
use std::path::Path;

use nightshift_coordinator::tokens;
use proto::token::BootstrapToken;
use shell::store::Store;

/// What the earlier version printed when it made the store.
const TOKEN: &str = "nst1.A9Zt0Ig1wco_EozOrNHzGslBYwlrIPRFroQoW8CDLXIdgHHJfCXIMRrzz4kR4KBUPEmEm6TQ3aSgvixCe9gjVu0UO05sb2NhbGhvc3Q6NzQ0Mw";

const NOW: u64 = 1_800_000_001;

#[test]
fn a_store_of_an_earlier_version_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["conf", "db"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_store").join(name);
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    let store = Store::open(folder.path()).unwrap();
    let check = store.check().unwrap();
    assert_eq!((check.records, check.damaged), (3, Vec::new()));
    assert_eq!(store.get("tasks", 7).unwrap(), Some(("night".to_owned(), 4)));
    assert_eq!(store.get::<String>("devices", [9; 16]).unwrap().as_deref(), Some("phone"));
    assert_eq!(store.get::<String>("devices", [8; 16]).unwrap(), None);

    // Its token is kept, and no longer enrolls: its secret was shown to coordinators.
    assert_eq!(TOKEN.parse::<BootstrapToken>().unwrap_err(), proto::token::TokenError::Earlier);
    let listed = tokens::list(&store).unwrap();
    assert_eq!((listed.len(), listed[0].label.as_str()), (1, "kitchen tablet"));
    tokens::revoke(&store, listed[0].token, NOW).unwrap();
    drop(store);

    let store = Store::open(folder.path()).unwrap();
    assert_eq!(tokens::list(&store).unwrap()[0].revoked_unix_secs, Some(NOW));
}
