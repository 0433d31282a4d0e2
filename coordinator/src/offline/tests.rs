use aggregation::IdentityKey;
use aggregation::log::{Book, Leaf};

use super::*;

const NOW: u64 = 1_700_000_000;

/// The log of an authority apart, with these devices.
fn authority(path: &Path, devices: &[u8]) -> KeptLog {
    let (store, key) = (Store::open(path).unwrap(), IdentityKey::from_seed(&[1; 32]));
    let log = KeptLog::open(store.clone(), key.public()).unwrap();
    for id in devices {
        let leaf = Leaf::Credential {
            device: [*id; 16],
            identity: IdentityPublic([*id; 32]),
            expires_unix_secs: NOW,
            enrolled_unix_secs: NOW,
            label: [0; 16],
            attested: [0; 32],
        };
        let (mut turn, mut batch) = (log.turn(), Batch::new());
        turn.write(&mut batch, &leaf, &key, NOW).unwrap();
        store.commit_blocking(&batch).unwrap();
        turn.kept();
    }
    log
}

fn copy(state_dir: &Path) -> KeptLog {
    let store = Store::open(&state_dir.join(STORE)).unwrap();
    KeptLog::open_copy(store, IdentityKey::from_seed(&[1; 32]).public()).unwrap()
}

#[test]
fn a_log_that_is_forgotten_is_read_anew_and_who_was_shut_out_is_told_once_more() {
    let root = tempfile::tempdir().unwrap();
    let state_dir = root.path().join("home");
    let lost = authority(&root.path().join("lost"), &[1, 2, 3]);
    let restored = authority(&root.path().join("restored"), &[1, 9, 8, 7]);
    {
        let store = Store::open(&state_dir.join(STORE)).unwrap();
        let mut batch = Batch::new();
        batch.put(enroller::TREE, enroller::KEY, &Digest([1; 32])).unwrap();
        batch.put(enroller::TREE, elsewhere::READ, &7_u64).unwrap();
        for id in [1, 2] {
            let record = DeviceRecord::new("anna".into(), IdentityPublic([id; 32]), NOW, NOW);
            records::insert_device(&mut batch, DeviceId([id; 16]), &record).unwrap();
        }
        store.commit_blocking(&batch).unwrap();
        records::revoke(&store, DeviceId([2; 16]), Batch::new()).unwrap();
    }
    let part = lost.part(0).unwrap();
    copy(&state_dir).follow(&part.entries, &part.head).unwrap();
    assert!(check(&state_dir).unwrap().faults.is_empty());
    assert_eq!(forget_log(&StoreKeys::default(), &state_dir).unwrap(), 3);
    assert!(check(&state_dir).unwrap().faults.is_empty());
    {
        let store = Store::open(&state_dir.join(STORE)).unwrap();
        assert_eq!(store.get::<u64>(enroller::TREE, elsewhere::READ).unwrap(), None);
        assert_eq!(store.get::<bool>(elsewhere::UNREPORTED, [2; 16]).unwrap(), Some(true));
        assert_eq!(store.get::<bool>(elsewhere::UNREPORTED, [1; 16]).unwrap(), None);
    }
    let again = copy(&state_dir);
    let part = restored.part(again.log().look(Book::size)).unwrap();
    again.follow(&part.entries, &part.head).unwrap();
    drop(again);
    assert_eq!(copy(&state_dir).log().look(Book::size), 4);
    assert!(check(&state_dir).unwrap().faults.is_empty());
}

#[test]
fn a_coordinator_that_keeps_the_log_itself_forgets_nothing() {
    let root = tempfile::tempdir().unwrap();
    drop(authority(&root.path().join(STORE), &[1]));
    let error = forget_log(&StoreKeys::default(), root.path()).unwrap_err();
    assert!(matches!(error, ForgetError::Own(_)), "{error}");
    assert_eq!(copy(root.path()).log().look(Book::size), 1);
}

/// The judgment is that of a start.
#[test]
fn entries_beyond_the_head_are_a_fault_of_a_log_and_none_of_a_copy() {
    let root = tempfile::tempdir().unwrap();
    drop(authority(&root.path().join(STORE), &[1]));
    let leaf = Leaf::Revocation { device: [1; 16], unix_secs: NOW };
    let change = |change: &dyn Fn(&mut Batch)| {
        let store = Store::open(&root.path().join(STORE)).unwrap();
        let mut batch = Batch::new();
        change(&mut batch);
        store.commit_blocking(&batch).unwrap();
    };
    change(&|batch| {
        batch.put(kept_log::ENTRIES, Key::default().and_u64(1), &hex::encode(leaf.to_bytes())).unwrap();
    });
    let store = Store::open(&root.path().join(STORE)).unwrap();
    assert!(KeptLog::open(store, IdentityKey::from_seed(&[1; 32]).public()).is_err());
    assert_eq!(check(root.path()).unwrap().faults.len(), 1);
    change(&|batch| {
        batch.put(enroller::TREE, enroller::KEY, &Digest([1; 32])).unwrap();
    });
    assert_eq!(copy(root.path()).log().look(Book::size), 1);
    assert_eq!(check(root.path()).unwrap().faults, Vec::<String>::new());
}

/// Trees that the coordinator's own code writes, by their names in it.
fn trees() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["src", "authority/src/kept_log.rs", "authority/src/tokens.rs"] {
        rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let value = |text: &str, name: &str| {
        let (_, after) = text.split_once(&format!("const {name}: &str = \""))?;
        Some(after.split('"').next()?.to_owned())
    };
    let mut trees = BTreeSet::new();
    for text in &texts {
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in ["batch.put(", "batch.insert(", "batch.replace(", "also.put(", "also.insert("] {
            for after in text.split(call).skip(1) {
                let first = after.split(',').next().unwrap().trim();
                let name = first.rsplit("::").next().unwrap();
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                    continue;
                }
                let here = value(text, name).filter(|_| !first.contains("::"));
                let tree = here.or_else(|| texts.iter().find_map(|text| value(text, name)));
                trees.insert(tree.unwrap_or_else(|| panic!("no tree is called {first}")));
            }
        }
    }
    trees
}

fn rust_files(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
    } else {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs")
            {
                rust_files(&path, files);
            }
        }
    }
}

#[test]
fn every_tree_that_is_written_is_known_when_it_is_checked() {
    let trees = trees();
    for known in
        ["devices", "authority", "revoked by the authority", "revoked and not reported", "enrollment head"]
    {
        assert!(trees.contains(known), "{known} is not among {trees:?}");
    }
    let mut report = Report::default();
    for name in &trees {
        look(name, &[0; 16], Some(b"7"), &mut report, &mut BTreeSet::new());
    }
    assert_eq!(report.unknown_trees, []);
}
