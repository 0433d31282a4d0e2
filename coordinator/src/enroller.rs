//! Who says which devices exist: this coordinator by itself, or an enrollment authority apart from it.
//!
//! Where it is this coordinator, the enrollment key lies in its folder, and whoever runs it can invent devices. Where the
//! authority is apart, the coordinator never has that key: it hands on what devices say, looks at the answers, and vouches for
//! versions with a key of its own. A folder belongs to the one or to the other for good.

use std::path::{Path, PathBuf};

use aggregation::IdentityPublic;
use authority::asking::{AskError, Link, LinkError};
use authority::bundle::{Bundle, BundleError};
use proto::authority::{AuthorityReply, AuthorityRequest, Introduced, Introduction, Issued};
use proto::convert::{Enrollment, Renewal};
use proto::ids::{DeviceId, Digest};
use proto::message::Rejection;
use ring::rand::SecureRandom;
use shell::store::{Batch, Key, Store, StoreError};

use crate::pki::{EnrollmentKey, PkiError};
use crate::records::tree::DEVICES;

/// The file of the enrollment key, where the coordinator has it.
pub const ENROLLMENT_SEED: &str = "enrolment.seed";

/// The file of the key that vouches for versions, where that is another one.
pub const PUBLISHING_SEED: &str = "publishing.seed";

/// The tree of what is kept of an authority apart, and the key in it of the authority's own.
pub(crate) const TREE: &str = "authority";
const KEY: &str = "key";

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
    Apart(Apart),
}

/// An enrollment authority apart, as its coordinator knows it.
#[derive(Debug)]
pub struct Apart {
    link: Link,
    authority: IdentityPublic,
    publishing: EnrollmentKey,
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
        if let Some((ends, _)) = identity.ends_unix_secs()
            && ends < now_unix_secs.saturating_add(WARNED_SECS)
        {
            let days = ends.saturating_sub(now_unix_secs) / (24 * 3600);
            tracing::warn!(
                days,
                "the certificate in the enrollment authority's file ends soon: make another file by `nightshift-authority \
                 coordinator-file`"
            );
        }
        let publishing = EnrollmentKey::open_or_create(&folder.join(PUBLISHING_SEED), rng)?;
        Ok(Self::Apart(Apart { link, authority: enrollment_key, publishing }))
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
        let answer = self.link.ask(AuthorityRequest::Enroll(asked.clone())).await;
        let issued = self.issued(answer)?;
        if issued.credential.identity == asked.identity { Ok(issued) } else { Err(does_not_hold()) }
    }

    /// Hands a request to renew on. What comes back holds, and is of the device that asked.
    pub(crate) async fn renew(&self, asked: &Renewal) -> Result<Issued, Rejection> {
        let answer = self.link.ask(AuthorityRequest::Renew(asked.clone())).await;
        let issued = self.issued(answer)?;
        let is_its =
            issued.credential.device == asked.device.0 && asked.is_proved_by(&issued.credential.identity);
        if is_its { Ok(issued) } else { Err(does_not_hold()) }
    }

    /// Tells the authority that a device was revoked here. One that the authority does not know needs no telling.
    pub(crate) async fn report(&self, device: DeviceId) -> Result<(), AskError> {
        match self.link.ask(AuthorityRequest::ReportRevoked(device)).await {
            Ok(AuthorityReply::Done) | Err(AskError::Rejected(Rejection::Unacceptable { .. })) => Ok(()),
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
                | AuthorityReply::Token(_)
                | AuthorityReply::TokenList(_)
                | AuthorityReply::Devices { .. }
                | AuthorityReply::Certificate(_),
            )
            | Err(AskError::Unexpected) => return Err(does_not_hold()),
            Err(AskError::Rejected(Rejection::NotEnrolled)) => {
                tracing::error!(
                    "the enrollment authority does not take this coordinator's file any more: make another one by \
                     `nightshift-authority coordinator-file`"
                );
                return Err(unanswered("it does not take this coordinator's certificate"));
            }
            Err(AskError::Rejected(rejection)) if decided_against(&rejection) => {
                return Err(Rejection::NotEnrolled);
            }
            Err(AskError::Rejected(rejection)) => return Err(rejection),
            Err(AskError::Unreachable(why)) => {
                tracing::warn!(
                    why,
                    "a device's enrollment or renewal has no answer of the enrollment authority"
                );
                return Err(unanswered(&why));
            }
        };
        if issued.credential.verify(&self.authority, 0).is_err() {
            return Err(does_not_hold());
        }
        Ok(issued)
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

fn does_not_hold() -> Rejection {
    tracing::error!("an answer of the enrollment authority does not hold");
    Rejection::Unavailable("the enrollment authority's answer does not hold".to_owned())
}
