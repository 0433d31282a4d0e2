//! A network that fails, between real devices and a real coordinator: whatever bytes TLS makes of it, each connection passes
//! here, and its fate is drawn by a seed and its number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// To the coordinator.
    Up,
    /// To the device.
    Down,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Everything passes, until it is closed.
    Passes,
    /// Everything passes late, and not all of it equally late.
    Slow,
    /// So many bytes a second pass.
    Throttled,
    /// It is closed in the middle of what is sent.
    Cut,
    /// It is reset in the middle of what is sent.
    Reset,
    /// It is accepted, and nothing else ever comes of it.
    NoAnswer,
    /// From some byte on nothing is taken or passed on, either way, and it stays open.
    Stops,
    /// From some byte on what goes one way is lost, and it stays open.
    Loses(Way),
}

/// What is drawn for a connection.
#[derive(Clone, Copy, Debug)]
struct Fate {
    kind: Kind,
    /// The bytes, both ways together, before it happens.
    after: u64,
    latency: Duration,
    jitter_millis: u32,
    bytes_a_second: u32,
    /// How long it lives at most.
    life: Duration,
    seed: u64,
}

/// Of so many connections that come one after another, each kind has its share, in an order that the seed says.
const DECK: [Kind; 20] = {
    use Kind::{Cut, Loses, NoAnswer, Passes, Reset, Slow, Stops, Throttled};
    [
        Passes,
        Passes,
        Passes,
        Passes,
        Slow,
        Slow,
        Slow,
        Throttled,
        Throttled,
        Cut,
        Cut,
        Cut,
        Reset,
        Reset,
        Reset,
        NoAnswer,
        Stops,
        Stops,
        Loses(Way::Up),
        Loses(Way::Down),
    ]
};

/// So many connections have had every fate.
pub(crate) const ALL: u64 = DECK.len() as u64;

fn card(seed: u64, number: u64) -> Kind {
    let mut rng = ChaCha20Rng::seed_from_u64(seed ^ (number / ALL) << 32);
    let mut deck = DECK;
    for left in (1..deck.len()).rev() {
        deck.swap(left, rng.next_u32() as usize % (left + 1));
    }
    deck[usize::try_from(number % ALL).unwrap()]
}

impl Fate {
    fn draw(seed: u64, number: u64, silence: [Duration; 2]) -> Self {
        let kind = card(seed, number);
        let mut rng = ChaCha20Rng::seed_from_u64(!seed ^ number << 32);
        let mut below = |bound: u32| rng.next_u32() % bound;
        // From the first bytes of a handshake to the middle of a round.
        let after = u64::from(64_u32 << below(11)) + u64::from(below(512));
        let life = match kind {
            Kind::NoAnswer | Kind::Stops | Kind::Loses(_) => silence[usize::from(below(5) == 0)],
            Kind::Passes | Kind::Slow | Kind::Throttled | Kind::Cut | Kind::Reset => {
                Duration::from_millis(1_000 + u64::from(below(6_000)))
            }
        };
        Self {
            kind,
            after,
            latency: Duration::from_millis(5 + u64::from(below(60))),
            jitter_millis: 1 + below(60),
            bytes_a_second: 20_000 << below(4),
            life,
            seed: u64::from(below(u32::MAX)),
        }
    }

    /// One of a network on which nothing fails.
    fn good() -> Self {
        Self {
            kind: Kind::Passes,
            after: u64::MAX,
            latency: Duration::ZERO,
            jitter_millis: 1,
            bytes_a_second: u32::MAX,
            life: Duration::MAX,
            seed: 0,
        }
    }
}

/// What all connections share.
struct Shared {
    upstream: SocketAddr,
    seed: u64,
    /// How long a connection is silent that says nothing any more: most of them, and one in five.
    silence: [Duration; 2],
    is_bad: AtomicBool,
    /// Changes when all connections are cut.
    cut: watch::Sender<()>,
    open: AtomicUsize,
    /// Connections whose fate was drawn.
    drawn: AtomicU64,
    tally: Mutex<BTreeMap<Kind, u64>>,
}

/// The network.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Proxy {
    /// Before the coordinator at `upstream`; nothing fails yet.
    pub(crate) fn new(upstream: SocketAddr, seed: u64, silence: [Duration; 2]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            seed,
            silence,
            is_bad: AtomicBool::new(false),
            cut: watch::Sender::new(()),
            open: AtomicUsize::new(0),
            drawn: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).carry(client));
            }
        });
        Self { address, shared, _runtime: runtime }
    }

    /// From now on connections fail, or do not; those that there are end.
    pub(crate) fn turn(&self, is_bad: bool) {
        self.shared.is_bad.store(is_bad, Ordering::SeqCst);
        self.shared.cut.send_replace(());
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections had each fate, while the network was bad.
    pub(crate) fn tally(&self) -> BTreeMap<Kind, u64> {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn carry(self: Arc<Self>, client: TcpStream) {
        let fate = if self.is_bad.load(Ordering::SeqCst) {
            let number = self.drawn.fetch_add(1, Ordering::SeqCst);
            let fate = Fate::draw(self.seed, number, self.silence);
            *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(fate.kind).or_default() += 1;
            fate
        } else {
            Fate::good()
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut cut = self.cut.subscribe();
        tokio::select! {
            () = self.connection(client, fate) => {}
            _ = cut.changed() => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn connection(&self, mut client: TcpStream, fate: Fate) {
        if fate.kind == Kind::NoAnswer {
            return sleep(fate.life).await;
        }
        let Ok(mut server) = TcpStream::connect(self.upstream).await else { return };
        drop(client.set_nodelay(true).and_then(|()| server.set_nodelay(true)));
        let passed = AtomicU64::new(0);
        {
            let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
            let both = async {
                tokio::join!(
                    pump(from_client, to_server, &passed, Way::Up, &fate),
                    pump(from_server, to_client, &passed, Way::Down, &fate)
                )
            };
            let broken = async {
                while !(matches!(fate.kind, Kind::Cut | Kind::Reset)
                    && passed.load(Ordering::SeqCst) >= fate.after)
                {
                    sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::select! {
                _ = both => {}
                () = broken => {}
                () = sleep(fate.life) => {}
            }
        }
        if fate.kind == Kind::Reset {
            drop(client.set_zero_linger().and_then(|()| server.set_zero_linger()));
        }
    }
}

/// Passes on what goes one way, as the connection's fate will have it, until it ends.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, passed: &AtomicU64, way: Way, fate: &Fate) {
    let mut rng = ChaCha20Rng::seed_from_u64(fate.seed + way as u64);
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            drop(to.shutdown().await);
            return;
        }
        let before = passed.fetch_add(read as u64, Ordering::SeqCst);
        let left = usize::try_from(fate.after.saturating_sub(before)).unwrap_or(usize::MAX).min(read);
        let passes = match fate.kind {
            Kind::Slow => {
                let jitter = u64::from(rng.next_u32() % fate.jitter_millis);
                sleep(fate.latency + Duration::from_millis(jitter)).await;
                read
            }
            Kind::Throttled => {
                sleep(Duration::from_secs_f64(read as f64 / f64::from(fate.bytes_a_second))).await;
                read
            }
            Kind::Cut | Kind::Reset | Kind::Stops => left,
            Kind::Loses(lost) if lost == way => left,
            Kind::Passes | Kind::NoAnswer | Kind::Loses(_) => read,
        };
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
        if passes < read && matches!(fate.kind, Kind::Stops | Kind::Cut | Kind::Reset) {
            // Nothing is read any more either.
            std::future::pending::<()>().await;
        }
    }
}
