//! A device's folder that an earlier version wrote: `old_folder` holds its files. They are never made anew; what they
//! hold must be read by every later version.

use std::fs;
use std::path::Path;

use nightshift_client::store::{Declined, DeviceStore, Entry};
use proto::ids::{Digest, TaskId};
use session::Signed;

#[test]
fn a_folder_of_an_earlier_version_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    for name in ["ledger", "state/conf", "state/db"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_folder").join(name);
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    let signed =
        |round, statement| Signed { task: TaskId([1; 16]), round, statement: Digest([statement; 32]) };
    let declined = Declined { unix_millis: 5, why: "too warm".to_owned() };

    // The ledger is held to its head, which lies in the state.
    let mut store = DeviceStore::open(folder.path()).unwrap();
    assert_eq!(store.entries(), [Entry::Signature(signed(3, 4)), Entry::Answer(signed(3, 5))]);
    assert_eq!(store.get::<String>("enrolled").unwrap().as_deref(), Some("hall tablet"));
    assert_eq!(store.declined().unwrap(), Some(declined));
    assert!(!folder.path().join("state/ballast").exists());
    store.sign(signed(4, 6)).unwrap();
    store.set_declined(None).unwrap();
    drop(store);

    let store = DeviceStore::open(folder.path()).unwrap();
    store.verify().unwrap();
    assert_eq!((store.entries().len(), store.declined().unwrap()), (3, None));
}
