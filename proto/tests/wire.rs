//! The wire: what is sent is read back, and what is not ours is refused with a reason.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aggregation::{
    Advertisement, Credential, Evidence, IdentityKey, IdentityPublic, IndexSet, Logged, SEALED_SHARE_BYTES,
    SealedShare, Share, Signature, UnmaskShares,
};
use nightshift_proto::adapter::Class;
use nightshift_proto::convert::{
    rejection_from_bytes, rejection_to_bytes, reply_from_wire, reply_to_wire, request_from_wire,
    request_to_wire,
};
use nightshift_proto::ids::{Digest, SessionId, TaskId};
use nightshift_proto::message::{
    Assignment, Before, Charged, CheckIn, Chunk, DeclineReason, LogOffer, Outcome, Published, Rejection,
    Reply, Request, Window,
};
use nightshift_proto::wire;
use proptest::prelude::*;
use prost::Message;

fn advertisement() -> Advertisement {
    let key = IdentityKey::from_seed(&[3; 32]);
    Advertisement {
        credential: Credential::issue(&key, [4; 16], IdentityPublic([5; 32]), 99),
        masking_key: [6; 32],
        sealing_key: [7; 32],
        key_commitment: [8; 32],
        self_commitment: [9; 32],
        draw_commitment: [12; 32],
        signature: Signature([10; 64]),
    }
}

/// The same of a device in a log.
fn logged() -> Advertisement {
    let key = IdentityKey::from_seed(&[3; 32]);
    let logged = Logged { place: 7, enrolled_unix_secs: 8, label: [9; 16], attested: [0; 32] };
    let credential = Credential::issue_logged(&key, [4; 16], IdentityPublic([5; 32]), 99, logged);
    Advertisement { credential, ..advertisement() }
}

fn sealed(to: u16) -> SealedShare {
    SealedShare { from: 1, to, bytes: vec![11; SEALED_SHARE_BYTES] }
}

fn share() -> Share {
    Share::from_bytes(&[0; aggregation::SHARE_BYTES]).unwrap()
}

fn requests() -> Vec<Request> {
    let session = SessionId([1; 32]);
    vec![
        Request::CheckIn(CheckIn::default()),
        Request::CheckIn(CheckIn { only_keeps: true, declined: vec![TaskId([3; 16]), TaskId([4; 16])] }),
        Request::Fetch { digest: Digest([2; 32]), offset: 3 },
        Request::Join { task: TaskId([3; 16]), version: 4, class: None, log_seen: 0 },
        Request::Join {
            task: TaskId([3; 16]),
            version: 4,
            class: Some(Class { rank: 2, layers: 3 }),
            log_seen: u64::MAX,
        },
        Request::Decline { task: TaskId([3; 16]), reason: DeclineReason::Size },
        Request::Decline { task: TaskId([3; 16]), reason: DeclineReason::Epsilon },
        Request::Decline { task: TaskId([3; 16]), reason: DeclineReason::Memory },
        Request::Decline { task: TaskId([3; 16]), reason: DeclineReason::Work },
        Request::Advertise { session, advertisement: Box::new(advertisement()) },
        Request::Draw { session, nonce: [13; 32] },
        Request::ShareKeys { session, shares: vec![sealed(0), sealed(2)] },
        Request::MaskedChunk { session, offset: 32_768, packed: vec![1, 2, 3] },
        Request::MaskedDone { session, digest: Digest([5; 32]), sharing: Signature([6; 64]) },
        Request::Agree { session, signature: Signature([6; 64]) },
        Request::Unmask {
            session,
            shares: UnmaskShares { from: 2, self_mask: vec![(0, share())], key: vec![(1, share())] },
        },
    ]
}

fn replies() -> Vec<Reply> {
    let published = Published {
        task: TaskId([1; 16]),
        version: 2,
        plan: Digest([3; 32]),
        adapter: Digest([4; 32]),
        folded: Some(Digest([5; 32])),
        clip_norm: 0.25,
    };
    let before = Before { version: 1, adapter: Digest([6; 32]), folded: Some(Digest([7; 32])) };
    let charged = Charged { published, rounds: 3 };
    let mut places = IndexSet::new(11);
    places.insert(0).unwrap();
    places.insert(10).unwrap();
    vec![
        Reply::Wait { retry: Window::around(10), latest: vec![published, published], complete: true },
        Reply::wait(7),
        Reply::Assignment(Assignment { published, before: None, charges: vec![] }),
        Reply::Assignment(Assignment { published, before: Some(before), charges: vec![charged, charged] }),
        Reply::Chunk(Chunk { total_bytes: 10, offset: 4, bytes: vec![1, 2, 3] }),
        Reply::Offer { session: SessionId([5; 32]), round: 6, log: None },
        Reply::Offer {
            session: SessionId([5; 32]),
            round: 6,
            log: Some(LogOffer { head: "head".to_owned(), consistency: vec![[7; 32], [8; 32]] }),
        },
        Reply::Roster { entries: vec![advertisement()], listed: vec![] },
        Reply::Roster { entries: vec![logged()], listed: vec![[9; 32]] },
        Reply::Drawn(vec![[14; 32], [15; 32]]),
        Reply::Inbox { sharers: places.clone(), shares: vec![sealed(3)] },
        Reply::Received,
        Reply::Survivors(places.clone()),
        Reply::Evidence(Evidence {
            agreed: places.clone(),
            signatures: vec![Signature([1; 64]), Signature([2; 64])],
        }),
        Reply::Over(Outcome::Published),
        Reply::Over(Outcome::TooFewSurvivors),
        Reply::Over(Outcome::NotDrawn),
    ]
}

