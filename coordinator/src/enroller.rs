//! Who says which devices exist: this coordinator by itself, or an enrollment authority apart from it.
//!
//! Where it is this coordinator, the enrollment key lies in its folder, and whoever runs it can invent devices. Where the
//! authority is apart, the coordinator never has that key: it hands on what devices say, looks at the answers, and vouches for
//! versions with a key of its own. A folder belongs to the one or to the other for good.

use std::path::{Path, PathBuf};

use aggregation::IdentityPublic;
use aggregation::log::SignedHead;
use authority::asking::{AskError, Link, LinkError};
use authority::bundle::{Bundle, BundleError};
use proto::admin::{AuthorityStatus, LogStatus};
use proto::authority::{AuthorityReply, AuthorityRequest, Introduced, Introduction, Issued};
use proto::convert::{Enrollment, Renewal};
use proto::ids::{DeviceId, Digest};
use proto::message::Rejection;
use ring::rand::SecureRandom;
use shell::store::{Batch, Key, Store, StoreError};

use crate::driver;
use crate::kept_log::{KeptLog, LogError};
use crate::pki::{EnrollmentKey, PkiError};
use crate::records::tree::DEVICES;
use crate::seldom::Seldom;

mod touch;

pub(crate) use touch::News;
use touch::Touch;

/// The file of the enrollment key, where the coordinator has it.
pub const ENROLLMENT_SEED: &str = "enrolment.seed";

/// The file of the key that vouches for versions, where that is another one.
pub const PUBLISHING_SEED: &str = "publishing.seed";

/// The tree of what is kept of an authority apart, and the key in it of the authority's own.
pub(crate) const TREE: &str = "authority";
pub(crate) const KEY: &str = "key";

/// A warning comes so long before the end of the coordinator's certificate, in seconds.
const WARNED_SECS: u64 = 30 * 24 * 3600;

/// Why it cannot be said who enrolls devices.
#[derive(Debug, thiserror::Error)]
pub enum EnrollerError {
    /// A key of the coordinator's own.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The file of the authority apart.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What that file says.
    #[error("{}: {source}", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LinkError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There would be two.
    #[error(
        "the configuration names an enrollment authority apart ([authority] file), and {} holds an enrollment key of this \
         coordinator's own ({ENROLLMENT_SEED}): two cannot say which devices exist. Take the file out of the configuration, or \
         begin with a state folder of its own, in which devices enroll anew",
        .0.display()
    )]
    Both(PathBuf),
    /// The folder's devices are of the coordinator's own key.
    #[error(
        "the devices in {} were enrolled by a key of this coordinator's own; with an enrollment authority apart ([authority] \
         file) begin with a state folder of its own, in which devices enroll anew",
        .0.display()
    )]
    OwnDevices(PathBuf),
    /// The folder's devices are of another authority.
    #[error(
        "the devices in {} were enrolled by the enrollment authority {kept}, and the file {} is of {found}; use a file of \
         that authority", folder.display(), file.display()
    )]
    OtherAuthority {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: PathBuf,
        /// Which authority it was.
        kept: Digest,
        /// Which one the file is of.
        found: Digest,
    },
    /// The folder's devices are of an authority apart.
    #[error(
        "the devices in {} were enrolled by an enrollment authority apart; name its file in the configuration: [authority] file",
        .0.display()
    )]
    WithoutFile(PathBuf),
}

/// Who says which devices exist.
#[derive(Debug)]
pub enum Enroller {
    /// This coordinator: it has the enrollment key.
    Here(EnrollmentKey),
    /// An authority apart.
    Apart(Box<Apart>),
}

/// An enrollment authority apart, as its coordinator knows it.
#[derive(Debug)]
pub struct Apart {
    link: Link,
    authority: IdentityPublic,
    publishing: EnrollmentKey,
    /// When the certificate ends that is shown to it.
    ends_unix_secs: u64,
    /// How it was when it was last asked.
    pub(crate) touch: Touch,
    /// What goes wrong is said once a minute: whoever may enroll could have it said as often as they like.
    said: Seldom,
}

