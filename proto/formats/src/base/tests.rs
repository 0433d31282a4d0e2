//! Bases of the engine's references, and hostile copies of them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// What the scripts beside the engine's tests wrote.
fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client/engine/tests/reference")
}

fn family(name: &str) -> PathBuf {
    reference().join("families").join(name)
}

fn file(name: &str) -> PathBuf {
    reference().join("gguf").join(format!("{name}.gguf"))
}

/// Opens a changed copy of a GGUF file; the error without the folder's path.
fn complaint(name: &str, delta: impl Fn(&mut Vec<u8>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let mut bytes = std::fs::read(file(name)).unwrap();
    delta(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    BaseInfo::open(&path).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
}

/// A copy of a folder.
fn copy_of(name: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(family(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn modules_come_block_by_block_in_the_order_given() {
    let dir = tempfile::tempdir().unwrap();
    write_base(dir.path());
    let base = BaseInfo::open(dir.path()).unwrap();
    let modules = base.modules(&["v".to_owned(), "q_proj".to_owned()]).unwrap();
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.q_proj"]);
    assert_eq!((modules[0].inputs, modules[0].outputs), (4, 2));
}

#[test]
fn an_unknown_target_and_a_missing_layer_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write_base(dir.path());
    let base = BaseInfo::open(dir.path()).unwrap();
    let error = base.modules(&["embed".to_owned()]).unwrap_err();
    assert!(error.to_string().starts_with("unknown target `embed`"));
    let error = base.modules(&["all".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("model.layers.0.self_attn.k_proj.weight"));
}

#[test]
fn one_other_byte_makes_another_base() {
    let dir = tempfile::tempdir().unwrap();
    write_base(dir.path());
    let before = BaseInfo::open(dir.path()).unwrap().digest();
    std::fs::write(dir.path().join("tokenizer.json"), "{ }").unwrap();
    assert_ne!(BaseInfo::open(dir.path()).unwrap().digest(), before);
}

#[test]
fn a_gguf_file_has_the_modules_of_a_folder() {
    let base = BaseInfo::open(&file("qwen3")).unwrap();
    let modules = base.modules(&["all".to_owned()]).unwrap();
    let sizes: Vec<(u32, u32)> = modules.iter().map(|module| (module.outputs, module.inputs)).collect();
    assert_eq!(sizes, [(128, 64), (64, 64), (64, 64), (64, 128), (96, 64), (96, 64), (64, 96)]);
    assert_eq!(modules[0].name, "model.layers.0.self_attn.q_proj");
}

fn write_base(dir: &Path) {
    std::fs::write(dir.join("config.json"), r#"{"num_hidden_layers": 1}"#).unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    let header = r#"{"__metadata__":{"format":"pt"},
        "model.layers.0.self_attn.q_proj.weight":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]},
        "model.layers.0.self_attn.v_proj.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[64,96]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0; 96]);
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn the_digest_is_over_the_names_lengths_and_bytes_of_the_files() {
    // By Python's hashlib.
    let expected = "be60c6502de09a998743d56cade469cd1a78a7502d70e29fb431ac7d24f34ef3";
    assert_eq!(BaseInfo::open(&reference().join("base")).unwrap().digest().to_string(), expected);
    let by_hand = |files: &[PathBuf]| {
        let mut all = b"nightshift base v1".to_vec();
        for path in files {
            let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), std::fs::read(path).unwrap());
            all.extend((name.len() as u64).to_le_bytes());
            all.extend(name.as_bytes());
            all.extend((bytes.len() as u64).to_le_bytes());
            all.extend(bytes);
        }
        hex::encode(ring::digest::digest(&ring::digest::SHA256, &all))
    };
    let sharded = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "tokenizer.json",
        "generation_config.json",
    ];
    let expected = by_hand(&sharded.map(|name| family("qwen3").join(name)));
    assert_eq!(BaseInfo::open(&family("qwen3")).unwrap().digest().to_string(), expected);
    assert_eq!(BaseInfo::open(&file("k")).unwrap().digest().to_string(), by_hand(&[file("k")]));
}

#[test]
fn a_folder_of_one_gguf_file_is_that_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(file("q4_0"), dir.path().join("q4_0.gguf")).unwrap();
    let base = BaseInfo::open(dir.path()).unwrap();
    assert_eq!(base.digest(), BaseInfo::open(&file("q4_0")).unwrap().digest());
    std::fs::copy(file("q8_0"), dir.path().join("q8_0.gguf")).unwrap();
    let complaint = |path: &Path| {
        let error = BaseInfo::open(path).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(complaint(dir.path()), "DIR has no config.json and 2 GGUF files; name the one you want");
    std::fs::write(dir.path().join("x.bin"), "x").unwrap();
    let other = complaint(&dir.path().join("x.bin"));
    assert_eq!(other, "DIR/x.bin is neither a folder nor a file that ends in .gguf");
    for missing in ["x.gguf", "x"] {
        let error = complaint(&dir.path().join(missing));
        assert!(error.starts_with(&format!("cannot read DIR/{missing}")), "{error}");
    }
}

#[test]
fn a_gguf_header_is_held_against_the_file_and_its_limits() {
    let magic = complaint("f16", |bytes| bytes[0] = b'X');
    assert_eq!(magic, "x.gguf is damaged: it does not begin with `GGUF`");
    let version = complaint("f16", |bytes| bytes[4] = 1);
    assert_eq!(version, "x.gguf is damaged: its version is 1; 2 and 3 can be read, little-endian");
    let tensors = complaint("f16", |bytes| bytes[15] = 1);
    assert!(tensors.contains("tensors, at most 65536 are read"), "{tensors}");
    let pairs = complaint("f16", |bytes| bytes[23] = 1);
    assert!(pairs.starts_with("x.gguf is damaged: "), "{pairs}");
    let length = complaint("f16", |bytes| bytes[31] = 1);
    assert!(length.contains("its header has more than 67108864 bytes"), "{length}");
    let short = complaint("f16", |bytes| bytes.truncate(3000));
    assert!(short.contains("end within the header") || short.contains("would have"), "{short}");
    let cut = complaint("f16", |bytes| bytes.truncate(bytes.len() - 1));
    assert!(cut.contains("does not fit the file's"), "{cut}");
    let keys = complaint("f16", |bytes| bytes[17] = 0x20);
    assert!(keys.contains("keys, at most 4096 are read"), "{keys}");
}

/// A GGUF file of a header alone, with these counts of tensors and of pairs, and what comes after them.
fn header(tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    let counts = [tensors, pairs].map(u64::to_le_bytes).concat();
    [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &counts, &rest.concat()].concat()
}

/// A text with its length in front.
fn text(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

#[test]
fn what_a_gguf_header_says_twice_or_of_too_much_is_refused() {
    let number = |number: u32| number.to_le_bytes();
    let count = |count: u64| count.to_le_bytes();
    let key = text("general.alignment");
    // A value of type 4 is 32 bits; 9 is a list, of which the type (8 is text) and the count follow.
    let pair = |value: u32| [key.as_slice(), &number(4), &number(value)].concat();
    let list = |kind: u32, len: u64| [key.as_slice(), &number(9), &number(kind), &count(len)].concat();
    let empty_texts = vec![0; 8 * ((1 << 21) + 1)];
    // A tensor: its name, the number of dimensions, these, its type (8 is Q8_0) and its position.
    let tensor = |sizes: &[u64], kind: u32, start: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let rank = number(u32::try_from(sizes.len() / 8).unwrap());
        [text("t").as_slice(), &rank, &sizes, &number(kind), &count(start)].concat()
    };
    for (bytes, expected) in [
        (header(0, 2, &[&pair(32), &pair(64)]), "it has the key `general.alignment` twice"),
        (header(0, 1, &[&pair(0)]), "its alignment is 0"),
        (
            header(0, 1, &[&list(8, (1 << 21) + 1), &empty_texts]),
            "its list `general.alignment` has 2097153 texts, at most 2097152 are read",
        ),
        (
            header(0, 1, &[&list(4, 1 << 62)]),
            "its list `general.alignment` would have 4611686018427387904 values",
        ),
        (header(0, 1, &[&list(9, 1)]), "`general.alignment` is a list of the unknown type 9"),
        (header(0, 1, &[&key, &number(13)]), "the value of `general.alignment` is of the unknown type 13"),
        (header(0, 1, &[&count(1), b"\xff"]), "a text in its header (a key) is not UTF-8"),
        (header(1, 0, &[&tensor(&[1; 5], 0, 0)]), "its tensor `t` would have 5 dimensions"),
        (header(2, 0, &[&tensor(&[0], 0, 0), &tensor(&[0], 0, 0)]), "it has the tensor `t` twice"),
        // Half a block, more numbers than 64 bits count, and an end beyond the last byte.
        (header(1, 0, &[&tensor(&[16], 8, 0), &[0; 99]]), "its tensor `t` of [16] does not fit the file's"),
        (header(1, 0, &[&tensor(&[1 << 40, 1 << 40], 0, 0)]), "does not fit the file's"),
        (header(1, 0, &[&tensor(&[1], 0, u64::MAX)]), "its tensor `t` of [1] does not fit the file's"),
    ] {
        let found = complaint("f16", |file| file.clone_from(&bytes));
        assert!(found.starts_with("x.gguf is damaged: ") && found.contains(expected), "{found}");
    }
    let wrong = complaint("f16", |file| *file = header(0, 1, &[&key, &number(8), &text("32")]));
    assert_eq!(wrong, "x.gguf: `general.alignment` is not a whole number");
    let none = complaint("f16", |file| *file = header(0, 0, &[&[0; 8]]));
    assert_eq!(none, "x.gguf: `general.architecture` is missing");
}

#[test]
fn an_index_names_files_of_its_folder_only() {
    let dir = copy_of("qwen3");
    let index = dir.path().join("model.safetensors.index.json");
    for name in ["../secret.safetensors", "/secret.safetensors", "a/b.safetensors", "..", ""] {
        let weights = serde_json::json!({ "weight_map": { "model.norm.weight": name } });
        std::fs::write(&index, weights.to_string()).unwrap();
        let error = BaseInfo::open(dir.path()).unwrap_err().to_string();
        let expected = format!("is damaged: `{name}` is not the name of a file in this folder");
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_cut_or_absurd_file_of_weights_is_refused() {
    let delta = |delta: &dyn Fn(&mut Vec<u8>)| {
        let dir = copy_of("smollm2");
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        delta(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        BaseInfo::open(dir.path()).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let whole = std::fs::metadata(family("smollm2").join("model.safetensors")).unwrap().len();
    let cut = delta(&|bytes| bytes.truncate(bytes.len() - 2));
    assert!(cut.starts_with("model.safetensors is damaged: its tensors have "), "{cut}");
    let longer = delta(&|bytes| bytes.push(0));
    assert!(longer.starts_with("model.safetensors is damaged: its tensors have "), "{longer}");
    let absurd = delta(&|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert!(
        absurd.contains("its header would have 18446744073709551615 bytes, 16777216 at most"),
        "{absurd}"
    );
    let header = delta(&|bytes| bytes[..8].copy_from_slice(&9_000_000_u64.to_le_bytes()));
    assert_eq!(header, format!("model.safetensors is damaged: its {whole} bytes end within the header"));
    assert!(delta(&|bytes| bytes.truncate(5)).contains("its 5 bytes end within the header"));
}

#[cfg(unix)]
#[test]
fn a_pipe_a_socket_or_a_device_is_no_file_of_a_base() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    // To read any of these is to wait for ever.
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "generation_config.json",
    ] {
        let dir = copy_of("smollm2");
        let path = dir.path().join(name);
        std::fs::remove_file(&path).ok();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let pipe = BaseInfo::open(dir.path()).unwrap_err().to_string();
        assert_eq!(
            pipe,
            format!("cannot read {}: it is a named pipe, and not a regular file", path.display())
        );
    }
    let dir = copy_of("smollm2");
    let path = dir.path().join("tokenizer.json");
    let kept = dir.path().join("kept");
    std::fs::rename(&path, &kept).unwrap();
    let socket = UnixListener::bind(&path).unwrap();
    assert!(
        BaseInfo::open(dir.path())
            .unwrap_err()
            .to_string()
            .ends_with("it is a socket, and not a regular file")
    );
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    assert!(
        BaseInfo::open(dir.path())
            .unwrap_err()
            .to_string()
            .ends_with("it is a device, and not a regular file")
    );
    std::fs::remove_file(&path).unwrap();
    // As a hub's cache has its files.
    symlink(&kept, &path).unwrap();
    BaseInfo::open(dir.path()).unwrap();
    let gguf = dir.path().join("x.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&gguf).status().unwrap().success());
    assert!(
        BaseInfo::open(&gguf)
            .unwrap_err()
            .to_string()
            .ends_with("it is a named pipe, and not a regular file")
    );
    std::fs::write(dir.path().join("config.json"), " ".repeat(2 << 20)).unwrap();
    let large = BaseInfo::open(dir.path()).unwrap_err().to_string();
    assert!(large.contains("config.json: it has more than 1048576 bytes"), "{large}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_gguf_headers_open_or_are_refused(
        which in 0..3_usize,
        deltas in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(file(["k", "q4_0", "qwen3"][which])).unwrap();
        for (at, byte) in deltas {
            // The header is the first few kilobytes.
            let at = at.index(bytes.len().min(12_000));
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(base) = BaseInfo::open(&path) {
            drop(base.modules(&["all".to_owned()]));
        }
    }
}
