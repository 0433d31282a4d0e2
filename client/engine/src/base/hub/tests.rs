//! Fetching from a hub on this machine, which speaks as much of the protocol as the client does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::base::{Base, BaseOptions, Source};

mod bounds;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server sends a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Whole,
    /// Half of what is announced, then nothing.
    Half,
    /// The file from its beginning, as if that had been asked for.
    FromTheBeginning,
    /// The whole file, whatever was asked for.
    NoRanges,
    /// Half of what is announced, and then nothing for as long as the client waits.
    Stalls,
    /// Other bytes.
    Changed,
}

/// What the listing says of how long files are.
#[derive(Clone, Copy)]
enum Size {
    Told,
    Untold,
    Of(u64),
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    manner: Manner,
    listed: Size,
    /// Where large files are, if not here.
    stored_at: Option<String>,
    /// Paths, with the range where one was asked for.
    asked: Vec<String>,
    /// What it was shown to be let in.
    authorized: Vec<String>,
    /// Connections that are held open.
    held: Vec<TcpStream>,
}

/// A hub with one repository, `o/n`.
#[derive(Clone)]
struct Server {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            files,
            manner: Manner::Whole,
            listed: Size::Told,
            stored_at: None,
            asked: Vec::new(),
            held: Vec::new(),
            authorized: Vec::new(),
        }));
        let server = Self { endpoint, state };
        let answering = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answering.answer(stream.unwrap());
            }
        });
        server
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let range = headers.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("range").then(|| value.trim_start_matches("bytes=").to_owned())
        });
        let authorized = headers.iter().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        self.state.lock().unwrap().authorized.extend(authorized);
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut state = self.state.lock().unwrap();
        state.asked.push(format!("{path} {}", range.clone().unwrap_or_default()).trim_end().to_owned());
        let answer = self.respond(&state, &path, range.as_deref());
        // A client that has gone away is its own business.
        drop(stream.write_all(&answer));
        if state.manner == Manner::Stalls {
            state.held.push(stream);
        }
    }

    fn respond(&self, state: &State, path: &str, range: Option<&str>) -> Vec<u8> {
        let said = |status: &str, headers: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
            [head.as_bytes(), body].concat()
        };
        if path == "/api/models/o/n/revision/main?blobs=true" {
            let files = state.files.iter().map(|(name, bytes)| {
                let sha256 = hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes));
                let blob = blob_id(bytes);
                let lfs = name.ends_with(".safetensors").then(|| serde_json::json!({"sha256": sha256}));
                let size = match state.listed {
                    Size::Told => Some(bytes.len() as u64),
                    Size::Untold => None,
                    Size::Of(size) => Some(size),
                };
                serde_json::json!({"rfilename": name, "size": size, "blobId": blob, "lfs": lfs})
            });
            let body = serde_json::json!({"sha": SHA, "siblings": files.collect::<Vec<_>>()}).to_string();
            return said("200 OK", &format!("Content-Length: {}\r\n", body.len()), body.as_bytes());
        }
        if path.starts_with("/circle/") {
            return said("302 Found", &format!("Location: {path}\r\nContent-Length: 0\r\n"), b"");
        }
        let file = path.strip_prefix(&format!("/o/n/resolve/{SHA}/"));
        let stored = path.strip_prefix("/stored/");
        let Some((name, bytes)) = file.or(stored).and_then(|name| state.files.get_key_value(name)) else {
            return said("404 Not Found", "Content-Length: 0\r\n", b"");
        };
        let etag = if name.ends_with(".safetensors") {
            hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
        } else {
            blob_id(bytes)
        };
        if file.is_some() && name.ends_with(".safetensors") {
            // Large files are elsewhere.
            let headers = format!(
                "Location: {}/stored/{name}\r\nX-Repo-Commit: {SHA}\r\nX-Linked-Etag: \"{etag}\"\r\nContent-Length: 0\r\n",
                state.stored_at.as_ref().unwrap_or(&self.endpoint)
            );
            return said("302 Found", &headers, b"");
        }
        let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let (from, to): (usize, usize) =
            (from.parse().unwrap(), to.parse().map_or(bytes.len(), |to: usize| to + 1));
        let sent_from = match state.manner {
            Manner::FromTheBeginning | Manner::NoRanges => 0,
            Manner::Whole | Manner::Half | Manner::Stalls | Manner::Changed => from,
        };
        let mut body = bytes[sent_from..to.min(bytes.len())].to_vec();
        let (len, single) = (body.len(), body.len() <= 1);
        match state.manner {
            Manner::Half | Manner::Stalls if !single => body.truncate(len / 2),
            Manner::Changed => body.iter_mut().for_each(|byte| *byte ^= 1),
            Manner::Whole | Manner::Half | Manner::Stalls | Manner::FromTheBeginning | Manner::NoRanges => {}
        }
        if state.manner == Manner::NoRanges {
            let headers = format!("ETag: \"{etag}\"\r\nContent-Length: {len}\r\n");
            return said("200 OK", &headers, &body);
        }
        let headers = format!(
            "Content-Range: bytes {from}-{}/{}\r\nX-Repo-Commit: {SHA}\r\nETag: \"{etag}\"\r\nContent-Length: {len}\r\n",
            to - 1,
            bytes.len()
        );
        said("206 Partial Content", &headers, &body)
    }

    fn sends(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

/// What git calls the content of a file.
fn blob_id(bytes: &[u8]) -> String {
    let whole = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex::encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &whole))
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// The files of a family's folder, and some that no base needs.
fn folder(name: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(reference().join("families").join(name)).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    });
    let more =
        ["README.md", "pytorch_model.bin", "onnx/model.onnx"].map(|name| (name.to_owned(), b"no".to_vec()));
    files.chain(more).collect()
}

