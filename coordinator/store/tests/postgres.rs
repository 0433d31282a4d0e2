//! The store in PostgreSQL does what is asked of every store, and holds where servers and connections do not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "servers stop and locks are held meanwhile")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nightshift_store::{Plain, Postgres, SCHEMA, Settings};
use shell::store::{Batch, Change, Store, StoreError};
use support::conformance::{add_one, conforms, counts, next};
use support::cut::Cut;
use support::postgres::{self, Postgres as Server};

const TASKS: &str = "tasks";
const DEVICES: &str = "devices";

fn settings(address: &str) -> Settings {
    Settings {
        address: address.parse().unwrap(),
        password: None,
        authorities: None,
        plain: Plain::Local,
        connections: 8,
        statement: Duration::from_secs(10),
    }
}

fn opened(address: &str) -> Store {
    Store::over(Arc::new(Postgres::open(&settings(address)).unwrap()))
}

fn put(store: &Store, key: u64, value: u64) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(TASKS, key, &value).unwrap();
    store.commit_blocking(&batch)
}

/// Why a store takes nothing now, while it is not stopped.
fn unavailable(store: &Store, outcome: Result<(), StoreError>) -> String {
    assert!(!store.is_stopped());
    match outcome {
        Err(error @ StoreError::Unavailable { .. }) => error.to_string(),
        other => panic!("expected that it is unavailable, got {other:?}"),
    }
}

#[test]
fn a_store_in_postgresql_conforms() {
    let Some(server) = postgres::shared("a_store_in_postgresql_conforms") else { return };
    conforms(&|| opened(&server.address(&server.database())));
}

#[test]
fn two_processes_see_what_the_other_commits() {
    let Some(server) = postgres::shared("two_processes_see_what_the_other_commits") else { return };
    let address = server.address(&server.database());
    let (one, other) = (opened(&address), opened(&address));
    let mut changes = other.changes(&[TASKS]);
    put(&one, 7, 1).unwrap();
    assert_eq!(next(&mut changes), Change::Record { tree: TASKS.to_owned(), key: 7.into() });
    assert_eq!(other.get::<u64>(TASKS, 7).unwrap(), Some(1));
    thread::scope(|scope| {
        for store in [&one, &other, &one, &other] {
            scope.spawn(move || (0..25).for_each(|_| add_one(store, DEVICES, 0)));
        }
    });
    assert_eq!(one.get::<u64>(DEVICES, 0).unwrap(), Some(100));
}

