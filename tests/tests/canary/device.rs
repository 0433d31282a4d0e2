//! A device: the typestate of the protocol, and what it asks in each state.

use aggregation::{
    Advertised, Advertisement, Agreed, Context, Credential, IdentityKey, IdentityPublic, Masking, Roster,
    SealedShare, Shared, Signature, Submitted, UnmaskShares, packing,
};
use proto::ids::{DeviceId, Digest};
use proto::message::{CHUNK_COORDINATES, Rejection, Reply, Request};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Where a device is. Each step holds what the next one needs.
enum Step {
    /// It takes part in no round.
    Out,
    Advertising(Box<(Advertised, Advertisement)>),
    Sharing(Box<Shared>, Vec<SealedShare>),
    Submitting {
        submitted: Box<Submitted>,
        chunks: Vec<Vec<u8>>,
        digest: Digest,
        sharing: Signature,
        sent: usize,
    },
    Agreeing(Box<Agreed>, Signature),
    Unmasking(UnmaskShares),
}

/// What an answer did to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It asks the same again.
    Waits,
    /// It is a step further.
    Goes,
    /// Its round is over for it.
    Leaves,
}

/// One device.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    identity: IdentityKey,
    credential: Credential,
    authority: IdentityPublic,
    rng: ChaCha20Rng,
    step: Step,
    context: Option<Context>,
    /// Its one of the sum.
    coordinate: usize,
    /// The session in which it lost its keys: another advertisement of its may be in that round.
    forgot: Option<aggregation::SessionId>,
}

impl Device {
    pub(crate) fn new(place: usize, seed: u64, authority: &IdentityKey) -> Self {
        let id = DeviceId([u8::try_from(place).unwrap() + 1; 16]);
        let identity = IdentityKey::from_seed(&[u8::try_from(place).unwrap() + 1; 32]);
        let credential = Credential::issue(authority, id.0, identity.public(), u64::MAX);
        let rng = ChaCha20Rng::seed_from_u64(seed ^ (1 + place as u64) << 48);
        let authority = authority.public();
        let (step, context) = (Step::Out, None);
        Self { id, identity, credential, authority, rng, step, context, coordinate: 0, forgot: None }
    }

    /// Joins a round with fresh keys, to put its one into this coordinate.
    pub(crate) fn join(&mut self, context: &Context, coordinate: usize) {
        let credential = self.credential.clone();
        let joined = Advertised::new(context.clone(), &self.identity, credential, &mut self.rng);
        self.step = Step::Advertising(Box::new(joined));
        self.context = Some(context.clone());
        self.coordinate = coordinate;
    }

    /// Loses everything that it has of a round.
    pub(crate) fn forget(&mut self) {
        self.step = Step::Out;
        self.forgot = self.context.take().map(|context| context.session);
    }

    /// Whether it takes part in no round.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.step, Step::Out)
    }

    /// Whether it lost its keys in the round of this context.
    pub(crate) fn forgot_in(&self, context: &Context) -> bool {
        self.forgot == Some(context.session)
    }

    /// What it asks now.
    pub(crate) fn request(&self) -> Option<Request> {
        let session = proto::ids::SessionId(self.context.as_ref()?.session.0);
        Some(match &self.step {
            Step::Out => return None,
            Step::Advertising(joined) => {
                Request::Advertise { session, advertisement: Box::new(joined.1.clone()) }
            }
            Step::Sharing(_, shares) => Request::ShareKeys { session, shares: shares.clone() },
            Step::Submitting { chunks, digest, sharing, sent, .. } => match chunks.get(*sent) {
                Some(packed) => {
                    let offset = (*sent * CHUNK_COORDINATES) as u64;
                    Request::MaskedChunk { session, offset, packed: packed.clone() }
                }
                None => Request::MaskedDone { session, digest: *digest, sharing: *sharing },
            },
            Step::Agreeing(_, signature) => Request::Agree { session, signature: *signature },
            Step::Unmasking(shares) => Request::Unmask { session, shares: shares.clone() },
        })
    }

    /// Takes the answer to what it asks now. Panics when an honest coordinator's answer makes an honest device refuse,
    /// or turns it away for what it sent.
    pub(crate) fn take(&mut self, answer: Result<Reply, Rejection>, now_secs: u64) -> Turn {
        let reply = match answer {
            Ok(reply) => reply,
            Err(rejection) => return self.turned_away(&rejection),
        };
        let step = std::mem::replace(&mut self.step, Step::Out);
        let (step, turn) = match (step, reply) {
            (step, Reply::Wait { .. }) => (step, Turn::Waits),
            (_, Reply::Over(_)) => (Step::Out, Turn::Leaves),
            (Step::Advertising(joined), Reply::Roster { entries, .. }) => {
                let roster = Roster::new(entries).unwrap();
                let (shared, shares) =
                    joined.0.share(roster, &self.authority, now_secs, 2, &mut self.rng).unwrap();
                (Step::Sharing(Box::new(shared), shares), Turn::Goes)
            }
            (Step::Sharing(shared, _), Reply::Inbox { sharers, shares }) => {
                (self.submit(shared.receive(sharers, shares).unwrap()), Turn::Goes)
            }
            (Step::Submitting { submitted, chunks, digest, sharing, sent }, Reply::Received)
                if sent < chunks.len() =>
            {
                let sent = sent + 1;
                (Step::Submitting { submitted, chunks, digest, sharing, sent }, Turn::Goes)
            }
            (Step::Submitting { submitted, .. }, Reply::Survivors(survivors)) => {
                let (agreed, signature) = submitted.agree(survivors, &self.identity).unwrap();
                (Step::Agreeing(Box::new(agreed), signature), Turn::Goes)
            }
            (Step::Agreeing(agreed, _), Reply::Evidence(evidence)) => {
                (Step::Unmasking(agreed.unmask(&evidence).unwrap()), Turn::Goes)
            }
            (_, reply) => panic!("`{}` is no answer to {:?}", reply.name(), self.id),
        };
        self.step = step;
        turn
    }

    /// Masks its one.
    fn submit(&self, masking: Masking) -> Step {
        let context = self.context.as_ref().unwrap();
        let mut input = vec![0; context.len];
        input[self.coordinate] = 1;
        masking.mask(&mut input).unwrap();
        let (submitted, sharing) = masking.submit(&self.identity).unwrap();
        let pack = |chunk: &[u32]| packing::pack(chunk, context.ring_bits);
        let chunks: Vec<Vec<u8>> = input.chunks(CHUNK_COORDINATES).map(pack).collect();
        let digest = Digest::of(&chunks.concat());
        Step::Submitting { submitted: Box::new(submitted), chunks, digest, sharing, sent: 0 }
    }

    /// Only for coming too late, and for having lost its keys, is an honest device turned away.
    fn turned_away(&mut self, rejection: &Rejection) -> Turn {
        let session = self.context.as_ref().map(|context| context.session);
        let is_fair = match (rejection, &self.step) {
            (Rejection::UnknownSession, _)
            | (Rejection::NotInRoster, Step::Advertising(_))
            | (Rejection::WrongPhase { .. }, Step::Sharing(..))
            | (Rejection::LeftOut, Step::Submitting { .. }) => true,
            (Rejection::Equivocation(_), Step::Advertising(_)) => self.forgot == session,
            (_, _) => false,
        };
        assert!(is_fair, "{:?} was turned away: {rejection}", self.id);
        self.step = Step::Out;
        Turn::Leaves
    }
}