impl Enroller {
    /// Who it is by the configuration, in which `file` names an authority apart where it is not empty, and by what the folder
    /// holds. For use in a runtime only.
    pub fn open(
        folder: &Path,
        file: &Path,
        store: &Store,
        (rng, now_unix_secs): (&dyn SecureRandom, u64),
    ) -> Result<Self, EnrollerError> {
        let seed = folder.join(ENROLLMENT_SEED);
        let kept: Option<Digest> = store.get(TREE, KEY)?;
        if file.as_os_str().is_empty() {
            if kept.is_some() {
                return Err(EnrollerError::WithoutFile(folder.to_owned()));
            }
            return Ok(Self::Here(EnrollmentKey::open_or_create(&seed, rng)?));
        }
        if seed.symlink_metadata().is_ok() {
            return Err(EnrollerError::Both(folder.to_owned()));
        }
        let Bundle { address, enrollment_key, identity } = Bundle::load(file)?;
        let found = Digest(enrollment_key.0);
        match kept {
            Some(kept) if kept == found => {}
            Some(kept) => {
                let (folder, file) = (folder.to_owned(), file.to_owned());
                return Err(EnrollerError::OtherAuthority { folder, file, kept, found });
            }
            None => {
                let devices = store.scan_prefix::<serde::de::IgnoredAny>(DEVICES, &Key::default())?;
                if devices.count() > 0 {
                    return Err(EnrollerError::OwnDevices(folder.to_owned()));
                }
                let mut batch = Batch::new();
                batch.put(TREE, KEY, &found)?;
                store.commit_blocking(&batch)?;
            }
        }
        let link = Link::new(&address, &identity);
        let link = link.map_err(|source| EnrollerError::Link { path: file.to_owned(), source })?;
        let ends_unix_secs = identity.ends_unix_secs().map_or(0, |(own, _)| own);
        if ends_unix_secs < now_unix_secs.saturating_add(WARNED_SECS) {
            let days = ends_unix_secs.saturating_sub(now_unix_secs) / (24 * 3600);
            tracing::warn!(
                days,
                "the certificate in the enrollment authority's file ends soon: make another file by `nightshift-authority \
                 coordinator-file`"
            );
        }
        let publishing = EnrollmentKey::open_or_create(&folder.join(PUBLISHING_SEED), rng)?;
        let (touch, said) = (Touch::default(), Seldom::new());
        let authority = enrollment_key;
        Ok(Self::Apart(Box::new(Apart { link, authority, publishing, ends_unix_secs, touch, said })))
    }

    /// The key that verifies devices' credentials.
    pub fn public(&self) -> IdentityPublic {
        match self {
            Self::Here(key) => key.public(),
            Self::Apart(apart) => apart.authority,
        }
    }

    /// The key that vouches for versions.
    pub fn publishing(&self) -> &EnrollmentKey {
        match self {
            Self::Here(key) => key,
            Self::Apart(apart) => &apart.publishing,
        }
    }

    /// What a device is told of that key, where it is not the one that verifies credentials.
    pub fn publisher(&self) -> Option<IdentityPublic> {
        match self {
            Self::Here(_) => None,
            Self::Apart(apart) => Some(apart.publishing.public()),
        }
    }

    /// The enrollment key, where it is here.
    pub fn here(&self) -> Option<&EnrollmentKey> {
        match self {
            Self::Here(key) => Some(key),
            Self::Apart(_) => None,
        }
    }

    /// The log of all that was stated of devices: this coordinator's own, or a copy of the authority's. Blocks.
    pub fn open_log(&self, store: &Store) -> Result<KeptLog, LogError> {
        match self {
            Self::Here(key) => KeptLog::open(store.clone(), key.public()),
            Self::Apart(apart) => KeptLog::open_copy(store.clone(), apart.authority),
        }
    }

    /// The authority, where it is apart.
    pub fn apart(&self) -> Option<&Apart> {
        match self {
            Self::Here(_) => None,
            Self::Apart(apart) => Some(apart),
        }
    }