#[test]
fn a_server_that_starts_again_is_used_again_and_nothing_is_missed() {
    let Some(server) = postgres::own("a_server_that_starts_again_is_used_again_and_nothing_is_missed") else {
        return;
    };
    let address = server.address(&server.database());
    let store = opened(&address);
    put(&store, 1, 1).unwrap();
    let mut changes = store.changes(&[]);
    server.stop();
    let why = unavailable(&store, put(&store, 1, 2));
    assert!(why.contains("look whether the server runs"), "{why}");
    assert!(matches!(store.get::<u64>(TASKS, 1), Err(StoreError::Unavailable { .. })));
    let closed = Postgres::open(&settings(&address)).unwrap_err().to_string();
    assert!(closed.contains(&address) && closed.contains("look whether the server runs"), "{closed}");
    server.restart();
    put(&store, 1, 3).unwrap();
    assert_eq!(store.get::<u64>(TASKS, 1).unwrap(), Some(3));
    // What is heard once it listens again may come first.
    while next(&mut changes) != Change::Everything {}
    put(&store, 2, 1).unwrap();
    while next(&mut changes) != (Change::Record { tree: TASKS.to_owned(), key: 2.into() }) {}
    // Under load too: who was told that it is done finds it, and nobody finds what was refused.
    thread::scope(|scope| {
        let store = &store;
        let counting = scope.spawn(move || {
            let mut done = 0_u64;
            for _ in 0..400 {
                let found: u64 = loop {
                    match store.get(DEVICES, 1) {
                        Ok(found) => break found.unwrap_or(0),
                        Err(_) => thread::sleep(Duration::from_millis(10)),
                    }
                };
                assert_eq!(found, done);
                let mut batch = Batch::new();
                batch.put(DEVICES, 1, &(done + 1)).unwrap();
                match store.commit_blocking(&batch) {
                    Ok(()) => done += 1,
                    Err(StoreError::Unavailable { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            done
        });
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(150));
            server.restart();
        }
        assert!(counting.join().unwrap() > 0);
    });
    assert!(!store.is_stopped());
}

#[test]
fn a_count_stays_exact_where_connections_break_at_random_and_in_the_middle_of_commits() {
    let name = "a_count_stays_exact_where_connections_break_at_random_and_in_the_middle_of_commits";
    let Some(server) = postgres::shared(name) else { return };
    let (host, port) = server.at();
    let cut = Cut::new(&host, port, 7);
    let database = server.database();
    let address = server.address_at("127.0.0.1", cut.address().port(), &database);
    let store = opened(&address);
    cut.breaks(true);
    counts(&store, 8, 40);
    cut.breaks(false);
    let [unsent, unheard, elsewhere] = cut.counts();
    assert!(unsent > 5 && unheard > 5 && elsewhere > 0, "{unsent} {unheard} {elsewhere}");
    assert!(!store.is_stopped());
    // What nobody looks for any more is swept by age alone: those that never were are marked.
    let never = server.sql(&database, "SELECT count(*) FROM nightshift.commits WHERE NOT is_done");
    let never: u64 = never[0].parse().unwrap();
    assert!(never > 0 && never <= unsent + unheard, "{never} of {unsent} and {unheard}");
    // Whoever followed hears that it may have missed something.
    let mut changes = store.changes(&[TASKS]);
    cut.all();
    assert_eq!(next(&mut changes), Change::Everything);
}

#[test]
fn a_store_says_that_it_stopped_where_nobody_says_what_became_of_a_commit() {
    let name = "a_store_says_that_it_stopped_where_nobody_says_what_became_of_a_commit";
    let Some(server) = postgres::shared(name) else { return };
    let (host, port) = server.at();
    let cut = Cut::new(&host, port, 1);
    let address = server.address_at("127.0.0.1", cut.address().port(), &server.database());
    let settings = Settings { statement: Duration::from_millis(200), ..settings(&address) };
    let store = Store::over(Arc::new(Postgres::open(&settings).unwrap()));
    put(&store, 1, 0).unwrap();
    cut.ends_at_commit();
    let stopped = put(&store, 1, 1).unwrap_err();
    assert!(matches!(stopped, StoreError::Stopped { .. }), "{stopped}");
    assert!(store.is_stopped());
    let again = put(&store, 1, 1).unwrap_err();
    assert!(matches!(again, StoreError::Stopped { .. }), "{again}");
}

#[test]
fn a_database_that_takes_nothing_says_what_to_do_and_takes_it_later() {
    let Some(server) = postgres::shared("a_database_that_takes_nothing_says_what_to_do_and_takes_it_later")
    else {
        return;
    };
    let database = server.database();
    let address = server.address(&database);
    let store = opened(&address);
    put(&store, 1, 1).unwrap();
    server.sql(&database, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    let read_only = opened(&address);
    assert_eq!(read_only.get::<u64>(TASKS, 1).unwrap(), Some(1));
    let why = unavailable(&read_only, put(&read_only, 1, 2));
    assert!(why.contains("25006") && why.contains("read-only"), "{why}");
    let why = unavailable(&read_only, read_only.check_room());
    assert!(why.contains("read-only"), "{why}");
    server.sql(
        &database,
        &format!("BEGIN READ WRITE; ALTER DATABASE {database} RESET default_transaction_read_only; COMMIT"),
    );
    opened(&address).check_room().unwrap();

    // A disk that is full, as the server says it.
    let full = "CREATE FUNCTION pg_temp_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend \
                file: No space left on device' USING ERRCODE = 'disk_full'; END $$;\
                CREATE TRIGGER full_disk BEFORE INSERT ON nightshift.records EXECUTE FUNCTION pg_temp_full()";
    server.sql(&database, full);
    let why = unavailable(&store, put(&store, 1, 2));
    assert!(why.contains("53100") && why.contains("make room on the database server's disk"), "{why}");
    server.sql(&database, "DROP TRIGGER full_disk ON nightshift.records");
    put(&store, 1, 2).unwrap();

    // Somebody holds a lock.
    let slow = Settings { statement: Duration::from_millis(300), connections: 1, ..settings(&address) };
    let slow = Store::over(Arc::new(Postgres::open(&slow).unwrap()));
    let holder = thread::spawn({
        let (server, database) = (Arc::clone(&server), database.clone());
        move || server.sql(&database, "BEGIN; LOCK TABLE nightshift.records; SELECT pg_sleep(2); COMMIT")
    });
    thread::sleep(Duration::from_millis(500));
    let why = unavailable(&slow, put(&slow, 1, 3));
    assert!(why.contains("statement_secs"), "{why}");
    holder.join().unwrap();
    put(&slow, 1, 3).unwrap();

    // No connection is left for it.
    server.sql(&database, &format!("ALTER DATABASE {database} CONNECTION LIMIT 0"));
    server.sql("postgres", "CREATE ROLE guest LOGIN");
    let guest = address.replace("nightshift@", "guest@");
    let many = Postgres::open(&settings(&guest)).unwrap_err();
    assert!(
        matches!(&many, StoreError::Unavailable { why, .. } if why.contains("max_connections")),
        "{many}"
    );
    server.sql("postgres", &format!("ALTER DATABASE {database} CONNECTION LIMIT -1"));
    let stranger = Postgres::open(&settings(&guest)).unwrap_err();
    assert!(
        matches!(&stranger, StoreError::Refused { why, .. } if why.contains("own the database")),
        "{stranger}"
    );
    let nowhere = Postgres::open(&settings(&server.address("nowhere"))).unwrap_err();
    assert!(
        matches!(&nowhere, StoreError::Refused { why, .. } if why.contains("make the database")),
        "{nowhere}"
    );
}

#[test]
fn a_form_that_is_not_this_version_s_is_refused_by_both_numbers_or_used_one_step_back() {
    let name = "a_form_that_is_not_this_version_s_is_refused_by_both_numbers_or_used_one_step_back";
    let Some(server) = postgres::shared(name) else { return };
    let database = server.database();
    let address = server.address(&database);
    // Many that start at once make it once.
    let clusters: Vec<String> = thread::scope(|scope| {
        let opening: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Postgres::open(&settings(&address)).unwrap().cluster().to_owned()))
            .collect();
        opening.into_iter().map(|opening| opening.join().unwrap()).collect()
    });
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0] && cluster.len() == 32), "{clusters:?}");
    let other = Postgres::open(&settings(&server.address(&server.database()))).unwrap();
    assert_ne!(other.cluster(), clusters[0]);

    let says = |name: &str, value: u32| {
        server.sql(&database, &format!("UPDATE nightshift.meta SET value = '{value}' WHERE name = '{name}'"));
    };
    says("schema", SCHEMA + 1);
    put(&opened(&address), 1, 1).unwrap();
    says("readable_by", SCHEMA + 1);
    let refused = Postgres::open(&settings(&address)).unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }));
    let said = refused.to_string();
    assert!(
        said.contains(&format!("form is number {}", SCHEMA + 1))
            && said.contains(&format!("writes form {SCHEMA}")),
        "{said}"
    );
}

