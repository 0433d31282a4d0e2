//! What the session asks its shell to do, and what it hears of what came of it.

use std::sync::Arc;

use aggregation::Credential;
use aggregation::log::Seen;
use proto::ids::{Digest, Timestamp};
use proto::message::{Before, Published, Rejection, Reply, Request};
use proto::plan::Plan;

use super::{Signed, Work};
use crate::policy::Breach;
use crate::spending::{Charge, Found};
use crate::update::Update;

/// What the shell must do now.
#[derive(Clone, Debug)]
pub enum Action {
    /// Nothing until then; then [`Event::Woke`].
    Sleep(Timestamp),
    /// Send this; then [`Event::Replied`], [`Event::Rejected`] or [`Event::Unreachable`].
    Send(Request),
    /// Ask for the next certificate and credential, and keep them; then [`Event::Renewed`], [`Event::Rejected`] or
    /// [`Event::Unreachable`].
    Renew {
        /// Whether the coordinator still takes the certificate that there is; else it is asked without one.
        has_certificate: bool,
    },
    /// Fetch the version's plan; then [`Event::PlanLoaded`].
    LoadPlan(Published),
    /// Look whether this device has the plan's layers, and the memory for what is loaded and for the training; fetch the
    /// version's adapter, the frozen factors where their hash is given, and what earlier epochs left where the version
    /// names it; then [`Event::Loaded`], or [`Event::CannotTrain`] before anything is fetched.
    Load {
        /// The version.
        published: Published,
        /// The hash of the frozen factors, where the plan names some.
        frozen: Option<Digest>,
        /// Its plan.
        plan: Arc<Plan>,
        /// Whether it is loaded to be trained from.
        trains: bool,
        /// The version before, where the plan asks what this one gained.
        before: Option<Before>,
    },
    /// Write these charges to the ledger and sync it: the coordinator knows of them and the ledger does not; then
    /// [`Event::Recorded`].
    RecordFound(Found),
    /// Keep this version for the user; then [`Event::Recorded`], or [`Event::CannotTrain`] where it cannot be kept.
    Install(Arc<Work>),
    /// Train; then [`Event::Trained`], [`Event::NotTrained`], [`Event::NoText`], [`Event::TrainerFailed`] or
    /// [`Event::CannotTrain`].
    Train(Arc<Work>),
    /// Write this to the ledger and sync it; then [`Event::Recorded`].
    Charge(Charge),
    /// Write down that these are the times in the last day at which this device took part in drawing a graph, and
    /// sync it; then [`Event::Recorded`].
    RecordDraws(Vec<Timestamp>),
    /// Write down that this is what the device has seen of the enrollment log, and sync it; then [`Event::Recorded`].
    RecordLog(Seen),
    /// Write this to the ledger and sync it; then [`Event::Recorded`].
    RecordSignature(Signed),
    /// Write this to the ledger and sync it; then [`Event::Recorded`].
    RecordAnswer(Signed),
}

/// The artefacts' bytes of the version before.
#[derive(Clone, Debug, Default)]
pub struct LoadedBefore {
    /// The adapter's.
    pub adapter: Vec<u8>,
    /// Those of what the epochs before it left, where it names it.
    pub folded: Option<Vec<u8>>,
}

/// What came of an action.
#[derive(Debug)]
pub enum Event {
    /// The time has come.
    Woke,
    /// The coordinator answered.
    Replied(Reply),
    /// The coordinator turned the request away.
    Rejected(Rejection),
    /// The coordinator could not be reached.
    Unreachable,
    /// The coordinator says that this device's certificate has ended.
    CertificateEnded,
    /// The next certificate is there and kept.
    Renewed {
        /// The enrolment authority's statement that came with it.
        credential: Credential,
        /// When both were made, by the coordinator's clock; 0 where it does not say.
        issued_unix_secs: u64,
    },
    /// The plan's bytes.
    PlanLoaded(Vec<u8>),
    /// The artefacts' bytes.
    Loaded {
        /// The adapter's.
        adapter: Vec<u8>,
        /// The frozen factors', where the plan names some by hash.
        frozen: Option<Vec<u8>>,
        /// Those of what earlier epochs left, where the version names it.
        folded: Option<Vec<u8>>,
        /// Those of the version before, where it was asked for.
        before: Option<LoadedBefore>,
    },
    /// The update of local training.
    Trained(Update),
    /// Training did not come to an end.
    NotTrained(String),
    /// There is no text of the user to train on now, as this says: none was written yet, or its disk is not there.
    NoText(String),
    /// What trains broke, as this says: it died, hung, or gave what is no update.
    TrainerFailed(String),
    /// The device has not the memory or the time for the training.
    CannotTrain(Breach),
    /// The device may not train now: no window is open, or it closed during the training.
    NoWindow,
    /// A window for training opened.
    WindowOpened,
    /// The clock was set to another time: what was to be waited for by the old one has no meaning.
    ClockStepped,
    /// What had to be durable is.
    Recorded,
    /// What has to be durable cannot be written now: the others of a round go on without this device.
    LeavesRound,
}
