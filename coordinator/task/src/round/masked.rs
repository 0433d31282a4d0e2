//! Step 3: masked inputs come in chunks, wait in the spool, and are added to one running sum, each the moment it
//! is complete.

use std::collections::BTreeMap;

use aggregation::{DeviceIndex, IndexSet, RunningSum, Sharing, Signature, SumError, packing};
use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::{CHUNK_COORDINATES, Outcome, Rejection, Reply, input_digest};

use super::agree::AgreePhase;
use super::share::Shared;
use super::{Effect, Next, Phase, RoundParams, end, places, unacceptable};
use crate::spool::Spool;

#[derive(Debug)]
pub(super) struct MaskedPhase {
    pub(super) shared: Shared,
    deadline: Timestamp,
    /// When the report goal was reached.
    reached: Option<Timestamp>,
    uploads: BTreeMap<DeviceIndex, Upload>,
    done: BTreeMap<DeviceIndex, Done>,
    /// What the end of an input is signed over.
    sharing: Sharing,
    spool: Box<dyn Spool>,
    sum: RunningSum,
}

/// The end of a device's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// Over its chunks.
    pub(super) digest: Digest,
    /// With whom it masked.
    pub(super) sharing: Signature,
}

/// One device's input, as far as it has come. The bytes are in the spool.
struct Upload {
    coordinates: usize,
    chunks: Vec<Digest>,
    /// By which accidents of the disk are noticed; who may write to the spool may write to the store too.
    checksums: Vec<u32>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("coordinates", &self.coordinates).finish_non_exhaustive()
    }
}

impl MaskedPhase {
    /// Fails for a ring that a checked plan cannot ask for.
    pub(super) fn new(
        shared: Shared,
        params: &RoundParams,
        spool: Box<dyn Spool>,
        deadline: Timestamp,
    ) -> Result<Self, SumError> {
        let sharing = Sharing::new(&params.context, &shared.joined.roster, shared.sharers.clone());
        Ok(Self {
            shared,
            sharing,
            spool,
            deadline,
            reached: None,
            uploads: BTreeMap::new(),
            done: BTreeMap::new(),
            sum: RunningSum::new(params.context.len, params.context.ring_bits)?,
        })
    }

    pub(super) fn deadline(&self, params: &RoundParams) -> Timestamp {
        let grace_over = self.reached.map(|reached| reached.plus_millis(params.grace_millis));
        grace_over.map_or(self.deadline, |over| over.min(self.deadline))
    }

    /// Devices whose input is whole.
    pub(super) fn ended(&self) -> usize {
        self.done.len()
    }

    /// Everybody of whose input anything has come.
    pub(super) fn charge(&self) -> Effect {
        let mut indices: Vec<DeviceIndex> = self.uploads.keys().chain(self.done.keys()).copied().collect();
        indices.sort_unstable();
        let devices = indices.into_iter().map(|index| self.shared.joined.device(index)).collect();
        Effect::Charge { devices }
    }

    pub(super) fn accept_chunk(
        &mut self,
        from: DeviceId,
        offset: u64,
        packed: &[u8],
        params: &RoundParams,
    ) -> Result<(), Rejection> {
        let index = self.shared.sharer(from, "masked chunk")?;
        if self.done.contains_key(&index) {
            return Err(Rejection::Equivocation("masked chunk".into()));
        }
        let bad = |why: String| unacceptable("masked chunk", &why);
        let len = params.context.len;
        let offset = usize::try_from(offset)
            .ok()
            .filter(|offset| *offset < len && offset % CHUNK_COORDINATES == 0)
            .ok_or_else(|| bad(format!("no chunk of {len} coordinates begins at {offset}")))?;
        let digest = Digest::of(packed);
        let number = offset / CHUNK_COORDINATES;
        let received = self.uploads.get(&index).map_or(0, |upload| upload.chunks.len());
        if number < received {
            let same = self.uploads.get(&index).is_some_and(|upload| upload.chunks[number] == digest);
            return if same { Ok(()) } else { Err(Rejection::Equivocation("masked chunk".into())) };
        }
        if number > received {
            return Err(bad(format!("the next chunk begins at {}", received * CHUNK_COORDINATES)));
        }
        let chunk_len = CHUNK_COORDINATES.min(len - offset);
        packing::check(packed, params.context.ring_bits, chunk_len)
            .map_err(|error| unacceptable("masked chunk", &error))?;
        self.spool.write(index, byte(number, params), packed).map_err(|error| unavailable(&error))?;
        let upload = self.uploads.entry(index).or_insert_with(|| Upload {
            coordinates: 0,
            chunks: Vec::new(),
            checksums: Vec::new(),
        });
        upload.coordinates += chunk_len;
        upload.chunks.push(digest);
        upload.checksums.push(crc32fast::hash(packed));
        Ok(())
    }