fn fetch(hub: &Hub, text: &str) -> Result<PathBuf, FetchError> {
    Base::fetch(&text.parse::<Source>().unwrap(), hub, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn a_base_of_the_hub_is_the_base_of_its_folder_and_is_fetched_once() {
    let (server, cache) = (Server::new(folder("qwen3")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().join("hub"));
    let mut heard = Vec::new();
    let source: Source = "hf:o/n".parse().unwrap();
    let path = Base::fetch(&source, &hub, &mut |fetching| {
        heard.push(fetching);
        ControlFlow::Continue(())
    })
    .unwrap();
    let base = Base::open(&path).unwrap();
    assert_eq!(base.digest(), Base::open(&reference().join("families/qwen3")).unwrap().digest());
    assert!(Base::needed_bytes(&path, BaseOptions::default()).unwrap() > 0);
    let asked = server.asked();
    assert!(
        asked.iter().all(|path| !path.contains("README") && !path.contains("bin") && !path.contains("onnx"))
    );
    assert!(asked.iter().any(|path| path.starts_with("/stored/model-00002-of-00002.safetensors")));
    let whole = heard.iter().filter(|fetching| fetching.bytes == fetching.of_bytes).count();
    assert!(whole >= 6 && heard.iter().all(|fetching| fetching.bytes <= fetching.of_bytes), "{heard:?}");
    assert_eq!(fetch(&hub, "hf:o/n").unwrap(), path);
    assert_eq!(server.asked(), ["/api/models/o/n/revision/main?blobs=true"]);
}

#[test]
fn without_a_network_a_fetched_base_is_still_there_and_another_is_not() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let path = fetch(&Hub::new(&server.endpoint, cache.path().into()), "hf:o/n").unwrap();
    // A port that nobody listens to.
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let offline = Hub::new(&nobody, cache.path().into());
    assert_eq!(fetch(&offline, "hf:o/n").unwrap(), path);
    for other in ["hf:o/other", "hf:o/n@v2", "hf:o/n/x.gguf"] {
        let error = fetch(&offline, other).unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(&nobody) && said.contains("go online, or name a folder or a GGUF file"),
            "{said}"
        );
    }
}

#[test]
fn what_is_not_there_is_said_once_and_by_name() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    assert_eq!(
        fetch(&hub, "hf:o/missing").unwrap_err().to_string(),
        format!(
            "there is no `hf:o/missing@main` at {}, or it is not open to you (HTTP status 404)",
            server.endpoint
        )
    );
    assert_eq!(
        fetch(&hub, "hf:o/n/x.gguf").unwrap_err().to_string(),
        "`hf:o/n/x.gguf@main` is no base: it has no x.gguf"
    );
    server.state.lock().unwrap().files.remove("tokenizer.json");
    assert_eq!(
        fetch(&hub, "hf:o/n").unwrap_err().to_string(),
        "`hf:o/n@main` is no base: it has no tokenizer.json"
    );
    server.state.lock().unwrap().files.remove("config.json");
    assert_eq!(
        fetch(&hub, "hf:o/n").unwrap_err().to_string(),
        "`hf:o/n@main` is no base: it has neither config.json nor a GGUF file"
    );
}

