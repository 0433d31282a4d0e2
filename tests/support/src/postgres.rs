//! A PostgreSQL of a suite's own, in a temporary folder.
//!
//! It is there where `initdb` is found (in `PATH`, or where Debian puts it), and otherwise where `NIGHTSHIFT_POSTGRES` names a server
//! whose user may make databases (`postgresql://user@host:port/database`). Without either, what needs one is skipped by name, or
//! fails where `NIGHTSHIFT_REQUIRE_POSTGRES` is set.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The user of the server that a suite starts.
pub const USER: &str = "nightshift";

/// A server.
#[derive(Debug)]
pub struct Postgres {
    host: String,
    port: u16,
    user: String,
    first: String,
    own: Option<Own>,
    databases: AtomicU64,
}

/// One that this process started.
#[derive(Debug)]
struct Own {
    bin: PathBuf,
    folder: TempDir,
    running: Mutex<Option<Child>>,
}

static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

/// The server that tests of this process share while any of them has it; none where there is none, which is said with the name of
/// what is skipped then.
pub fn shared(skipped: &str) -> Option<Arc<Postgres>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(found(skipped)?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

/// A server of the caller's own, which it may stop and start; none where `initdb` is not found.
pub fn own(skipped: &str) -> Option<Postgres> {
    let server = bin().map(|bin| Postgres::start(bin, &[]));
    if server.is_none() {
        skip(skipped, "no initdb was found");
    }
    server
}

/// The same with TLS: a certificate and its key in PEM, which the server reads. It answers in clear too.
pub fn own_with_tls(skipped: &str, certificate: &str, key: &str) -> Option<Postgres> {
    let server = bin().map(|bin| Postgres::start(bin, &[("server.crt", certificate), ("server.key", key)]));
    if server.is_none() {
        skip(skipped, "no initdb was found");
    }
    server
}

fn found(skipped: &str) -> Option<Postgres> {
    if let Some(bin) = bin() {
        return Some(Postgres::start(bin, &[]));
    }
    let Ok(address) = env::var("NIGHTSHIFT_POSTGRES") else {
        skip(skipped, "neither initdb was found nor NIGHTSHIFT_POSTGRES is set");
        return None;
    };
    let config: tokio_postgres::Config = address.parse().expect("NIGHTSHIFT_POSTGRES is no address");
    let host = config.get_hosts().first().expect("NIGHTSHIFT_POSTGRES names no host");
    let tokio_postgres::config::Host::Tcp(host) = host else {
        panic!("NIGHTSHIFT_POSTGRES names no host by TCP")
    };
    Some(Postgres {
        host: host.clone(),
        port: config.get_ports().first().copied().unwrap_or(5432),
        user: config.get_user().unwrap_or(USER).to_owned(),
        first: config.get_dbname().unwrap_or("postgres").to_owned(),
        own: None,
        databases: AtomicU64::new(0),
    })
}

fn skip(what: &str, why: &str) {
    assert!(
        env::var_os("NIGHTSHIFT_REQUIRE_POSTGRES").is_none_or(|value| value.is_empty()),
        "{what} needs a PostgreSQL, and {why}; install Debian's `postgresql`"
    );
    eprintln!("skipped: {what}, since {why}");
}

/// The folder of `initdb` and `postgres`.
fn bin() -> Option<PathBuf> {
    let has_both = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort();
    debian.into_iter().rev().chain(env::split_paths(&path)).find(has_both)
}

impl Postgres {
    fn start(bin: PathBuf, tls: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("nightshift-postgres").tempdir().unwrap();
        owned(folder.path());
        let data = folder.path().join("data");
        let made = as_another(&bin.join("initdb"))
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for (name, pem) in tls {
            let path = data.join(name);
            fs::write(&path, pem).unwrap();
            private(&path);
            owned(&path);
        }
        let mut settings =
            "fsync = off\nunix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\n".to_owned();
        settings += "max_connections = 60\nshared_buffers = 16MB\nlog_min_messages = fatal\n";
        if !tls.is_empty() {
            settings += "ssl = on\n";
        }
        let path = data.join("postgresql.auto.conf");
        fs::write(&path, settings).unwrap();
        owned(&path);
        let mut server = Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            user: USER.to_owned(),
            first: "postgres".to_owned(),
            own: None,
            databases: AtomicU64::new(0),
        };
        let log = folder.path().join("log");
        let mut own = Own { bin, folder, running: Mutex::default() };
        // Somebody may take the port before the server has it.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let running = run(&own.bin, own.folder.path(), server.port);
            *own.running.get_mut().unwrap() = Some(running);
            server.own = Some(own);
            if server.answers() {
                return server;
            }
            let said = fs::read_to_string(&log).unwrap();
            assert!(said.contains("in use"), "PostgreSQL does not start: {said}");
            own = server.own.take().unwrap();
        }
        panic!("no port for a PostgreSQL");
    }

    /// Whether this process started it, and may stop it.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The host's address and port.
    pub fn at(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// The address of a database.
    pub fn address(&self, database: &str) -> String {
        self.address_at(&self.host, self.port, database)
    }

    /// The same where the server is reached by another host and port.
    pub fn address_at(&self, host: &str, port: u16, database: &str) -> String {
        format!("postgresql://{}@{host}:{port}/{database}", self.user)
    }

    /// Makes a database that has nothing, and gives its name.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::AcqRel);
        let name = format!("nightshift_{}_{number}", std::process::id());
        if self.own.is_none() {
            self.sql(&self.first, &format!("DROP DATABASE IF EXISTS {name}"));
        }
        self.sql(&self.first, &format!("CREATE DATABASE {name} TEMPLATE template0"));
        name
    }

    /// Runs statements in a database, and gives the first column of what they answer, as text.
    pub fn sql(&self, database: &str, statements: &str) -> Vec<String> {
        self.asked(database, statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"))
    }

    fn asked(&self, database: &str, statements: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.address(database), NoTls).await?;
            let driven = tokio::spawn(connection);
            let messages = client.simple_query(statements).await?;
            drop(client);
            drop(driven.await);
            let text = |message| {
                if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
            };
            Ok(messages.into_iter().filter_map(text).collect())
        })
    }

    fn answers(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if self.asked(&self.first, "SELECT 1").is_ok() {
                return true;
            }
            let own = self.own.as_ref();
            let mut running = own.map(|own| own.running.lock().unwrap_or_else(PoisonError::into_inner));
            let child = running.as_mut().and_then(|running| running.as_mut());
            if child.is_some_and(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Has everybody who comes by TLS show a password from now on, and nobody else. Only for one that this process
    /// started.
    pub fn demand_passwords(&self) {
        let own = self.own.as_ref().expect("the settings of a server that others started are left alone");
        let rules = own.folder.path().join("data/pg_hba.conf");
        fs::write(
            &rules,
            "hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 trust\n",
        )
        .unwrap();
        self.sql(&self.first, "SELECT pg_reload_conf()");
        // It is read by the server in its own time.
        thread::sleep(Duration::from_millis(500));
    }

    /// Ends it at once, as a crash would: whoever is connected is cut off. Only for one that this process started.
    pub fn stop(&self) {
        let own = self.own.as_ref().expect("a server that others started is not stopped");
        own.stop();
    }

    /// Starts it again at the same port.
    pub fn restart(&self) {
        let own = self.own.as_ref().expect("a server that others started is not stopped");
        own.stop();
        let running = run(&own.bin, own.folder.path(), self.port);
        *own.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        assert!(self.answers(), "PostgreSQL does not start again");
    }
}

impl Own {
    fn stop(&self) {
        let Some(mut child) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let stopped = as_another(&self.bin.join("pg_ctl"))
            .args(["stop", "-m", "immediate", "-t", "30", "-D"])
            .arg(self.folder.path().join("data"))
            .output();
        if !stopped.is_ok_and(|stopped| stopped.status.success()) {
            drop(child.kill());
        }
        drop(child.wait());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(bin: &Path, folder: &Path, port: u16) -> Child {
    let log = fs::File::create(folder.join("log")).unwrap();
    as_another(&bin.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A command of PostgreSQL, which does not run as root.
fn as_another(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env_remove("PGDATA");
    #[cfg(unix)]
    if let Some((user, group)) = other_user() {
        std::os::unix::process::CommandExt::uid(&mut command, user);
        std::os::unix::process::CommandExt::gid(&mut command, group);
    }
    command
}

/// Gives a file to whoever PostgreSQL runs as.
fn owned(path: &Path) {
    #[cfg(unix)]
    if let Some((user, group)) = other_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// Closes a file to others.
fn private(path: &Path) {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Where this process is root: who else, by user and group.
#[cfg(unix)]
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2).map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("there is neither a user postgres nor nobody"))
}