    /// Who it is, in one line, for whoever starts the coordinator.
    pub fn says(&self) -> String {
        match self {
            Self::Here(_) => "the enrollment key is in this process: whoever runs it can invent devices; \
                              nightshift-authority keeps it apart (SECURITY.md)"
                .to_owned(),
            Self::Apart(apart) => {
                format!("devices are enrolled by the enrollment authority at {}", apart.link.address())
            }
        }
    }
}

impl Apart {
    /// Hands a request to enroll on. What comes back holds, and is of this request's identity key.
    pub(crate) async fn enroll(&self, asked: &Enrollment) -> Result<Issued, Rejection> {
        let answer = self.link.ask(AuthorityRequest::Enroll(Box::new(asked.clone()))).await;
        let issued = self.issued(answer)?;
        if issued.credential.identity == asked.identity { Ok(issued) } else { Err(self.does_not_hold()) }
    }

    /// Hands a request to renew on. What comes back holds, and is of the device that asked.
    pub(crate) async fn renew(&self, asked: &Renewal) -> Result<Issued, Rejection> {
        let answer = self.link.ask(AuthorityRequest::Renew(asked.clone())).await;
        let issued = self.issued(answer)?;
        let is_its =
            issued.credential.device == asked.device.0 && asked.is_proved_by(&issued.credential.identity);
        if is_its { Ok(issued) } else { Err(self.does_not_hold()) }
    }

    /// Tells the authority that a device was revoked here. One that the authority does not know needs no telling.
    pub(crate) async fn report(&self, device: DeviceId) -> Result<(), AskError> {
        match self.link.ask(AuthorityRequest::ReportRevoked(device)).await {
            Ok(AuthorityReply::Done) => Ok(()),
            Ok(_) => Err(AskError::Unexpected),
            Err(error) => Err(error),
        }
    }

    /// Tells the authority where devices find the coordinator, and hears whom to shut out.
    pub(crate) async fn introduce(&self, introduction: Introduction) -> Result<Introduced, AskError> {
        match self.link.ask(AuthorityRequest::Introduce(introduction)).await? {
            AuthorityReply::Introduced(told) if told.authority == self.authority => Ok(told),
            AuthorityReply::Introduced(_) => Err(AskError::Unreachable(
                "it has another enrollment key than its file says: make another file".to_owned(),
            )),
            AuthorityReply::Issued(_)
            | AuthorityReply::Done
            | AuthorityReply::Log(_)
            | AuthorityReply::LogStatus(_)
            | AuthorityReply::Token(_)
            | AuthorityReply::TokenList(_)
            | AuthorityReply::Devices { .. }
            | AuthorityReply::Certificate(_) => Err(AskError::Unexpected),
        }
    }

    /// The authority's log behind so many entries that are known: all further ones, and its head.
    pub(crate) async fn log_behind(&self, known: u64) -> Result<(Vec<Vec<u8>>, String), AskError> {
        let mut entries = Vec::new();
        loop {
            let from = known + entries.len() as u64;
            let part = match self.link.ask(AuthorityRequest::ReadLog { from }).await? {
                AuthorityReply::Log(part) => part,
                AuthorityReply::LogStatus(_)
                | AuthorityReply::Issued(_)
                | AuthorityReply::Introduced(_)
                | AuthorityReply::Done
                | AuthorityReply::Token(_)
                | AuthorityReply::TokenList(_)
                | AuthorityReply::Devices { .. }
                | AuthorityReply::Certificate(_) => return Err(AskError::Unexpected),
            };
            let came = part.entries.len();
            entries.extend(part.entries);
            let size = SignedHead::parse(&part.head, &self.authority).map(|head| head.head().size);
            if came == 0 || size.is_ok_and(|size| known + entries.len() as u64 >= size) {
                return Ok((entries, part.head));
            }
        }
    }

    /// How it is, as far as is known.
    pub(crate) fn status(&self) -> AuthorityStatus {
        let certificate_expires_unix_secs = self.ends_unix_secs;
        AuthorityStatus { certificate_expires_unix_secs, ..self.touch.status(self.link.address()) }
    }