#[test]
fn an_interrupted_fetch_leaves_no_half_file_and_goes_on() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    server.sends(Manner::Half);
    let error = fetch(&hub, "hf:o/n").unwrap_err();
    assert!(matches!(error, FetchError::Interrupted { .. }), "{error}");
    assert!(error.to_string().contains("`config.json` of `hf:o/n@main`"), "{error}");
    let nobody = Hub::new("http://127.0.0.1:1", cache.path().into());
    assert!(matches!(fetch(&nobody, "hf:o/n").unwrap_err(), FetchError::Unreachable { .. }));
    server.sends(Manner::Whole);
    server.asked();
    let path = fetch(&hub, "hf:o/n").unwrap();
    let resumed = server.state.lock().unwrap().files["config.json"].len() / 2;
    assert!(server.asked().contains(&format!("/o/n/resolve/{SHA}/config.json {resumed}-")));
    let expected = Base::open(&reference().join("families/smollm2")).unwrap().digest();
    assert_eq!(Base::open(&path).unwrap().digest(), expected);
}

#[test]
fn other_bytes_than_announced_are_not_kept() {
    for manner in [Manner::Changed, Manner::FromTheBeginning] {
        let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
        let hub = Hub::new(&server.endpoint, cache.path().into());
        let size = server.state.lock().unwrap().files["model.safetensors"].len();
        if manner == Manner::FromTheBeginning {
            // Half of every file is there, and the rest comes from the beginning.
            server.sends(Manner::Half);
            fetch(&hub, "hf:o/n").unwrap_err();
        }
        server.sends(manner);
        let error = fetch(&hub, "hf:o/n").unwrap_err();
        let FetchError::Damaged { file, reason, .. } = &error else { panic!("{error}") };
        match manner {
            Manner::Changed => assert!(file == "config.json" && reason.contains("git blob"), "{error}"),
            Manner::FromTheBeginning => assert!(reason.contains(" bytes instead of "), "{error}"),
            Manner::Whole | Manner::Half | Manner::Stalls | Manner::NoRanges => {}
        }
        server.sends(Manner::Whole);
        if manner == Manner::FromTheBeginning {
            let path = fetch(&hub, "hf:o/n").unwrap();
            assert_eq!(path.join("model.safetensors").metadata().unwrap().len(), size as u64);
        } else {
            let path = fetch(&hub, "hf:o/n").unwrap().join("model.safetensors");
            assert_eq!(fs::read(path).unwrap(), server.state.lock().unwrap().files["model.safetensors"]);
        }
    }
}