fn rejections() -> Vec<Rejection> {
    vec![
        Rejection::Malformed { what: "share".into(), why: "short".into() },
        Rejection::NotEnrolled,
        Rejection::UnknownTask,
        Rejection::UnknownSession,
        Rejection::UnknownArtifact,
        Rejection::Stale { found: 1, current: 2 },
        Rejection::ParticipationsSpent(3),
        Rejection::NotInRoster,
        Rejection::WrongPhase { request: "agree".into(), phase: "unmask".into() },
        Rejection::Equivocation("advertise".into()),
        Rejection::LeftOut,
        Rejection::Unacceptable { request: "agree".into(), why: "bad signature".into() },
        Rejection::Unavailable("stopping".into()),
    ]
}

#[test]
fn every_request_is_read_back() {
    for request in requests() {
        let bytes = request_to_wire(&request).encode_to_vec();
        let read = request_from_wire(wire::Request::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(request_to_wire(&read).encode_to_vec(), bytes, "{}", request.name());
        assert_eq!((read.name(), read.session()), (request.name(), request.session()));
    }
}

#[test]
fn every_reply_is_read_back() {
    for reply in replies() {
        let name = reply.name();
        let bytes = reply_to_wire(reply).encode_to_vec();
        let read = reply_from_wire(wire::Reply::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(read.name(), name);
        assert_eq!(reply_to_wire(read).encode_to_vec(), bytes, "{name}");
    }
}

#[test]
fn every_rejection_is_read_back() {
    for rejection in rejections() {
        assert_eq!(rejection_from_bytes(&rejection_to_bytes(&rejection)), Ok(rejection));
    }
}

#[test]
fn a_message_without_content_names_what_is_missing() {
    let error = request_from_wire(wire::Request { kind: None }).unwrap_err().to_string();
    assert_eq!(error, "malformed request: it is missing");
}

#[test]
fn a_session_of_the_wrong_length_is_refused_with_both_lengths() {
    let done = wire::MaskedDone { session: vec![1; 31], digest: vec![0; 32], sharing: vec![0; 64] };
    let message = wire::Request { kind: Some(wire::request::Kind::MaskedDone(done)) };
    let error = request_from_wire(message).unwrap_err().to_string();
    assert_eq!(error, "malformed session: expected 32 bytes, found 31");
}

#[test]
fn a_set_of_more_places_than_a_roster_has_is_refused() {
    let places = wire::Places { roster: 1_000_000, bits: vec![0xff; 125_000] };
    let survivors = wire::Survivors { survivors: Some(places) };
    let message = wire::Reply { kind: Some(wire::reply::Kind::Survivors(survivors)) };
    let error = reply_from_wire(message).unwrap_err().to_string();
    assert!(error.contains("at most 1024 places"), "{error}");
}

/// A thousand devices of a hundred thousand take 6,439 nodes of the log's tree, which is more than one a place.
#[test]
fn what_shows_a_large_roster_to_be_in_a_large_log_is_carried() {
    let nodes = vec![[9; 32]; 6_439];
    let roster = Reply::Roster { entries: vec![logged()], listed: nodes.clone() };
    let bytes = reply_to_wire(roster).encode_to_vec();
    let Reply::Roster { listed, .. } =
        reply_from_wire(wire::Reply::decode(bytes.as_slice()).unwrap()).unwrap()
    else {
        panic!("it is no roster any more")
    };
    assert_eq!(listed, nodes);
    let too_many = Reply::Roster { entries: Vec::new(), listed: vec![[9; 32]; 40 * 1024 + 1] };
    let error = reply_from_wire(reply_to_wire(too_many)).unwrap_err().to_string();
    assert_eq!(error, "malformed roster: 1310752 bytes are not up to 40960 times 32");
}

#[test]
fn a_chunk_that_reaches_beyond_its_artifact_is_refused() {
    for (total_bytes, offset) in [(4, 2), (3, u64::MAX)] {
        let chunk = wire::Chunk { total_bytes, offset, bytes: vec![0; 3] };
        let message = wire::Reply { kind: Some(wire::reply::Kind::Chunk(chunk)) };
        assert!(reply_from_wire(message).is_err(), "{total_bytes} {offset}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_or_damaged_bytes_are_an_error_and_never_a_panic(
        which in 0..9_usize, cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), mask in any::<u8>(),
    ) {
        let request = &requests()[which];
        let mut bytes = request_to_wire(request).encode_to_vec();
        if !bytes.is_empty() {
            let at = flip.index(bytes.len());
            bytes[at] ^= mask;
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Ok(message) = wire::Request::decode(bytes.as_slice()) {
            drop(request_from_wire(message));
        }
    }

    #[test]
    fn foreign_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = wire::Request::decode(bytes.as_slice()) {
            drop(request_from_wire(message));
        }
        if let Ok(message) = wire::Reply::decode(bytes.as_slice()) {
            drop(reply_from_wire(message));
        }
        drop(rejection_from_bytes(&bytes));
    }
}
