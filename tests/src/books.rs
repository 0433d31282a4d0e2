//! What a coordinator, and what a device, must never do: noted as it happens and checked at once, by whoever plays them. What
//! is found panics.
#![expect(clippy::missing_panics_doc, reason = "that is what it is for")]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use proto::convert::request_to_wire;
use proto::ids::{DeviceId, Digest, SessionId, TaskId};
use proto::message::{Reply, Request};
use session::Signed;
use task::TaskEffect;

/// What a coordinator has made durable and has answered.
#[derive(Debug, Default)]
pub struct TaskBook {
    offered: BTreeMap<SessionId, u64>,
    fixed: BTreeMap<u64, Vec<DeviceId>>,
    charged: BTreeMap<u64, BTreeSet<DeviceId>>,
    participations: BTreeMap<DeviceId, u32>,
    version: u32,
    ended: BTreeSet<u64>,
    /// The rounds whose sums are in the version that is being made, and those of the newest.
    gathered: Vec<u64>,
    newest: Vec<u64>,
}

impl TaskBook {
    /// The devices in a round's sum.
    pub fn survivors(&self, round: u64) -> &[DeviceId] {
        self.fixed.get(&round).map_or(&[], Vec::as_slice)
    }

    /// Whether this round's survivors are durable, and that they were charged.
    pub fn may_reveal(&self, round: u64) -> bool {
        self.fixed.contains_key(&round) && self.charged.contains_key(&round)
    }

    /// The rounds of the newest version.
    pub fn newest(&self) -> &[u64] {
        &self.newest
    }

    /// An answer that leaves: a session has one number, which no other has, and whose round has not ended.
    pub fn answered(&mut self, reply: &Reply) {
        let Reply::Offer { session, round, .. } = reply else { return };
        if let Some(earlier) = self.offered.get(session) {
            assert_eq!(earlier, round, "one session has two numbers");
        } else {
            let is_taken = self.offered.values().any(|other| other == round);
            assert!(!is_taken, "two sessions have the number {round}");
            assert!(!self.ended.contains(round), "round {round} was opened again");
            self.offered.insert(*session, *round);
        }
    }

    /// What is made durable together, before the next answer leaves.
    pub fn made_durable(&mut self, effects: &[TaskEffect]) {
        for effect in effects {
            self.note(effect);
        }
        for (round, survivors) in &self.fixed {
            let charged = self.charged.get(round);
            let all = survivors.iter().all(|device| charged.is_some_and(|charged| charged.contains(device)));
            assert!(all, "a survivor of round {round} was not charged");
        }
    }

    fn gave_its_sum(&mut self, round: u64) {
        assert!(self.charged.contains_key(&round), "round {round} opened a sum before it was charged");
        assert!(!self.survivors(round).is_empty(), "round {round} opened a sum of nobody");
        assert!(self.ended.insert(round), "round {round} ended twice");
        self.gathered.push(round);
    }

    fn note(&mut self, effect: &TaskEffect) {
        match effect {
            TaskEffect::FixSurvivors { round, survivors } => {
                let distinct: BTreeSet<_> = survivors.iter().collect();
                assert_eq!(distinct.len(), survivors.len(), "a survivor of round {round} stands there twice");
                let before = self.fixed.insert(*round, survivors.clone());
                assert_eq!(before, None, "the survivors of round {round} were fixed twice");
            }
            TaskEffect::Charge { round, devices } => {
                let charged: BTreeSet<_> = devices.iter().map(|(device, _)| *device).collect();
                assert_eq!(charged.len(), devices.len(), "round {round} charges a device twice");
                assert!(self.charged.insert(*round, charged).is_none(), "round {round} was charged twice");
                for (device, count) in devices {
                    let counted = self.participations.entry(*device).or_default();
                    *counted += 1;
                    assert_eq!(counted, count, "the participations of {device} are counted wrongly");
                }
            }
            TaskEffect::Gathered { round } => self.gave_its_sum(*round),
            TaskEffect::Commit { completed_by, version, adapter, .. } => {
                if let Some(round) = completed_by {
                    self.gave_its_sum(*round);
                }
                let rounds = std::mem::take(&mut self.gathered);
                assert_eq!(
                    rounds.len(),
                    version.rounds as usize,
                    "a sum of the version was lost, or is in it twice"
                );
                let devices: Vec<DeviceId> =
                    rounds.iter().flat_map(|round| self.survivors(*round)).copied().collect();
                let distinct: BTreeSet<_> = devices.iter().collect();
                assert_eq!(distinct.len(), devices.len(), "a device is in two sums of one version");
                assert_eq!(devices.len(), version.survivors as usize, "other sums than its were opened");
                assert_eq!(version.version, self.version + 1, "a version was left out");
                assert_eq!(
                    version.adapter,
                    Digest::of(adapter),
                    "a version's digest is not that of its numbers"
                );
                (self.version, self.newest) = (version.version, rounds);
            }
            TaskEffect::Aborted { round, .. } => {
                assert!(self.ended.insert(*round), "round {round} ended twice");
            }
            TaskEffect::Excluded { .. } | TaskEffect::Paused { .. } | TaskEffect::End(_) => {}
        }
    }
}