#[test]
fn a_gguf_file_of_the_hub_is_found_or_named() {
    let bytes = fs::read(reference().join("gguf/q4_0.gguf")).unwrap();
    let one = BTreeMap::from([("q4_0.gguf".to_owned(), bytes.clone())]);
    let (server, cache) = (Server::new(one), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    let path = fetch(&hub, "hf:o/n").unwrap();
    assert!(path.ends_with("q4_0.gguf"));
    Base::open(&path).unwrap();
    let nobody = Hub::new("http://127.0.0.1:1", cache.path().into());
    assert_eq!(fetch(&nobody, "hf:o/n").unwrap(), path);
    assert_eq!(fetch(&nobody, "hf:o/n/q4_0.gguf").unwrap(), path);
    server.state.lock().unwrap().files.insert("q8_0.gguf".to_owned(), bytes);
    let error = fetch(&hub, "hf:o/n").unwrap_err().to_string();
    assert!(
        error.ends_with("it has 2 GGUF files; name the one you want, such as hf:o/n/q4_0.gguf"),
        "{error}"
    );
    assert!(fetch(&hub, "hf:o/n/q8_0.gguf").is_ok());
}

#[test]
fn a_server_that_is_no_hub_is_one_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut first = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut first).unwrap();
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"));
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&Hub::new(&endpoint, cache.path().into()), "hf:o/n").unwrap_err();
    assert!(matches!(error, FetchError::Answer { .. }), "{error}");
    assert!(error.to_string().contains("its list of files cannot be read"), "{error}");
}

#[test]
fn a_hub_that_cannot_go_on_from_the_middle_begins_again() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.endpoint, cache.path().into());
    server.sends(Manner::Half);
    fetch(&hub, "hf:o/n").unwrap_err();
    server.sends(Manner::NoRanges);
    let path = fetch(&hub, "hf:o/n").unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(fs::read(path.join(file)).unwrap(), server.state.lock().unwrap().files[file]);
    }
}

#[test]
fn a_server_that_takes_a_connection_and_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let held: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
        drop(held);
    });
    let cache = tempfile::tempdir().unwrap();
    let patience = Patience { connection: Duration::from_millis(300), silence: Duration::from_millis(250) };
    for (endpoint, waited_for) in [
        (format!("http://{address}"), "(it was silent for 250ms when asked for its list of files)"),
        // A connection is there when its other end has shown who it is.
        (format!("https://{address}"), "ms when asked for its list of files)"),
    ] {
        let hub = Hub::new(&endpoint, cache.path().into()).with_patience(patience);
        let error = fetch(&hub, "hf:o/n").unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(waited_for) && said.contains(&endpoint) && said.contains("`hf:o/n@main`"),
            "{said}"
        );
    }
}

#[test]
fn a_hub_that_falls_silent_in_the_middle_of_a_file_is_named_and_the_fetch_goes_on_later() {
    let (server, cache) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let patience = Patience { silence: Duration::from_secs(1), ..Patience::default() };
    let hub = Hub::new(&server.endpoint, cache.path().into()).with_patience(patience);
    server.sends(Manner::Stalls);
    let error = fetch(&hub, "hf:o/n").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the fetch of `config.json` of `hf:o/n@main` from {} was interrupted (it was silent for 1s); fetch it \
             again, and it goes on from there",
            server.endpoint
        )
    );
    server.sends(Manner::Whole);
    server.asked();
    let path = fetch(&hub, "hf:o/n").unwrap();
    let resumed = server.state.lock().unwrap().files["config.json"].len() / 2;
    assert!(server.asked().contains(&format!("/o/n/resolve/{SHA}/config.json {resumed}-")));
    Base::open(&path).unwrap();
}

#[test]
fn two_programs_do_not_write_one_file_and_a_user_s_token_is_sent_and_not_shown() {
    let (server, home) = (Server::new(folder("smollm2")), tempfile::tempdir().unwrap());
    let cache = home.path().join("hub");
    fs::write(home.path().join("token"), "hf_verysecret\n").unwrap();
    let hub = Hub::new(&server.endpoint, cache.clone());
    let config = blob_id(&server.state.lock().unwrap().files["config.json"]);
    let held = cache::lock(&Folder::new(&cache, "o/n").blob(&config)).unwrap().unwrap();
    let error = fetch(&hub, "hf:o/n").unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("`config.json` of `hf:o/n@main`"), "{error}");
    drop(held);
    fetch(&hub, "hf:o/n").unwrap();
    assert!(server.state.lock().unwrap().authorized.iter().all(|header| header == "Bearer hf_verysecret"));
    assert!(!server.state.lock().unwrap().authorized.is_empty());
    let requests = Requests::new("https://localhost", &cache, Patience::default());
    assert!(!format!("{requests:?} {hub:?}").contains("verysecret"));
}