/// A certificate of an authority for a name, in PEM, with its key and with the authority's.
fn certified(name: &str) -> [String; 3] {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let server = rcgen::KeyPair::generate().unwrap();
    let signed =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&server, &issuer).unwrap();
    [signed.pem(), server.serialize_pem(), certificate.pem()]
}

#[test]
fn the_server_has_to_vouch_for_itself_and_no_secret_is_shown() {
    let name = "the_server_has_to_vouch_for_itself_and_no_secret_is_shown";
    let [certificate, key, authority] = certified("127.0.0.1");
    let Some(server) = postgres::own_with_tls(name, &certificate, &key) else { return };
    let (database, secret) = (server.database(), "geheim");
    server.sql(&database, &format!("ALTER ROLE {} PASSWORD '{secret}'", postgres::USER));
    server.sql("postgres", "SELECT 1");
    let with = |authority: Option<&str>, host: &str| {
        let address = server.address_at(host, server.at().1, &database);
        let authorities = authority.map(|pem| pem.as_bytes().to_vec());
        Settings { authorities, password: Some(secret.to_owned().into()), ..settings(&address) }
    };
    let good = with(Some(&authority), "127.0.0.1");
    assert!(!format!("{good:?}").contains(secret));
    let store = Postgres::open(&good).unwrap();
    assert!(!format!("{store:?}").contains(secret));
    let store = Store::over(Arc::new(store));
    put(&store, 1, 1).unwrap();
    let way = server.sql(&database, "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'nightshift'");
    assert_eq!(way, ["t"]);
    let other_name = Postgres::open(&with(Some(&authority), "localhost")).unwrap_err().to_string();
    assert!(other_name.contains("not valid for name"), "{other_name}");
    let [_, _, stranger] = certified("127.0.0.1");
    let other_authority = Postgres::open(&with(Some(&stranger), "127.0.0.1")).unwrap_err().to_string();
    assert!(other_authority.contains("invalid peer certificate"), "{other_authority}");
    for (settings, expected) in [
        (with(None, "db.example"), "nothing vouches for the server"),
        (with(Some("nothing"), "127.0.0.1"), "holds no certificate"),
        (with(Some(&authority), "%2Frun%2Fpostgresql"), "leave ca_file out"),
    ] {
        let refused = Postgres::open(&settings).unwrap_err();
        assert!(matches!(&refused, StoreError::Refused { why, .. } if why.contains(expected)), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains(secret));
    }
    wrong_password(&server, &with(Some(&authority), "127.0.0.1"));
}

fn wrong_password(server: &Server, settings: &Settings) {
    server.demand_passwords();
    Postgres::open(settings).unwrap();
    let wrong = Settings { password: Some("falsch".to_owned().into()), ..settings.clone() };
    let refused = Postgres::open(&wrong).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Refused { why, .. } if why.contains("password_file")),
        "{refused}"
    );
    assert!(!format!("{refused} {refused:?}").contains("falsch"));
}