    /// How the authority's log is by its own word, and who signs it; none where it does not say.
    pub(crate) async fn show_log(&self) -> Option<LogStatus> {
        match self.link.ask(AuthorityRequest::ShowLog).await {
            Ok(AuthorityReply::LogStatus(log)) => Some(log),
            // One of before knows no such question.
            Ok(_) | Err(_) => None,
        }
    }

    /// Has the authority write an entry of a version into its log.
    pub(crate) async fn log_version(&self, entry: Vec<u8>) -> Result<(), AskError> {
        match self.link.ask(AuthorityRequest::LogVersion(entry)).await? {
            AuthorityReply::Done => Ok(()),
            AuthorityReply::Issued(_)
            | AuthorityReply::Introduced(_)
            | AuthorityReply::Log(_)
            | AuthorityReply::LogStatus(_)
            | AuthorityReply::Token(_)
            | AuthorityReply::TokenList(_)
            | AuthorityReply::Devices { .. }
            | AuthorityReply::Certificate(_) => Err(AskError::Unexpected),
        }
    }

    fn issued(&self, answer: Result<AuthorityReply, AskError>) -> Result<Issued, Rejection> {
        let issued = match answer {
            Ok(AuthorityReply::Issued(issued)) => issued,
            Ok(
                AuthorityReply::Introduced(_)
                | AuthorityReply::Done
                | AuthorityReply::Log(_)
                | AuthorityReply::LogStatus(_)
                | AuthorityReply::Token(_)
                | AuthorityReply::TokenList(_)
                | AuthorityReply::Devices { .. }
                | AuthorityReply::Certificate(_),
            )
            | Err(AskError::Unexpected) => return Err(self.does_not_hold()),
            Err(AskError::Rejected(Rejection::NotEnrolled)) => {
                if self.may_say() {
                    tracing::error!(
                        "the enrollment authority does not take this coordinator's file any more: make another one by \
                         `nightshift-authority coordinator-file`"
                    );
                }
                return Err(unanswered("it does not take this coordinator's certificate"));
            }
            Err(AskError::Rejected(rejection)) if decided_against(&rejection) => {
                return Err(Rejection::NotEnrolled);
            }
            Err(AskError::Rejected(rejection)) => return Err(rejection),
            Err(AskError::Unreachable(why)) => {
                if self.may_say() {
                    tracing::warn!(
                        why,
                        "an enrollment or a renewal has no answer of the enrollment authority"
                    );
                }
                return Err(unanswered(&why));
            }
        };
        if issued.credential.verify(&self.authority, 0).is_err() {
            return Err(self.does_not_hold());
        }
        Ok(issued)
    }

    fn does_not_hold(&self) -> Rejection {
        if self.may_say() {
            tracing::error!("an answer of the enrollment authority does not hold");
        }
        Rejection::Unavailable("the enrollment authority's answer does not hold".to_owned())
    }

    pub(crate) fn may_say(&self) -> bool {
        self.said.may_say(driver::now())
    }
}

/// Whether the authority says that there is no such device.
fn decided_against(rejection: &Rejection) -> bool {
    matches!(rejection, Rejection::Unacceptable { request, .. } if request == authority::decide::NO_DEVICE)
}

/// What a device is told where the authority does not answer. Its token is used up only for its own keys, which it keeps.
fn unanswered(why: &str) -> Rejection {
    Rejection::Unavailable(format!(
        "the enrollment authority does not answer ({why}); nothing is lost: the same request will do later"
    ))
}

#[cfg(test)]
mod tests {
    use aggregation::IdentityKey;
    use ring::rand::SystemRandom;
    use serving::pki::{Authority, Identity, Validity};

    use super::*;
    use crate::records::{self, DeviceRecord};

    const NOW: u64 = 1_800_000_000;

