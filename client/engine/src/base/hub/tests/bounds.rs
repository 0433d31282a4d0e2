//! What a hub may make a device do: how much is written, who sees the token, where an answer leads.

use super::*;

#[test]
fn other_weights_than_announced_are_not_kept() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    fetch(&hub, "hf:o/n").unwrap();
    let weights = cache.path().join(format!("models--o--n/snapshots/{SHA}/model.safetensors"));
    fs::remove_file(weights.canonicalize().unwrap()).unwrap();
    server.sends(Manner::Changed);
    let error = fetch(&hub, "hf:o/n").unwrap_err();
    assert!(
        error.to_string().contains("`model.safetensors`") && error.to_string().contains("SHA-256"),
        "{error}"
    );
    assert!(!weights.exists());
}

#[test]
fn a_token_goes_to_no_other_port_and_over_no_open_connection() {
    let (server, home) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let on_candle = Server::new(folder("smollm2"));
    server.state.lock().unwrap().stored_at = Some(on_candle.endpoint.clone());
    let cache = home.path().join("hub");
    fs::write(home.path().join("token"), "hf_verysecret\n").unwrap();
    fetch(&Hub::new(&server.endpoint, cache.clone()), "hf:o/n").unwrap();
    assert!(!server.state.lock().unwrap().authorized.is_empty());
    assert!(on_candle.asked().iter().any(|path| path.starts_with("/stored/model.safetensors")));
    assert_eq!(on_candle.state.lock().unwrap().authorized, Vec::<String>::new());
    // The same host under a name that is not known to be this machine.
    let shown = |endpoint: &str| {
        let origin = endpoint.parse().ok().and_then(|uri| requests::Origin::of(&uri)).unwrap();
        origin.is_private()
    };
    for (endpoint, private) in [
        ("http://hub.example", false),
        ("http://192.168.0.1:8080", false),
        ("http://127.0.0.1.example", false),
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://localhost", true),
        ("https://hub.example", true),
    ] {
        assert_eq!(shown(endpoint), private, "{endpoint}");
    }
}

#[test]
fn an_answer_that_leads_in_a_circle_is_one_error() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    server.state.lock().unwrap().stored_at = Some(format!("{}/circle", server.endpoint));
    let error = fetch(&Hub::new(&server.endpoint, cache.path().into()), "hf:o/n").unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert_eq!(server.asked().iter().filter(|path| path.starts_with("/circle/")).count(), 9);
}

#[test]
fn a_file_is_no_larger_than_its_kind_whatever_the_listing_says() {
    let files = || {
        let mut files = folder("smollm2");
        files.insert("config.json".to_owned(), vec![b' '; 3 << 20]);
        files
    };
    for listed in [Size::Told, Size::Untold, Size::Of(3000 << 20)] {
        let (server, cache) = (Server::new(files()), tempfile::tempdir().unwrap());
        server.state.lock().unwrap().listed = listed;
        let error = fetch(&Hub::new(&server.endpoint, cache.path().into()), "hf:o/n").unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("`config.json` of `hf:o/n@main` has ") && said.contains("1048576"), "{said}");
        assert_eq!(bytes_below(cache.path()), 0, "{said}");
    }
}

#[test]
fn an_answer_of_no_announced_length_is_cut_off() {
    // More and more of it, for as long as anybody reads.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut first = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut first).unwrap();
            if first.contains("/api/models/") {
                let body =
                    serde_json::json!({"sha": SHA, "siblings": [{"rfilename": "config.json"}]}).to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                drop(stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()));
                continue;
            }
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
            while stream.write_all(&[b' '; 1 << 14]).is_ok() {}
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&Hub::new(&endpoint, cache.path().into()), "hf:o/n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`config.json` of `hf:o/n@main` has more than 1048576 bytes, at most 1048576 bytes are fetched of such a file; \
         this is no base to use"
    );
    assert_eq!(bytes_below(cache.path()), 0);
}

#[test]
fn files_are_fetched_where_the_listing_says_no_size() {
    let (server, cache) = (Server::new(folder("qwen3")), tempfile::tempdir().unwrap());
    server.state.lock().unwrap().listed = Size::Untold;
    let hub = Hub::new(&server.endpoint, cache.path().into());
    let path = fetch(&hub, "hf:o/n").unwrap();
    let expected = Base::open(&reference().join("families/qwen3")).unwrap().digest();
    assert_eq!(Base::open(&path).unwrap().digest(), expected);
    server.asked();
    assert_eq!(fetch(&hub, "hf:o/n").unwrap(), path);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_file_for_which_the_disk_has_no_room_is_not_begun() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    fetch(&hub, "hf:o/n").unwrap();
    let weights = cache.path().join(format!("models--o--n/snapshots/{SHA}/model.safetensors"));
    fs::remove_file(weights.canonicalize().unwrap()).unwrap();
    let before = bytes_below(cache.path());
    // Above a disk of any machine that runs this, and below what is fetched of weights.
    server.state.lock().unwrap().listed = Size::Of((1 << 40) - 1);
    for name in ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"] {
        server.state.lock().unwrap().files.remove(name);
    }
    server.state.lock().unwrap().files.insert("big.gguf".to_owned(), b"GGUF".to_vec());
    let error = fetch(&hub, "hf:o/n/big.gguf").unwrap_err();
    let FetchError::NoRoom { needed, available, .. } = error else { panic!("{error}") };
    assert!(needed == (1 << 40) - 1 && available < needed);
    assert_eq!(bytes_below(cache.path()), before);
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let size = |path: PathBuf| {
        if path.is_dir() { bytes_below(&path) } else { path.metadata().map_or(0, |m| m.len()) }
    };
    entries.map(size).sum()
}
