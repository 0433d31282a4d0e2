//! The asking side of witnesses ([tlog-witness]): whoever keeps a log has others sign its newest head, and keeps what they
//! signed with it.
//!
//! No enrollment and no round waits for that. Rounds are about heads that so many witnesses signed only where whoever keeps the
//! log wants it so; what happens then is in [`EnrollmentLog::published`]. [`standing`] says what an answer means, without any IO.
//!
//! [tlog-witness]: https://c2sp.org/tlog-witness
//! [`EnrollmentLog::published`]: aggregation::log::EnrollmentLog::published

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregation::IdentityPublic;
use aggregation::log::{LogKey, SignedHead, Witness, WitnessError, log_key};
use http::HeaderMap;
use proto::admin::LogStatus;
use serde::{Deserialize, Deserializer, de};
use serving::post::{Address, Client, Question};
use shell::config::{OutOfRange, require};
use shell::home;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::clock::now_unix_secs;
use crate::kept_log::KeptLog;

pub mod standing;

use standing::{Reading, Said, Standing, Trouble, read};

/// Between two looks whether there is a head that witnesses have not signed.
const LOOK: Duration = Duration::from_millis(500);

/// A device that enrolled within so many seconds is young: a day.
const YOUNG_SECS: u64 = 24 * 3600;

/// The most bytes of an answer.
const MOST_BYTES: usize = 64 << 10;

/// The most witnesses: their signatures travel with each head.
const MOST_WITNESSES: usize = 16;

/// A witness, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessKeys {
    /// Its key, `NAME+HASH+KEY`, of the kind that signs with a time.
    #[serde(deserialize_with = "key")]
    pub key: Witness,
    /// Where it is asked: what stands before `/add-checkpoint`.
    pub url: String,
    /// For `https:`: a file (PEM) with the authorities that vouch for it. Default none.
    #[serde(default, deserialize_with = "home::path")]
    pub ca: PathBuf,
    /// Seconds that it is waited for, 1 to 60. Default 5.
    #[serde(default = "usual_secs")]
    pub timeout_secs: u32,
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Witness, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error: WitnessError| de::Error::custom(format!("{text:?} is {error}")))
}

const fn usual_secs() -> u32 {
    5
}

/// Fails where a value is out of its range, or keys do not go together.
pub fn check(witnesses: &[WitnessKeys], least: u32) -> Result<(), OutOfRange> {
    require(witnesses.len() <= MOST_WITNESSES, "witness", "there at most 16 times", &witnesses.len())?;
    for (number, WitnessKeys { key, url, ca, timeout_secs }) in witnesses.iter().enumerate() {
        let address = Address::parse(url);
        let (is_address, is_tls) = (address.is_some(), address.is_some_and(|address| address.is_tls()));
        require(is_address, "witness.url", "https://HOST/PATH or http://HOST:PORT/PATH", url)?;
        let is_file = !ca.as_os_str().is_empty();
        let expected = "a file in PEM where witness.url begins with https:, and left out where it does not";
        require(is_tls == is_file, "witness.ca", expected, &ca.display())?;
        require((1..=60).contains(timeout_secs), "witness.timeout_secs", "1 to 60", timeout_secs)?;
        let mut others = witnesses.iter().take(number);
        let is_other = others
            .all(|WitnessKeys { key: other, .. }| other.key() != key.key() && other.name() != key.name());
        require(is_other, "witness.key", "of another name and key in each [[witness]]", key)?;
    }
    let is_there = usize::try_from(least).is_ok_and(|least| least <= witnesses.len());
    require(is_there, "least_witnesses", "at most as many as there are [[witness]]", &least)
}

/// A witness cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("witness {name}: {} cannot be used: {why}", ca.display())]
pub struct WitnessOpenError {
    name: String,
    ca: PathBuf,
    why: String,
}

/// All witnesses of a log.
#[derive(Debug)]
pub struct Witnesses {
    log: LogKey,
    least: usize,
    all: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    witness: Witness,
    client: Client,
    path: String,
    limit: Duration,
    standing: Mutex<Standing>,
}

impl Witnesses {
    /// Those of a configuration that [`check`] took, for the log of an authority. Rounds of `kept` are about heads that `least` of
    /// them signed, where that is not 0. Blocks.
    pub fn open(
        keys: &[WitnessKeys],
        least: u32,
        (authority, kept): (&IdentityPublic, &KeptLog),
    ) -> Result<Self, WitnessOpenError> {
        let open = |keys: &WitnessKeys| {
            let WitnessKeys { key, url, ca, timeout_secs } = keys;
            let unusable = |why| WitnessOpenError { name: key.name().to_owned(), ca: ca.clone(), why };
            let address = Address::parse(url).ok_or_else(|| unusable(format!("{url} is no address")))?;
            let path = format!("{}/add-checkpoint", address.path().trim_end_matches('/'));
            let client = Client::open(address, ca).map_err(unusable)?;
            let limit = Duration::from_secs(u64::from(*timeout_secs));
            Ok(Known { witness: key.clone(), client, path, limit, standing: Mutex::default() })
        };
        let all = keys.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let witnesses =
            Self { log: log_key(authority), least: usize::try_from(least).unwrap_or(usize::MAX), all };
        if let Err(error) = kept.go_by(witnesses.least, &witnesses.keys()) {
            tracing::warn!(%error, "the last head that witnesses signed is not known: they are asked again");
        }
        let newest = kept.log().look(|book| book.head().cloned());
        for known in &witnesses.all {
            let at = newest.as_ref().and_then(|head| Some((head.head().size, head.seen_at(&known.witness)?)));
            known.standing().begins(at);
        }
        Ok(witnesses)
    }