    /// The file of an authority that has this key, and runs nowhere.
    fn file(folder: &Path, seed: u8) -> PathBuf {
        let validity = Validity::lasting(1000, NOW);
        let authority = Authority::open_or_create(&folder.join(format!("ca-{seed}")), validity).unwrap();
        let (key, request) = Identity::request().unwrap();
        let name = "owl".parse().unwrap();
        let signed = authority.sign_coordinator(&request, &name, validity, &SystemRandom::new()).unwrap();
        let identity = key.with_chain(&authority.chain_pem(&signed)).unwrap();
        let enrollment_key = IdentityKey::from_seed(&[seed; 32]).public();
        let path = folder.join(format!("{seed}.toml"));
        Bundle { address: "127.0.0.1:1".into(), enrollment_key, identity }.save(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn a_folder_belongs_to_its_own_key_or_to_one_authority_for_good() {
        let root = tempfile::tempdir().unwrap();
        let (ours, theirs) = (file(root.path(), 1), file(root.path(), 2));
        let open = |folder: &Path, file: &Path| {
            let store = Store::open(&folder.join("store")).unwrap();
            Enroller::open(folder, file, &store, (&SystemRandom::new(), NOW))
        };
        let nowhere = Path::new("");

        let apart = root.path().join("apart");
        let enroller = open(&apart, &ours).unwrap();
        assert_eq!(enroller.public(), IdentityKey::from_seed(&[1; 32]).public());
        assert_eq!(enroller.publisher(), Some(enroller.publishing().public()));
        assert_ne!(enroller.publisher(), Some(enroller.public()));
        assert!(!apart.join(ENROLLMENT_SEED).exists());
        let published = enroller.publisher();
        assert_eq!(open(&apart, &ours).unwrap().publisher(), published, "the same after a restart");
        assert!(matches!(open(&apart, &theirs), Err(EnrollerError::OtherAuthority { .. })));
        assert!(matches!(open(&apart, nowhere), Err(EnrollerError::WithoutFile(_))));

        let here = root.path().join("here");
        let enroller = open(&here, nowhere).unwrap();
        assert_eq!((enroller.publisher(), enroller.publishing().public()), (None, enroller.public()));
        assert!(matches!(open(&here, &ours), Err(EnrollerError::Both(_))));
        // Whoever takes the key away has its devices still.
        {
            let store = Store::open(&here.join("store")).unwrap();
            let record = DeviceRecord::new("anna".into(), IdentityPublic([3; 32]), NOW, NOW);
            let mut batch = Batch::new();
            records::insert_device(&mut batch, DeviceId([4; 16]), &record).unwrap();
            store.commit_blocking(&batch).unwrap();
        }
        std::fs::remove_file(here.join(ENROLLMENT_SEED)).unwrap();
        assert!(matches!(open(&here, &ours), Err(EnrollerError::OwnDevices(_))));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_the_authority_s_is_none() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        let path = file(root.path(), 1);
        let enroller = Enroller::open(root.path(), &path, &store, (&SystemRandom::new(), NOW)).unwrap();
        let apart = enroller.apart().unwrap();
        let device = IdentityKey::from_seed(&[3; 32]).public();
        let issued = |seed| {
            let credential =
                aggregation::Credential::issue(&IdentityKey::from_seed(&[seed; 32]), [4; 16], device, NOW);
            Issued { credential, issued_unix_secs: NOW, label: String::new(), attested: None }
        };
        assert_eq!(apart.issued(Ok(AuthorityReply::Issued(issued(1)))), Ok(issued(1)));
        for answer in
            [Ok(AuthorityReply::Issued(issued(2))), Ok(AuthorityReply::Done), Err(AskError::Unexpected)]
        {
            assert!(matches!(apart.issued(answer), Err(Rejection::Unavailable(_))));
        }
        // That the coordinator may not call is not said of the device.
        let turned_away = apart.issued(Err(AskError::Rejected(Rejection::NotEnrolled)));
        assert!(matches!(turned_away, Err(Rejection::Unavailable(_))));
        let no_device = authority::decide::Refusal::NotEnrolled.into();
        assert_eq!(apart.issued(Err(AskError::Rejected(no_device))), Err(Rejection::NotEnrolled));
    }
}
