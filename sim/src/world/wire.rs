//! What goes between a device and the coordinator: bytes, some of which are lost or come twice.

use prost::Message;
use proto::convert::{
    rejection_from_bytes, rejection_to_bytes, reply_from_wire, reply_to_wire, request_from_wire,
    request_to_wire,
};
use proto::ids::{DeviceId, Digest};
use proto::message::{Before, Published, Rejection, Reply, Request};
use proto::wire;
use session::{Event, LoadedBefore};

use super::{World, WorldError};

impl World {
    /// One request over a wire that may lose either way, or carry it twice.
    pub(super) fn send(&mut self, index: usize, request: &Request) -> Result<(), WorldError> {
        if matches!(request, Request::CheckIn(_)) {
            self.count_check_in();
        }
        if !self.is_there() || self.faults.loses(&mut self.rng) {
            self.tell(index, Event::Unreachable);
            return Ok(());
        }
        let bytes = request_to_wire(request).encode_to_vec();
        self.nodes[index].traffic.up += bytes.len() as u64;
        if self.faults.repeats(&mut self.rng) {
            drop(self.serve(index, &bytes)?);
        }
        let answer = self.serve(index, &bytes)?;
        if self.faults.crashes_coordinator(&mut self.rng) {
            self.crash_coordinator()?;
        }
        if self.faults.loses(&mut self.rng) {
            self.tell(index, Event::Unreachable);
            return Ok(());
        }
        let event = match answer {
            Ok(bytes) => {
                self.nodes[index].traffic.down += bytes.len() as u64;
                Event::Replied(reply_from_wire(wire::Reply::decode(bytes.as_slice())?)?)
            }
            Err(bytes) => {
                self.nodes[index].traffic.down += bytes.len() as u64;
                Event::Rejected(rejection_from_bytes(&bytes)?)
            }
        };
        self.tell(index, event);
        Ok(())
    }

    /// The coordinator's side of one request: bytes in, bytes of a reply or of a rejection out.
    fn serve(&mut self, index: usize, bytes: &[u8]) -> Result<Result<Vec<u8>, Vec<u8>>, WorldError> {
        let from = self.nodes[index].device.device;
        let request = request_from_wire(wire::Request::decode(bytes)?)?;
        let answer = self.task.handle(from, request, self.clock, &mut self.rng);
        if matches!(answer, Ok(Reply::Wait { complete: true, .. })) {
            let enrolled: Vec<DeviceId> = self.nodes.iter().map(|node| node.device.device).collect();
            self.task.end_if_spent(&enrolled);
        }
        self.perform_effects();
        Ok(match answer {
            Ok(reply) => Ok(reply_to_wire(reply).encode_to_vec()),
            Err(rejection) => Err(rejection_to_bytes(&rejection)),
        })
    }

    /// The plan is fetched once and kept.
    pub(super) fn load_plan(&mut self, index: usize, published: &Published) {
        let event = match self.artifacts.get(&published.plan) {
            Some(plan) => {
                if self.nodes[index].installed.is_none() {
                    self.nodes[index].traffic.down += plan.len() as u64;
                }
                Event::PlanLoaded(plan.clone())
            }
            None => Event::Rejected(Rejection::UnknownArtifact),
        };
        self.tell(index, event);
    }

    pub(super) fn load(
        &mut self,
        index: usize,
        published: &Published,
        frozen: Option<Digest>,
        before: Option<Before>,
    ) {
        let held = self.nodes[index].installed.as_ref().map(|work| work.published);
        let get = |digest: &Digest| self.artifacts.get(digest).cloned();
        let frozen = frozen.as_ref().and_then(get);
        let folded = published.folded.as_ref().and_then(get);
        // What the device installed before is what it has of it.
        let loaded = before.and_then(|before| {
            let adapter = get(&before.adapter)?;
            let folded = before.folded.map(|folded| get(&folded).ok_or(())).transpose().ok()?;
            let is_held = held.is_some_and(|held| held.adapter == before.adapter);
            Some((LoadedBefore { adapter, folded }, is_held))
        });
        let event = match get(&published.adapter) {
            Some(adapter) => {
                // The frozen factors are fetched once and kept, as is what an epoch left.
                let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
                let once = if held.is_some() { 0 } else { len(&frozen) };
                let has_folded = held.is_some_and(|held| held.folded == published.folded);
                let each_epoch = if has_folded { 0 } else { len(&folded) };
                let earlier = loaded.as_ref().filter(|(_, is_held)| !is_held);
                let earlier = earlier.map_or(0, |(before, _)| before.adapter.len());
                self.nodes[index].traffic.down += (adapter.len() + once + each_epoch + earlier) as u64;
                Event::Loaded { adapter, frozen, folded, before: loaded.map(|(before, _)| before) }
            }
            None => Event::Rejected(Rejection::UnknownArtifact),
        };
        self.tell(index, event);
    }
}
