#![expect(
    clippy::disallowed_methods,
    reason = "witnesses are served here, and it is measured how long they are waited for"
)]

use std::collections::BTreeMap;

use aggregation::IdentityKey;
use aggregation::log::Leaf;
use http::{Method, StatusCode};
use serving::plain::{self, Answer, Asked, Bounds, respond, text};
use shell::store::{Batch, Store};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::witness::{self, Witnessing};

const NOW: u64 = 1_800_000_000;

fn authority() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

/// A log in a folder of its own, with so many entries.
struct Log {
    folder: tempfile::TempDir,
    store: Store,
    kept: Arc<KeptLog>,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let kept = Arc::new(KeptLog::open(store.clone(), authority().public()).unwrap());
        Self { folder, store, kept }
    }

    fn add(&self, id: u8) {
        let (mut turn, mut batch) = (self.kept.turn(), Batch::new());
        let leaf = Leaf::Revocation { device: [id; 16], unix_secs: NOW };
        turn.write(&mut batch, &leaf, &authority(), NOW + u64::from(id)).unwrap();
        self.store.commit_blocking(&batch).unwrap();
        turn.kept();
    }

    fn head(&self) -> SignedHead {
        self.kept.log().look(|book| book.head().cloned()).unwrap()
    }

    fn again(self) -> Self {
        let Self { folder, store, kept } = self;
        drop((store, kept));
        let store = Store::open(folder.path()).unwrap();
        let kept = Arc::new(KeptLog::open(store.clone(), authority().public()).unwrap());
        Self { folder, store, kept }
    }
}

/// Somebody who answers as a closure says.
async fn answering<F>(answer: F) -> (String, DropGuard)
where
    F: Fn(Asked) -> Answer + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prefix/", listener.local_addr().unwrap());
    let bounds = Bounds {
        connections: 8,
        head: Duration::from_secs(5),
        connection: Duration::from_secs(20),
        body_bytes: 64 << 10,
    };
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let answered = move |asked| {
        let answer = answer(asked);
        async move { answer }
    };
    tokio::spawn(plain::serve(listener, bounds, stop, answered));
    (url, guard)
}

/// A witness of our own.
struct Own {
    folder: tempfile::TempDir,
    witness: Witness,
    url: String,
    stop: CancellationToken,
}

impl Own {
    async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let witness = witness::init(folder.path(), name).unwrap();
        let mut own = Self { folder, witness, url: String::new(), stop: CancellationToken::new() };
        own.serve().await;
        own
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.url = format!("http://{}", listener.local_addr().unwrap());
        self.stop = CancellationToken::new();
        let logs = vec![log_key(&authority().public())];
        let witnessing = Arc::new(Witnessing::open(self.folder.path(), logs).unwrap());
        tokio::spawn(witnessing.serve(listener, self.stop.clone()));
    }

    fn keys(&self) -> WitnessKeys {
        keys(&self.witness, &self.url)
    }
}

fn keys(witness: &Witness, url: &str) -> WitnessKeys {
    WitnessKeys { key: witness.clone(), url: url.to_owned(), ca: PathBuf::new(), timeout_secs: 1 }
}

fn stranger(seed: u8) -> Witness {
    Witness::new(&format!("stranger{seed}"), IdentityKey::from_seed(&[seed; 32]).public()).unwrap()
}

fn witnesses(log: &Log, keys: &[WitnessKeys], least: u32) -> Arc<Witnesses> {
    check(keys, least).unwrap();
    Arc::new(Witnesses::open(keys, least, (&authority().public(), &log.kept)).unwrap())
}

