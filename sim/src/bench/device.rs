//! A device on its way through a round: one function a step, each from the state that the one before left.
//!
//! A step begins with the answer to the request of the step before, which the device gets by asking the same
//! again, and ends with a request of its own.

use aggregation::{
    Advertised, Agreed, Context, Credential, Draw, IdentityKey, IdentityPublic, Roster, Shared, Submitted,
    UnmaskShares, packing,
};
use proto::ids::{DeviceId, Digest, SessionId, Timestamp};
use proto::message::{CHUNK_COORDINATES, Outcome, Reply, Request, input_digest};
use rand_chacha::ChaCha20Rng;

use super::BenchError;
use super::input::Inputs;
use super::line::{Asked, Line};

/// What all devices know.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) context: Context,
    pub(super) authority: IdentityPublic,
    pub(super) now: Timestamp,
    pub(super) inputs: Inputs,
}

/// What a device keeps through a round, its protocol state aside.
#[derive(Debug)]
pub(super) struct Device {
    /// Which input is its own.
    pub(super) number: usize,
    pub(super) id: DeviceId,
    pub(super) identity: IdentityKey,
    pub(super) credential: Credential,
    pub(super) rng: ChaCha20Rng,
}

/// The first step: keys.
pub(super) fn advertise(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    (): (),
) -> Result<Asked<Advertised>, BenchError> {
    let (context, credential) = (common.context.clone(), device.credential.clone());
    let (state, advertisement) = Advertised::new(context, &device.identity, credential, &mut device.rng);
    let advertisement = Box::new(advertisement);
    line.submit(state, Request::Advertise { session: session(common), advertisement })
}

/// In a large cohort: the roster comes; the device's nonce for the draw of the graph goes.
pub(super) fn draw(
    _device: &mut Device,
    common: &Common,
    line: &mut Line,
    asked: Asked<Advertised>,
) -> Result<Asked<(Advertised, Draw)>, BenchError> {
    let (Reply::Roster { entries, .. }, mut state) = line.again(asked)? else {
        return Err(line.unexpected());
    };
    let draw = Draw::new(&common.context, entries, 0)?;
    let nonce = state.reveal(&draw)?;
    line.submit((state, draw), Request::Draw { session: session(common), nonce })
}

/// In a large cohort: everybody's nonces come; shares for the neighbours go.
pub(super) fn share_drawn(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    asked: Asked<(Advertised, Draw)>,
) -> Result<Asked<Shared>, BenchError> {
    let (Reply::Drawn(nonces), (state, draw)) = line.again(asked)? else { return Err(line.unexpected()) };
    share_in(device, common, line, state, draw.finish(&nonces)?)
}

/// In a small cohort: the roster comes; shares for everybody else go.
pub(super) fn share(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    asked: Asked<Advertised>,
) -> Result<Asked<Shared>, BenchError> {
    let (Reply::Roster { entries, .. }, state) = line.again(asked)? else { return Err(line.unexpected()) };
    share_in(device, common, line, state, Roster::new(entries)?)
}

fn share_in(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    state: Advertised,
    roster: Roster,
) -> Result<Asked<Shared>, BenchError> {
    let (smallest, now) = (common.context.report_goal, common.now.as_secs());
    let (state, shares) = state.share(roster, &common.authority, now, smallest, &mut device.rng)?;
    line.submit(state, Request::ShareKeys { session: session(common), shares })
}

/// The others' shares come; the masked input goes, one chunk after the other, and no chunk is kept.
pub(super) fn mask(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    asked: Asked<Shared>,
) -> Result<Asked<Submitted>, BenchError> {
    let (Reply::Inbox { sharers, shares }, state) = line.again(asked)? else { return Err(line.unexpected()) };
    let masking = state.receive(sharers, shares)?;
    let mut digests = Vec::new();
    for chunk in 0..common.inputs.chunks() {
        let mut input = line.outside(|| common.inputs.chunk(device.number, chunk));
        let offset = chunk * CHUNK_COORDINATES;
        masking.mask_chunk(offset, &mut input)?;
        let packed = packing::pack(&input, common.context.ring_bits);
        digests.push(Digest::of(&packed));
        let request = Request::MaskedChunk { session: session(common), offset: offset as u64, packed };
        let Reply::Received = line.ask(&request)? else { return Err(line.unexpected()) };
    }
    let (state, sharing) = masking.submit(&device.identity)?;
    let request = Request::MaskedDone { session: session(common), digest: input_digest(&digests), sharing };
    line.submit(state, request)
}

/// The survivors come; the one signature over them goes.
pub(super) fn agree(
    device: &mut Device,
    common: &Common,
    line: &mut Line,
    asked: Asked<Submitted>,
) -> Result<Asked<Agreed>, BenchError> {
    let (Reply::Survivors(survivors), state) = line.again(asked)? else { return Err(line.unexpected()) };
    let (state, signature) = state.agree(survivors, &device.identity)?;
    line.submit(state, Request::Agree { session: session(common), signature })
}

/// A signature of every survivor comes; the device takes out the shares that it lets go.
pub(super) fn reveal(
    _device: &mut Device,
    _common: &Common,
    line: &mut Line,
    asked: Asked<Agreed>,
) -> Result<UnmaskShares, BenchError> {
    let (Reply::Evidence(evidence), state) = line.again(asked)? else { return Err(line.unexpected()) };
    Ok(state.unmask(&evidence)?)
}

/// The shares that open the sum go.
pub(super) fn unmask(
    _device: &mut Device,
    common: &Common,
    line: &mut Line,
    shares: UnmaskShares,
) -> Result<Asked<()>, BenchError> {
    line.submit((), Request::Unmask { session: session(common), shares })
}

/// The device hears how the round ended.
pub(super) fn leave(
    _device: &mut Device,
    _common: &Common,
    line: &mut Line,
    asked: Asked<()>,
) -> Result<(), BenchError> {
    let (Reply::Over(Outcome::Published), ()) = line.again(asked)? else { return Err(line.unexpected()) };
    Ok(())
}

fn session(common: &Common) -> SessionId {
    SessionId(common.context.session.0)
}
