//! `nightshift.json`, beside every export: which base it is for, where the numbers came from, and what its files hash to.

use std::collections::BTreeMap;

use aggregation::{IdentityKey, IdentityPublic, Signature};
use proto::admin::{TaskStatus, VersionStatus};
use proto::ids::{Digest, TaskId};
use serde::{Deserialize, Serialize};

/// The name of the manifest in an export's folder.
pub const MANIFEST_FILE: &str = "nightshift.json";

/// What a release's signature is bound to.
const DOMAIN: &str = "nightshift release v1";

/// What an export is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Manifest {
    /// The base that the adapter is for, or was merged into.
    pub base: Digest,
    /// Where the numbers came from.
    pub origin: Origin,
    /// The SHA-256 of each file beside the manifest, by its name.
    pub files: BTreeMap<String, Digest>,
}

/// Where an adapter's numbers came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// From a folder that does not say.
    Unknown,
    /// From one person's text, trained on one machine for its user alone.
    Personal(Personal),
    /// From a task, as a device or an operator fetched it; nobody vouches for it here.
    Version(Version),
    /// From a task, and its coordinator vouches for it.
    Release(SignedRelease),
}

/// How an adapter was trained that was never averaged with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Personal {
    /// What the batches were drawn by.
    pub seed: u64,
    /// Steps of the optimiser.
    pub steps: u32,
    /// Documents that were trained on.
    pub documents: u64,
    /// Tokens that were trained on, each counted once.
    pub tokens: u64,
}

/// A version of a task's adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The task.
    pub task: TaskId,
    /// The version.
    pub version: u32,
    /// The plan's hash.
    pub plan: Digest,
    /// The hash of the trained parameters as they were published.
    pub adapter: Digest,
}

/// What a coordinator says of a version that came out of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Release {
    /// Which version.
    pub version: Version,
    /// The version that its devices trained from.
    pub parent: u32,
    /// The number of its round.
    pub round: u64,
    /// Devices in its round's sum.
    pub survivors: u32,
    /// ε of the device that took part most often up to this version; infinite without noise.
    pub epsilon: f64,
    /// The δ of ε.
    pub delta: f64,
}

/// A [`Release`] with a coordinator's signature.
///
/// The signature is Ed25519 by the enrolment authority's key, the one that every device of the coordinator pinned when it
/// enrolled. It covers, each with its length in front, under the domain `nightshift release v1`: the base's digest, the task,
/// the version, the plan's and the adapter's digests, the parent version, the round, the survivors, ε and δ (integers
/// and the bits of numbers big-endian). It does not cover the hashes of the files: those follow from the adapter by the
/// plan, and change with the form of the export and with the name that it gives the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRelease {
    /// What is said.
    pub release: Release,
    /// Who says it.
    pub key: IdentityPublic,
    /// Over what is said and the base.
    pub signature: Signature,
}

/// A manifest that is none, or that something else than what is there was signed or hashed for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Bytes that are no manifest.
    #[error("{MANIFEST_FILE} cannot be read: {0}")]
    Unreadable(String),
    /// The signature is not over these values by this key.
    #[error("the signature in {MANIFEST_FILE} does not fit what it says of version {version} of task {task}")]
    Signature {
        /// The task.
        task: TaskId,
        /// The version.
        version: u32,
    },
    /// Somebody else signed.
    #[error("{MANIFEST_FILE} is signed by the key {found}, not by {expected}")]
    Key {
        /// The key that was expected, in hex.
        expected: String,
        /// The key that signed, in hex.
        found: String,
    },
    /// A file is not the one that was written.
    #[error("{file} hashes to {found}, {MANIFEST_FILE} says {expected}: one of the two was changed")]
    File {
        /// The file.
        file: String,
        /// Its hash in the manifest.
        expected: Digest,
        /// Its hash.
        found: Digest,
    },
}

impl Release {
    /// What the coordinator knows of one of a task's versions.
    pub fn of(task: &TaskStatus, version: &VersionStatus) -> Self {
        let parent = version.version.saturating_sub(1);
        let (number, adapter) = (version.version, version.adapter);
        Self {
            version: Version { task: task.task, version: number, plan: task.plan, adapter },
            parent,
            round: version.round,
            survivors: version.survivors,
            epsilon: version.epsilon,
            delta: task.delta,
        }
    }

    /// The same, vouched for; `base` is the one of the task's plan.
    pub fn sign(self, base: &Digest, key: &IdentityKey) -> SignedRelease {
        let signature = self.with_parts(base, |parts| key.sign(DOMAIN, parts));
        SignedRelease { release: self, key: key.public(), signature }
    }

    fn with_parts<T>(&self, base: &Digest, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let Version { task, version, plan, adapter } = &self.version;
        then(&[
            &base.0,
            &task.0,
            &version.to_be_bytes(),
            &plan.0,
            &adapter.0,
            &self.parent.to_be_bytes(),
            &self.round.to_be_bytes(),
            &self.survivors.to_be_bytes(),
            &self.epsilon.to_bits().to_be_bytes(),
            &self.delta.to_bits().to_be_bytes(),
        ])
    }
}

impl SignedRelease {
    /// Fails unless `key` signed exactly this for `base`.
    pub fn verify(&self, base: &Digest, key: &IdentityPublic) -> Result<(), ManifestError> {
        if self.key != *key {
            let (expected, found) = (hex::encode(key.0), hex::encode(self.key.0));
            return Err(ManifestError::Key { expected, found });
        }
        if self.release.with_parts(base, |parts| key.verify(DOMAIN, parts, &self.signature)) {
            return Ok(());
        }
        let Version { task, version, .. } = self.release.version;
        Err(ManifestError::Signature { task, version })
    }
}