/// What is wrong with each, by its name.
fn troubles(witnesses: &Witnesses, log: &Log) -> BTreeMap<String, String> {
    let status = witnesses.status(&log.kept, NOW);
    status.witnesses.into_iter().filter_map(|witness| Some((witness.name, witness.trouble?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_signed_by_those_who_answer_and_kept_with_what_they_signed() {
    let log = Log::new();
    let (one, two) = (Own::new("one").await, Own::new("two").await);
    // Nobody listens there.
    let away = keys(&stranger(9), "http://127.0.0.1:1");
    let all = [one.keys(), two.keys(), away];
    let asking = witnesses(&log, &all, 2);
    asking.ask(&log.kept).await;
    assert!(log.kept.log().published().is_none(), "there is no head yet");
    for id in 1..=3 {
        log.add(id);
    }
    assert_eq!(log.kept.log().published().unwrap().seen_by(&asking.keys()), 0, "nobody waits for witnesses");
    asking.ask(&log.kept).await;
    let published = log.kept.log().published().unwrap();
    assert_eq!((published.head().size, published.seen_by(&asking.keys())), (3, 2));
    assert_eq!(log.head().to_string(), published.to_string());
    let status = asking.status(&log.kept, NOW);
    assert_eq!((status.size, status.rounds_size, status.least_witnesses), (3, 3, 2));
    assert_eq!(status.witnesses.iter().map(|witness| witness.signed_size).collect::<Vec<_>>(), [3, 3, 0]);
    let why = &troubles(&asking, &log)["stranger9"];
    assert!(why.contains("cannot be reached"), "{why}");

    // Until enough have signed a later one, rounds are about this one.
    log.add(4);
    assert_eq!(log.kept.log().published().unwrap().head().size, 3);
    let log = log.again();
    let asking = witnesses(&log, &all, 2);
    assert_eq!(log.kept.log().published().unwrap().to_string(), published.to_string());
    asking.ask(&log.kept).await;
    assert_eq!(log.kept.log().published().unwrap().head().size, 4);
    // Both saw more than a witness that begins anew is thought to have seen: it says so, and is shown the rest.
    log.add(5);
    let log = log.again();
    let asking = witnesses(&log, &[two.keys()], 0);
    assert_eq!(asking.all[0].standing().seen(), 0);
    asking.ask(&log.kept).await;
    assert_eq!((log.head().head().size, log.head().seen_by(&asking.keys())), (5, 1));
    let log = log.again();
    assert_eq!(log.head().seen_by(std::slice::from_ref(&two.witness)), 1, "it is kept with the head");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_signs_nothing_is_not_taken_and_stops_nobody() {
    let log = Log::new();
    log.add(1);
    // Who signs another log's head with its good key; who says too much, nothing, or no line; who is slow.
    let other = Log::new();
    other.add(7);
    let line = move |head: &SignedHead| {
        let signed = head.clone().witnessed("stranger2", &IdentityKey::from_seed(&[2; 32]), NOW).to_string();
        signed.lines().last().map(|line| format!("{line}\n")).unwrap()
    };
    let foreign = line(&other.head());
    let right = line(&log.head());
    let plain = |words: String| move |_: Asked| text(StatusCode::OK, words.clone());
    let (of_other, _a) = answering(plain(foreign)).await;
    let (of_other_key, _b) = answering(plain(right)).await;
    let (garbage, _c) = answering(plain("sorry\n".to_owned())).await;
    let (long, _d) = answering(plain("x".repeat(MOST_BYTES + 1))).await;
    let (empty, _e) = answering(plain(String::new())).await;
    let (moved, _f) = answering(|asked: Asked| {
        let size = String::from_utf8_lossy(&asked.body).lines().next().map(|line| line != "old 1").unwrap();
        respond(StatusCode::CONFLICT, "text/x.tlog.size", format!("{}\n", u8::from(size)))
    })
    .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = format!("http://{}", silent.local_addr().unwrap());
    let own = Own::new("own").await;
    let all = [
        keys(&stranger(2), &of_other),
        keys(&stranger(3), &of_other_key),
        keys(&stranger(4), &garbage),
        keys(&stranger(5), &long),
        keys(&stranger(6), &empty),
        keys(&stranger(7), &moved),
        keys(&stranger(8), &slow),
        own.keys(),
    ];
    let asking = witnesses(&log, &all, 1);
    let began = std::time::Instant::now();
    asking.ask(&log.kept).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(log.kept.log().published().unwrap().seen_by(&asking.keys()), 1);
    assert_eq!(log.head().to_string().lines().filter(|line| line.starts_with('\u{2014}')).count(), 2);
    let troubles = troubles(&asking, &log);
    let words = [
        ("stranger2", "not signed"),
        ("stranger3", "not signed"),
        ("stranger4", "not written"),
        ("stranger5", "more than 65536 bytes"),
        ("stranger6", "not signed"),
        ("stranger7", "another size each time"),
        ("stranger8", "did not answer within 1000 ms"),
    ];
    for (name, words) in words {
        assert!(troubles[name].contains(words), "{name}: {}", troubles[name]);
    }
    assert_eq!(troubles.len(), words.len());
    assert!(asking.status(&log.kept, NOW).witnesses.iter().all(|witness| !witness.saw_other_log));
    // None of them is asked again at once.
    log.add(2);
    asking.ask(&log.kept).await;
    assert_eq!(log.kept.log().published().unwrap().head().size, 2);
    assert!(asking.all.iter().take(7).all(|known| !known.standing().is_due(now_unix_secs())));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_or_forked_is_signed_by_nobody_and_said() {
    let mut own = Own::new("own").await;
    let log = Log::new();
    for id in 1..=4 {
        log.add(id);
    }
    let asking = witnesses(&log, &[own.keys()], 0);
    asking.ask(&log.kept).await;
    assert_eq!(log.head().seen_by(&asking.keys()), 1);
    // What the witness saw outlives it.
    own.stop.cancel();
    for _ in 0..100 {
        sleep(Duration::from_millis(50)).await;
        if Store::open(&own.folder.path().join("store")).is_ok() {
            break;
        }
    }
    own.serve().await;

    let said = |entries: &[u8]| {
        let log = Log::new();
        for id in entries {
            log.add(*id);
        }
        let asking = witnesses(&log, &[own.keys()], 1);
        async move {
            asking.ask(&log.kept).await;
            assert_eq!(log.head().seen_by(&asking.keys()), 0);
            let status = asking.status(&log.kept, NOW).witnesses.remove(0);
            assert!(status.saw_other_log, "{status:?}");
            status.trouble.unwrap()
        }
    };
    assert_eq!(said(&[1, 2, 3]).await, "it saw 4 entries, and there are 3 here");
    let forked = "the log does not go on from the 4 entries that it saw";
    assert_eq!(said(&[1, 2, 3, 9]).await, forked);
    assert_eq!(said(&[1, 2, 3, 9, 5]).await, forked);
    // The right one goes on.
    log.add(5);
    let asking = witnesses(&log, &[own.keys()], 0);
    asking.ask(&log.kept).await;
    assert_eq!((log.head().head().size, log.head().seen_by(&asking.keys())), (5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_what_the_protocol_says() {
    let log = Log::new();
    log.add(1);
    log.add(2);
    let seen: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let (url, _guard) = answering(move |asked| {
        kept.lock().unwrap().push(asked);
        text(StatusCode::NOT_FOUND, String::new())
    })
    .await;
    let asking = witnesses(&log, &[keys(&stranger(2), &url)], 0);
    asking.all[0].standing().begins(Some((1, NOW)));
    asking.ask(&log.kept).await;
    let seen = seen.lock().unwrap();
    let [asked] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&asked.method, asked.path.as_str()), (&Method::POST, "/prefix/add-checkpoint"));
    let path = log.kept.log().look(|book| book.tree().consistency(1, 2)).unwrap();
    assert_eq!(asked.body, log.head().submission(1, &path).into_bytes());
    assert!(troubles(&asking, &log)["stranger2"].contains("does not know this log"));
}

#[test]
fn what_does_not_go_together_is_refused_by_its_key() {
    let good = || keys(&stranger(2), "https://witness.example/a");
    let with_ca = |ca: &str| WitnessKeys { ca: PathBuf::from(ca), ..good() };
    let refused = |all: &[WitnessKeys], least| format!("{:?}", check(all, least).unwrap_err());
    assert!(check(&[with_ca("/etc/ca.pem")], 1).is_ok());
    assert!(refused(&[good()], 0).contains("witness.ca"));
    let plain = WitnessKeys { url: "http://witness.example".into(), ..with_ca("/etc/ca.pem") };
    assert!(refused(&[plain], 0).contains("witness.ca"));
    for url in ["witness.example", "ftp://witness.example", "https://a:b@witness.example"] {
        let wrong = WitnessKeys { url: url.into(), ..good() };
        assert!(refused(&[wrong], 0).contains("witness.url"), "{url}");
    }
    let slow = WitnessKeys { timeout_secs: 61, ..with_ca("/c") };
    assert!(refused(&[slow], 0).contains("witness.timeout_secs"));
    assert!(refused(&[with_ca("/c"), with_ca("/c")], 0).contains("witness.key"));
    assert!(refused(&[with_ca("/c")], 2).contains("least_witnesses"));
}

/// Who looks at a log twice at a time, while somebody waits to write between the two, would wait for ever.
#[test]
fn a_log_grows_and_is_looked_at_at_the_same_time() {
    let log = Log::new();
    log.add(1);
    let (asking, kept) =
        (witnesses(&log, &[keys(&stranger(2), "http://127.0.0.1:1")], 0), Arc::clone(&log.kept));
    let (done, is_done) = std::sync::mpsc::channel();
    let writes = std::thread::spawn(move || {
        while is_done.try_recv().is_err() {
            drop(kept.log().write());
        }
    });
    let (tell, told) = std::sync::mpsc::channel();
    let kept = Arc::clone(&log.kept);
    std::thread::spawn(move || {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            assert_eq!(asking.status(&kept, NOW).size, 1);
        }
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(60)).unwrap();
    done.send(()).unwrap();
    writes.join().unwrap();
}