/// One attempt of a device: from new one-time keys to the next new ones.
#[derive(Debug)]
struct Attempt {
    advertised: Vec<u8>,
    session: SessionId,
    charged: bool,
    signed: Option<(TaskId, u64)>,
    /// By the request's name, and the offset in a masked input.
    sent: BTreeMap<(&'static str, u64), Vec<u8>>,
}

/// What a device has made durable and would send.
#[derive(Debug, Default)]
pub struct DeviceBook {
    attempt: Option<Attempt>,
    agreed: BTreeMap<(TaskId, u64), Vec<u8>>,
    unmasked: BTreeMap<(TaskId, u64), Vec<u8>>,
}

impl DeviceBook {
    /// A device that was started anew: what it held in memory is gone.
    pub fn restarted(&mut self) {
        self.attempt = None;
    }

    /// A charge is in its ledger.
    pub fn charged(&mut self) {
        assert!(self.attempt.is_some(), "charged without keys");
        if let Some(attempt) = &mut self.attempt {
            attempt.charged = true;
        }
    }

    /// A signature is in its ledger.
    pub fn signed(&mut self, signed: &Signed) {
        if let Some(attempt) = &mut self.attempt {
            attempt.signed = Some((signed.task, signed.round));
        }
    }

    /// What it would send now, or sends.
    pub fn asks(&mut self, request: &Request) {
        let Some(session) = request.session() else { return };
        let bytes = request_to_wire(request).encode_to_vec();
        if matches!(request, Request::Advertise { .. })
            && self.attempt.as_ref().is_none_or(|attempt| attempt.advertised != bytes)
        {
            let (advertised, sent) = (bytes.clone(), BTreeMap::new());
            self.attempt = Some(Attempt { advertised, session, charged: false, signed: None, sent });
        }
        assert!(self.attempt.is_some(), "`{}` without keys", request.name());
        if let Some(attempt) = &mut self.attempt {
            attempt.sends(request, session, &bytes);
            let round = attempt.signed;
            if matches!(request, Request::Agree { .. }) {
                once(&mut self.agreed, round, &bytes, "signatures");
            } else if matches!(request, Request::Unmask { .. }) {
                let has_agreed = round.is_some_and(|round| self.agreed.contains_key(&round));
                assert!(has_agreed, "shares before the signature over the transcript");
                once(&mut self.unmasked, round, &bytes, "sets of shares");
            }
        }
    }
}

impl Attempt {
    fn sends(&mut self, request: &Request, session: SessionId, bytes: &[u8]) {
        let name = request.name();
        assert_eq!(session, self.session, "`{name}` goes to another session than the keys");
        let offset = if let Request::MaskedChunk { offset, .. } = request { *offset } else { 0 };
        let before = self.sent.entry((name, offset)).or_insert_with(|| bytes.to_vec());
        assert_eq!(before, bytes, "two contents of one `{name}`");
        if matches!(request, Request::MaskedChunk { .. } | Request::MaskedDone { .. }) {
            assert!(self.charged, "`{name}` before the charge");
        }
        if let Request::Unmask { shares, .. } = request {
            let own: BTreeSet<u16> = shares.self_mask.iter().map(|(of, _)| *of).collect();
            let both = shares.key.iter().any(|(of, _)| own.contains(of));
            assert!(!both, "both kinds of share of one device");
        }
    }
}

/// At most one content a round.
fn once(
    contents: &mut BTreeMap<(TaskId, u64), Vec<u8>>,
    round: Option<(TaskId, u64)>,
    bytes: &[u8],
    what: &str,
) {
    assert!(round.is_some(), "{what} before the signature was recorded");
    if let Some(round) = round {
        let earlier = contents.entry(round).or_insert_with(|| bytes.to_vec());
        assert_eq!(earlier, bytes, "two {what} in round {round:?}");
    }
}