impl Manifest {
    /// A manifest of files that were hashed already.
    pub fn new(base: Digest, origin: Origin, files: impl IntoIterator<Item = (String, Digest)>) -> Self {
        Self { base, origin, files: files.into_iter().collect() }
    }

    /// Reads a manifest; fails where it is none, and where its signature does not fit it. Whose signature it is
    /// [`SignedRelease::verify`] says.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        if let Origin::Release(signed) = &manifest.origin {
            signed.verify(&manifest.base, &signed.key)?;
        }
        Ok(manifest)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        serde_json::to_vec_pretty(self).map_err(|error| ManifestError::Unreadable(error.to_string()))
    }

    /// Fails where the manifest names this file with another hash.
    pub fn check_file(&self, name: &str, bytes: &[u8]) -> Result<(), ManifestError> {
        let found = Digest::of(bytes);
        match self.files.get(name) {
            Some(expected) if *expected != found => {
                Err(ManifestError::File { file: name.to_owned(), expected: *expected, found })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The file as it is written: what does not apply is left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    base: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    personal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    survivors: Option<u32>,
    /// Left out beside a δ: no noise, and so no ε.
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    files: BTreeMap<String, Digest>,
}

impl From<Manifest> for Raw {
    fn from(manifest: Manifest) -> Self {
        let raw = Self { base: Some(manifest.base), files: manifest.files, ..Self::default() };
        match manifest.origin {
            Origin::Unknown => raw,
            Origin::Personal(Personal { seed, steps, documents, tokens }) => Self {
                personal: Some(true),
                seed: Some(seed),
                steps: Some(steps),
                documents: Some(documents),
                tokens: Some(tokens),
                ..raw
            },
            Origin::Version(version) => raw.with_version(version),
            Origin::Release(SignedRelease { release, key, signature }) => Self {
                parent: Some(release.parent),
                round: Some(release.round),
                survivors: Some(release.survivors),
                epsilon: Some(release.epsilon).filter(|epsilon| epsilon.is_finite()),
                delta: Some(release.delta),
                signed_by: Some(hex::encode(key.0)),
                signature: Some(hex::encode(signature.0)),
                ..raw.with_version(release.version)
            },
        }
    }
}

impl Raw {
    fn with_version(self, version: Version) -> Self {
        let Version { task, version, plan, adapter } = version;
        Self { task: Some(task), version: Some(version), plan: Some(plan), adapter: Some(adapter), ..self }
    }

    fn origin(&self) -> Result<Origin, String> {
        let task = [
            ("task", self.task.is_some()),
            ("version", self.version.is_some()),
            ("plan", self.plan.is_some()),
            ("adapter", self.adapter.is_some()),
        ];
        let signed = [
            ("parent", self.parent.is_some()),
            ("round", self.round.is_some()),
            ("survivors", self.survivors.is_some()),
            ("delta", self.delta.is_some()),
            ("signed_by", self.signed_by.is_some()),
            ("signature", self.signature.is_some()),
        ];
        let own = [
            ("seed", self.seed.is_some()),
            ("steps", self.steps.is_some()),
            ("documents", self.documents.is_some()),
            ("tokens", self.tokens.is_some()),
        ];
        let personal = self.personal == Some(true);
        if own.iter().chain(&task).chain(&signed).all(|(_, there)| !there) && !personal {
            return Ok(Origin::Unknown);
        }
        let (needed, refused): (Vec<_>, Vec<_>) = if personal {
            (own.to_vec(), [&task[..], &signed].concat())
        } else if signed.iter().any(|(_, there)| *there) || self.epsilon.is_some() {
            ([&task[..], &signed].concat(), own.to_vec())
        } else {
            (task.to_vec(), own.to_vec())
        };
        if let Some((name, _)) = needed.iter().find(|(_, there)| !there) {
            return Err(format!("`{name}` is missing"));
        }
        if let Some((name, _)) = refused.iter().find(|(_, there)| *there) {
            return Err(format!("`{name}` does not belong to a manifest of this kind"));
        }
        self.whole().ok_or_else(|| "its values do not fit one another".to_owned())
    }

    /// The origin, where all that it needs is there.
    fn whole(&self) -> Option<Origin> {
        if self.personal == Some(true) {
            let (seed, steps) = (self.seed?, self.steps?);
            let (documents, tokens) = (self.documents?, self.tokens?);
            return Some(Origin::Personal(Personal { seed, steps, documents, tokens }));
        }
        let (task, version) = (self.task?, self.version?);
        let version = Version { task, version, plan: self.plan?, adapter: self.adapter? };
        let Some(text) = &self.signature else { return Some(Origin::Version(version)) };
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        hex::decode_to_slice(self.signed_by.as_ref()?, &mut key).ok()?;
        hex::decode_to_slice(text, &mut signature).ok()?;
        let release = Release {
            version,
            parent: self.parent?,
            round: self.round?,
            survivors: self.survivors?,
            epsilon: self.epsilon.unwrap_or(f64::INFINITY),
            delta: self.delta?,
        };
        Some(Origin::Release(SignedRelease {
            release,
            key: IdentityPublic(key),
            signature: Signature(signature),
        }))
    }
}

impl TryFrom<Raw> for Manifest {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let origin = raw.origin()?;
        Ok(Self { base: raw.base.ok_or("`base` is missing")?, origin, files: raw.files })
    }
}