    pub(super) fn accept_done(
        &mut self,
        from: DeviceId,
        done: Done,
        params: &RoundParams,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let index = self.shared.sharer(from, "masked done")?;
        if let Some(earlier) = self.done.get(&index) {
            return if *earlier == done {
                Ok(())
            } else {
                Err(Rejection::Equivocation("masked done".into()))
            };
        }
        let found = self.uploads.get(&index).map_or(0, |upload| upload.coordinates);
        let wanted = params.context.len;
        let Some(upload) = self.uploads.get(&index).filter(|_| found == wanted) else {
            let why = format!("{found} of {wanted} coordinates have come");
            return Err(unacceptable("masked done", &why));
        };
        if input_digest(&upload.chunks) != done.digest {
            return Err(unacceptable("masked done", &"the hash is not that of the chunks"));
        }
        // By itself and not with others: nobody else's input may depend on what is wrong with one signature.
        self.sharing
            .verify(&self.shared.joined.roster, index, &done.sharing)
            .map_err(|error| unacceptable("masked done", &error))?;
        let checksums = upload.checksums.clone();
        self.add(index, &checksums, params)?;
        self.uploads.remove(&index);
        self.done.insert(index, done);
        if self.done.len() >= params.report_goal && self.reached.is_none() {
            self.reached = Some(now);
        }
        Ok(())
    }

    /// Adds a complete input to the sum, from the spool. If that fails half-way the sum is torn, which ends the
    /// round.
    fn add(&mut self, index: DeviceIndex, checksums: &[u32], params: &RoundParams) -> Result<(), Rejection> {
        let (len, bits) = (params.context.len, params.context.ring_bits);
        for (number, checksum) in checksums.iter().enumerate() {
            let offset = number * CHUNK_COORDINATES;
            let chunk_len = CHUNK_COORDINATES.min(len - offset);
            let mut packed = vec![0; packing::packed_len(chunk_len, bits)];
            self.spool.read(index, byte(number, params), &mut packed).map_err(|error| unavailable(&error))?;
            if crc32fast::hash(&packed) != *checksum {
                return Err(unavailable(&"a spooled chunk is not what came"));
            }
            let chunk = packing::unpack(&packed, bits, chunk_len).map_err(|error| unavailable(&error))?;
            self.sum.add_chunk(offset, &chunk).map_err(|error| unavailable(&error))?;
        }
        self.spool.remove(index);
        Ok(())
    }

    pub(super) fn next(mut self: Box<Self>, params: &RoundParams, now: Timestamp) -> Next {
        if self.sum.is_torn() {
            let charge = self.charge();
            return end(Outcome::Stopped, self.shared.joined.devices, vec![charge]);
        }
        let everybody = self.done.len() == self.shared.sharers.len();
        if !everybody && now < self.deadline(params) {
            return Next::Stay(Phase::Masked(self));
        }
        let survivors = places(self.shared.joined.roster.len(), self.done.keys());
        let thin = self.shared.joined.roster.graph().thin_window(&survivors).is_some();
        if thin && !everybody && now < self.deadline {
            // Nobody would sign these; with the next input the stragglers' time begins again.
            self.reached = None;
            return Next::Stay(Phase::Masked(self));
        }
        let charge = self.charge();
        if thin || self.done.len() < params.report_goal {
            let devices = self.shared.joined.devices;
            return end(Outcome::TooFewSurvivors, devices, vec![charge]);
        }
        let devices = self.done.keys().map(|index| self.shared.joined.device(*index)).collect();
        let fix = Effect::FixSurvivors { survivors: devices };
        let masked = Masked { shared: self.shared, done: self.done, survivors };
        let agree = AgreePhase::new(masked, self.sum, params, now.plus_millis(params.step_millis));
        Next::To(Phase::Agree(Box::new(agree)), vec![fix, charge])
    }
}

/// Where in its input a chunk begins, in bytes: 2^15 coordinates of any width are whole bytes.
fn byte(number: usize, params: &RoundParams) -> u64 {
    (number * packing::packed_len(CHUNK_COORDINATES, params.context.ring_bits)) as u64
}

fn unavailable(why: &impl ToString) -> Rejection {
    Rejection::Unavailable(format!("the masked input cannot be kept: {}", why.to_string()))
}

/// What step 3 leaves behind, the sum aside.
#[derive(Debug)]
pub(super) struct Masked {
    pub(super) shared: Shared,
    done: BTreeMap<DeviceIndex, Done>,
    pub(super) survivors: IndexSet,
}

impl Masked {
    /// How many joined, how many shared their seeds, and how many are in the sum.
    pub(super) fn counts(&self) -> (usize, Option<usize>, Option<usize>) {
        let shared = &self.shared;
        (shared.joined.devices.len(), Some(shared.sharers.len()), Some(self.survivors.len()))
    }

    /// The place of a device whose input is in the sum.
    pub(super) fn survivor(&self, from: DeviceId) -> Result<DeviceIndex, Rejection> {
        let index = self.shared.joined.index(from)?;
        if self.survivors.contains(index) { Ok(index) } else { Err(Rejection::LeftOut) }
    }

    /// What each survivor signed of with whom it masked, in order of their places.
    pub(super) fn sharing(&self) -> impl Iterator<Item = (DeviceIndex, Signature)> {
        self.done.iter().map(|(index, done)| (*index, done.sharing))
    }

    pub(super) fn repeat(&self, from: DeviceId, done: Done) -> Result<Reply, Rejection> {
        let index = self.survivor(from)?;
        if self.done.get(&index) == Some(&done) {
            Ok(Reply::Survivors(self.survivors.clone()))
        } else {
            Err(Rejection::Equivocation("masked done".into()))
        }
    }

    /// Why a chunk is not taken any more.
    pub(super) fn too_late(&self, from: DeviceId) -> Rejection {
        match self.survivor(from) {
            Ok(_) => Rejection::Equivocation("masked chunk".into()),
            Err(rejection) => rejection,
        }
    }
}