    fn keys(&self) -> Vec<Witness> {
        self.all.iter().map(|known| known.witness.clone()).collect()
    }

    /// What signs the log, as witnesses know it.
    pub fn log_key(&self) -> &LogKey {
        &self.log
    }

    /// How the log is, and its witnesses. Blocks.
    pub fn status(&self, kept: &KeptLog, now_unix_secs: u64) -> LogStatus {
        let log = kept.log();
        let young = now_unix_secs.saturating_sub(YOUNG_SECS);
        let (newest, size, devices, young_devices) =
            log.look(|book| (book.head().cloned(), book.size(), book.devices(), book.enrolled_since(young)));
        let rounds = log.published();
        let of = |head: &Option<SignedHead>| {
            head.as_ref().map_or((0, 0), |head| (head.head().size, head.head().unix_secs))
        };
        let ((_, head_unix_secs), (rounds_size, rounds_unix_secs)) = (of(&newest), of(&rounds));
        let signed = rounds.as_ref().map_or(0, |head| head.seen_by(&self.keys()));
        LogStatus {
            key: self.log.to_string(),
            size,
            head_unix_secs,
            rounds_size,
            rounds_unix_secs,
            waiting_versions: kept.count_waiting().unwrap_or(0),
            least_witnesses: u32::try_from(self.least).unwrap_or(u32::MAX),
            witnesses: self.all.iter().map(|known| known.standing().status(known.witness.name())).collect(),
            devices,
            young_devices,
            rounds_witnesses: u32::try_from(signed).unwrap_or(u32::MAX),
        }
    }

    /// Has witnesses sign each new head, for ever; ends at once where there are none.
    pub async fn keep(self: Arc<Self>, kept: Arc<KeptLog>) {
        while !self.all.is_empty() {
            self.ask(&kept).await;
            sleep(LOOK).await;
        }
    }

    /// Asks those for the newest head who have not signed it, and are due. All are asked for the same one, so that enough sign one.
    async fn ask(self: &Arc<Self>, kept: &Arc<KeptLog>) {
        let newest = kept.log().look(|book| book.head().cloned());
        let Some(mut head) = newest.filter(|head| head.head().size > 0) else { return };
        let now = now_unix_secs();
        let mut asked = JoinSet::new();
        for (number, known) in self.all.iter().enumerate() {
            if head.seen_at(&known.witness).is_none() && known.standing().is_due(now) {
                let (own, head, kept) = (Arc::clone(self), head.clone(), Arc::clone(kept));
                asked.spawn(async move { (number, own.all[number].ask(&head, &kept).await) });
            }
        }
        while let Some(came) = asked.join_next().await {
            let Ok((number, came)) = came else { continue };
            let Some(known) = self.all.get(number) else { continue };
            let came = came.and_then(|answer| {
                head.clone()
                    .signed_by(&known.witness, &answer)
                    .map_err(|error| Trouble::Garbage(error.to_string()))
            });
            let (size, now) = (head.head().size, now_unix_secs());
            let name = known.witness.name();
            let came = match came {
                Ok(signed) => {
                    self.keep_signed(&signed, kept).await.map(|()| signed).map_err(Trouble::NotKept)
                }
                Err(trouble) => Err(trouble),
            };
            match came {
                Ok(signed) => {
                    head = signed;
                    if let Some(said) = known.standing().signed(size, now) {
                        said.log(name);
                    }
                }
                Err(trouble) => {
                    if let Some(said) = known.standing().failed(trouble, now) {
                        said.log(name);
                    }
                }
            }
        }
    }

    /// Keeps what they signed, with the head. What is not kept is asked for once more, later.
    async fn keep_signed(&self, head: &SignedHead, kept: &Arc<KeptLog>) -> Result<(), String> {
        let is_enough = self.least > 0 && head.seen_by(&self.keys()) >= self.least;
        let (head, kept) = (head.clone(), Arc::clone(kept));
        let written = spawn_blocking(move || kept.cosigned(&head, is_enough)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

impl Known {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        // It is whole after each of its calls.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it answers that signs: once more where it saw another number of entries than was thought.
    async fn ask(&self, head: &SignedHead, kept: &KeptLog) -> Result<String, Trouble> {
        let size = head.head().size;
        let mut old = self.standing().seen().min(size);
        for _ in 0..2 {
            let path = kept.log().look(|book| book.tree().consistency(old, size)).unwrap_or_default();
            let body = head.submission(old, &path).into_bytes();
            let (path, kind) = (self.path.clone(), "text/plain; charset=utf-8");
            let question = Question { path, kind, bearer: None, headers: HeaderMap::new(), body };
            let answer = self.client.post(question, self.limit, MOST_BYTES).await;
            let answer = answer.map_err(|error| Trouble::Away(error.to_string()))?;
            let body = String::from_utf8_lossy(&answer.body);
            match read((answer.status.as_u16(), &answer.kind, &body), (old, size)) {
                Reading::Signed => return Ok(body.into_owned()),
                Reading::Saw(saw) => old = saw,
                Reading::Trouble(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Garbage("it names another size each time that it is asked".to_owned()))
    }
}

impl Said {
    fn log(&self, name: &str) {
        match self {
            Self::Signs => tracing::info!(witness = name, "the witness signs again"),
            Self::Fork(why) => tracing::error!(
                witness = name,
                why,
                "a witness saw another enrollment log of this key than there is here: where this folder came back from a backup, put \
                 a newer one back; where it did not, somebody else has the enrollment key, or keeps a second log with it. Devices \
                 that saw the other log take no part"
            ),
            Self::Fails(why) => {
                tracing::warn!(witness = name, why, "a witness does not sign; it is asked again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
