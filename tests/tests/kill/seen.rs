//! What has passed on the wire, in the words of rounds and devices; two stories about one thing are an error.

use std::collections::{BTreeMap, BTreeSet};

use aggregation::UnmaskShares;
use proto::ids::{DeviceId, Digest, SessionId};
use proto::message::{Outcome, Published, Reply, Request};

/// What has passed on the wire.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    rounds: BTreeMap<SessionId, u64>,
    rosters: BTreeMap<SessionId, Vec<DeviceId>>,
    /// Devices whose masked chunks were on the way in a round.
    pub(crate) chunks: BTreeSet<(DeviceId, u64)>,
    /// With whom a device signed that it masked in a round.
    pub(crate) sharing: BTreeMap<(DeviceId, u64), [u8; 64]>,
    /// The signature of a device over who survived in a round.
    signatures: BTreeMap<(DeviceId, u64), [u8; 64]>,
    /// What a device revealed in a round.
    revealed: BTreeMap<(DeviceId, u64), UnmaskShares>,
    /// Whether it was the share of the own mask that left any device, or that of the key.
    kinds: BTreeMap<(DeviceId, u64), &'static str>,
    /// Whom devices were told to be in the sum of a round.
    pub(crate) survivors: BTreeMap<u64, BTreeSet<DeviceId>>,
    /// Rounds that devices were told to have been published.
    pub(crate) published: BTreeSet<u64>,
    /// The versions that devices were told of.
    pub(crate) versions: BTreeMap<u32, Digest>,
    /// What contradicts something earlier.
    pub(crate) contradictions: Vec<String>,
}

impl Seen {
    /// The number of a session's round.
    pub(crate) fn round(&self, session: SessionId) -> Option<u64> {
        self.rounds.get(&session).copied()
    }

    pub(crate) fn request(&mut self, device: DeviceId, request: &Request) {
        match request {
            Request::MaskedChunk { session, .. } => {
                let round = self.known(*session);
                self.chunks.insert((device, round));
            }
            Request::MaskedDone { session, sharing, .. } => {
                let round = self.known(*session);
                let first = *self.sharing.entry((device, round)).or_insert(sharing.0);
                self.agree("sharers that a device signed", round, &first, &sharing.0);
            }
            Request::Agree { session, signature } => {
                let round = self.known(*session);
                let first = *self.signatures.entry((device, round)).or_insert(signature.0);
                self.agree("signatures of a device", round, &first, &signature.0);
            }
            Request::Unmask { session, shares } => {
                let round = self.known(*session);
                let first = self.revealed.entry((device, round)).or_insert_with(|| shares.clone()).clone();
                self.agree("answers of a device", round, &first, shares);
                let alive = shares.self_mask.iter().map(|(place, _)| (place, "own mask"));
                let missing = shares.key.iter().map(|(place, _)| (place, "key"));
                for (place, kind) in alive.chain(missing) {
                    let owner = self.rosters[session][usize::from(*place)];
                    let first = *self.kinds.entry((owner, round)).or_insert(kind);
                    self.agree("kinds of share of a device", round, &first, &kind);
                }
            }
            Request::CheckIn(_)
            | Request::Fetch { .. }
            | Request::Join { .. }
            | Request::Decline { .. }
            | Request::Advertise { .. }
            | Request::Draw { .. }
            | Request::ShareKeys { .. } => {}
        }
    }

    pub(crate) fn reply(&mut self, request: &Request, reply: &Reply) {
        match (request.session(), reply) {
            (_, Reply::Offer { session, round, .. }) => {
                let first = *self.rounds.entry(*session).or_insert(*round);
                self.agree("numbers of a session", *round, &first, round);
                let of_number = self.rounds.values().filter(|number| *number == round).count();
                self.agree("sessions of a round", *round, &1, &of_number);
            }
            (Some(session), Reply::Roster { entries: roster, .. }) => {
                let devices: Vec<DeviceId> =
                    roster.iter().map(|entry| DeviceId(entry.credential.device)).collect();
                let first = self.rosters.entry(session).or_insert_with(|| devices.clone()).clone();
                self.agree("rosters", self.known(session), &first, &devices);
            }
            (Some(session), Reply::Survivors(places)) => {
                let round = self.known(session);
                let roster = &self.rosters[&session];
                let devices: BTreeSet<DeviceId> =
                    places.iter().map(|place| roster[usize::from(place)]).collect();
                let first = self.survivors.entry(round).or_insert_with(|| devices.clone()).clone();
                self.agree("survivors", round, &first, &devices);
            }
            (Some(session), Reply::Over(Outcome::Published)) => {
                self.published.insert(self.known(session));
            }
            (None, Reply::Assignment(assignment)) => self.version(&assignment.published),
            (None, Reply::Wait { latest, .. }) => latest.iter().for_each(|version| self.version(version)),
            (Some(_) | None, _) => {}
        }
    }

    fn version(&mut self, told: &Published) {
        let first = *self.versions.entry(told.version).or_insert(told.adapter);
        self.agree("adapters of a version", told.version.into(), &first, &told.adapter);
    }

    fn known(&self, session: SessionId) -> u64 {
        self.rounds[&session]
    }

    fn agree<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, of: u64, first: &T, second: &T) {
        if first != second {
            self.contradictions.push(format!("two {what} {of}: {first:?} and {second:?}"));
        }
    }
}
