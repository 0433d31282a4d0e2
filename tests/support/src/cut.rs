//! A way to a PostgreSQL that breaks.
//!
//! It carries bytes both ways, and ends connections: after some bytes, which it draws, and at COMMIT, in three ways: the server never
//! gets it, the server gets it and its answer is lost, or the same while the server is still at it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// The way.
#[derive(Debug)]
pub struct Cut {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    is_over: AtomicBool,
    breaks: AtomicBool,
    is_last: AtomicBool,
    is_closed: AtomicBool,
    /// Connections that were ended at a COMMIT, by whether the server had it.
    at_commit: [AtomicU64; 2],
    elsewhere: AtomicU64,
    random: Mutex<ChaCha8Rng>,
    open: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn draw(&self, below: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64() % below
    }
}

impl Cut {
    /// A way to a server, which breaks by this seed once it is told to.
    pub fn new(host: &str, port: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            is_over: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            at_commit: Default::default(),
            elsewhere: AtomicU64::new(0),
            random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            open: Mutex::default(),
        });
        let (way, to) = (Arc::clone(&shared), (host.to_owned(), port));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if way.is_over.load(Ordering::Acquire) {
                    return;
                }
                if way.is_closed.load(Ordering::Acquire) {
                    continue;
                }
                let (Ok(client), Ok(server)) = (stream, TcpStream::connect((to.0.as_str(), to.1))) else {
                    continue;
                };
                carry(&way, client, server);
            }
        });
        Self { address, shared }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections break from now on.
    pub fn breaks(&self, breaks: bool) {
        self.shared.breaks.store(breaks, Ordering::Release);
    }

    /// From now on every connection ends at its next COMMIT, which the server gets, and there is no other.
    pub fn ends_at_commit(&self) {
        self.shared.is_last.store(true, Ordering::Release);
    }

    /// Ends all connections.
    pub fn all(&self) {
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// How many were ended at a COMMIT that the server did not get, at one that it got, and elsewhere.
    pub fn counts(&self) -> [u64; 3] {
        let count = |count: &AtomicU64| count.load(Ordering::Acquire);
        [count(&self.shared.at_commit[0]), count(&self.shared.at_commit[1]), count(&self.shared.elsewhere)]
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.all();
        drop(TcpStream::connect(self.address));
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let both = [&client, &server].map(|stream| stream.try_clone().unwrap());
    shared.open.lock().unwrap_or_else(PoisonError::into_inner).extend(both);
    let (mut back, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        drop(std::io::copy(&mut from_server, &mut back));
        drop(back.shutdown(Shutdown::Both));
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || forth(&shared, client, server));
}

fn forth(shared: &Shared, mut client: TcpStream, mut server: TcpStream) {
    let mut bytes = [0; 8 << 10];
    let end = |client: &TcpStream, server: &TcpStream| {
        drop(client.shutdown(Shutdown::Both));
        drop(server.shutdown(Shutdown::Both));
    };
    let mut left = 2_000 + shared.draw(60_000);
    loop {
        let read = match client.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let part = &bytes[..read];
        let is_commit = part.windows(7).any(|window| window == b"COMMIT\0");
        if is_commit && shared.is_last.load(Ordering::Acquire) {
            shared.is_closed.store(true, Ordering::Release);
            drop(client.shutdown(Shutdown::Both));
            drop(server.write_all(part));
            break;
        }
        if shared.breaks.load(Ordering::Acquire) {
            left = left.saturating_sub(read as u64);
            if left == 0 {
                shared.elsewhere.fetch_add(1, Ordering::AcqRel);
                break;
            }
            match if is_commit { shared.draw(12) } else { u64::MAX } {
                0 => {
                    shared.at_commit[0].fetch_add(1, Ordering::AcqRel);
                    break;
                }
                how @ (1 | 2) => {
                    // The answer is lost: nobody reads it any more.
                    drop(client.shutdown(Shutdown::Both));
                    drop(server.write_all(part));
                    shared.at_commit[1].fetch_add(1, Ordering::AcqRel);
                    thread::sleep(Duration::from_millis(if how == 1 { 0 } else { 30 }));
                    break;
                }
                _ => {}
            }
        }
        if server.write_all(part).is_err() {
            break;
        }
    }
    end(&client, &server);
}
