//! What a corpus begins with: one real input of each kind, the same at every call.

use std::collections::BTreeSet;

use aggregation::{Credential, IdentityKey, IdentityPublic, SHARE_BYTES, packing};
use client::store::{Declined, Entry};
use coordinator::pki;
use coordinator::records::{DeviceRecord, TaskHeader};
use coordinator::tokens::Token;
use formats::{peft_files, read_peft};
use privacy::accountant::RdpCurve;
use prost::Message;
use proto::adapter::{AdapterSpec, Factors, Method, Module};
use proto::attestation::{Attestation, Quote};
use proto::base::BaseFile;
use proto::convert::{
    Enrolled, Enrollment, Renewal, admin_reply_to_wire, admin_request_to_wire, base_files_to_wire,
    enroll_reply_to_wire, enroll_request_to_wire, rejection_to_bytes, renew_request_to_wire, reply_to_wire,
    request_to_wire,
};
use proto::ids::{DeviceId, Digest, TaskId};
use proto::message::{Chunk, DeclineReason, Outcome, Published, Rejection, Reply, Request};
use proto::metrics::{Metric, MetricName};
use proto::plan::{AdaptiveClipPlan, Mode, Plan, RefreshPlan, vector_to_bytes};
use proto::token::BootstrapToken;
use proto::tpm;
use proto::training::{LocalOptimizer, ServerOptimizer};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rustls::pki_types::CertificateDer;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use session::Signed;
use session::spending::{Charge, Found};
use zeroize::Zeroizing;

mod admin;
mod authority;

use super::bases::{CONFIG, gguf_file, weights};
use super::checkpoints;
use super::foreign::{templates, tokenizers};
use super::world::World;
use admin::{admin_replies, admin_requests};
use authority::{authority_replies, authority_requests, enrollment_logs};

const TASK: TaskId = TaskId([9; 16]);
const DEVICE: DeviceId = DeviceId([7; 16]);

/// A signing request for a P-256 key that nobody has.
const SIGNING_REQUEST: &str = include_str!("signing_request.pem");

/// The first inputs of a target; nothing for a name that is none.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "adapter" => plans().iter().map(|plan| json(&plan.adapter)).collect(),
        "admin_reply" => {
            admin_replies().into_iter().map(|r| admin_reply_to_wire(r).encode_to_vec()).collect()
        }
        "admin_request" => {
            admin_requests().into_iter().map(|r| admin_request_to_wire(r).encode_to_vec()).collect()
        }
        "base" => bases(),
        "checkpoint" => stopped_trainings(),
        "configuration" => vec![
            include_bytes!("../../../deploy/agent.toml").to_vec(),
            include_bytes!("../../../deploy/coordinator.toml").to_vec(),
        ],
        "coordinator_record" => coordinator_records(),
        "device_record" => device_records(),
        "enroll_reply" => {
            let reply = enroll_reply_to_wire(&enrolled()).encode_to_vec();
            [vec![reply], authority_replies()].concat()
        }
        "enroll_request" => {
            let requests = vec![
                enroll_request_to_wire(&enrollment()).encode_to_vec(),
                enroll_request_to_wire(&attested()).encode_to_vec(),
                renew_request_to_wire(&renewal()).encode_to_vec(),
            ];
            [requests, authority_requests()].concat()
        }
        "enrollment_log" => enrollment_logs(),
        "gguf" => ggufs(),
        "key_files" => key_files(),
        "ledger" => ledgers(),
        "model_config" => {
            vec![
                CONFIG.into(),
                include_bytes!("../../../client/engine/tests/reference/base/config.json").to_vec(),
            ]
        }
        "names" => vec![
            token(),
            b"nst2.AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE".to_vec(),
            b"nst1.AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE".to_vec(),
            Digest([0xab; 32]).to_string().into_bytes(),
            b"night.owl-1".to_vec(),
            b"q_proj".to_vec(),
        ],
        "numbers" => numbers(),
        "peft_folder" => peft_folders(),
        "plan" => plans().iter().map(|plan| plan.to_bytes().unwrap()).collect(),
        "rejection" => rejections().iter().map(rejection_to_bytes).collect(),
        "reply" => {
            let file = BaseFile { name: "config.json".to_owned(), bytes: 7, digest: Digest([9; 32]) };
            replies().into_iter().chain([base_files_to_wire(&[file]).encode_to_vec()]).collect()
        }
        "request" => requests(),
        "session" => sessions(),
        "shares" => vec![
            vec![6, 3, 1, 2],
            vec![6, 2, 1, 2, 1, 2, 0, 9, 0, 1, 1, 3, 0, 17, 0, 128],
            vec![4, 2, 1, 2, 0, 0, 0, 2, 1, 0, 9, 3, 1, 0],
        ],
        "signing_request" => vec![[b"\0", SIGNING_REQUEST.as_bytes()].concat()],
        "task" => tasks(),
        "template" => templates(),
        "tokenizer" => tokenizers(),
        "text" => vec![
            b"\x08{\"text\": \"one\"}\n{\"prompt\": \"two\", \"completion\": \"three\"}\n".to_vec(),
            b"\x02{\"messages\": [{\"content\": \"a\"}, {\"content\": \"b\"}]}\nno\n\n{\"text\": \" \"}"
                .to_vec(),
        ],
        _ => Vec::new(),
    }
}

/// A whole run of a small world, for its messages.
fn run() -> World {
    let mut world = World::new(0);
    world.run(40);
    world
}

fn requests() -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = run().requests().iter().map(|(_, bytes)| bytes.clone()).collect();
    let decline = Request::Decline { task: TASK, reason: DeclineReason::Epsilon };
    let work = Request::Decline { task: TASK, reason: DeclineReason::Work };
    for request in [decline, work, Request::Fetch { digest: Digest([2; 32]), offset: 3 }] {
        requests.push(request_to_wire(&request).encode_to_vec());
    }
    one_of_each(requests)
}

fn replies() -> Vec<Vec<u8>> {
    let mut replies = run().replies().to_vec();
    for reply in [Reply::Chunk(chunk()), Reply::Received, Reply::Over(Outcome::NoQuorum)] {
        replies.push(reply_to_wire(reply).encode_to_vec());
    }
    one_of_each(replies)
}

/// The first message of each kind, which its first byte says, and of each length.
fn one_of_each(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut kinds = BTreeSet::new();
    messages.into_iter().filter(|bytes| kinds.insert((bytes.first().copied(), bytes.len()))).collect()
}

fn chunk() -> Chunk {
    Chunk { total_bytes: 10, offset: 4, bytes: vec![1, 2, 3] }
}

fn rejections() -> Vec<Rejection> {
    vec![
        Rejection::Malformed { what: "share".into(), why: "short".into() },
        Rejection::Stale { found: 1, current: 2 },
        Rejection::ParticipationsSpent(3),
        Rejection::WrongPhase { request: "agree".into(), phase: "unmask".into() },
        Rejection::Equivocation("advertise".into()),
        Rejection::Unavailable("stopping".into()),
    ]
}

fn enrollment() -> Enrollment {
    Enrollment::new(&IdentityKey::from_seed(&[2; 32]), "request".into(), &IdentityKey::from_seed(&[1; 32]))
}

/// The same with what a TPM would say, signed by nobody.
fn attested() -> Enrollment {
    let sized = |bytes: &[u8]| [&[0, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    let registers = BTreeSet::from([0, 7]);
    let scheme = words(&[tpm::NULL, tpm::ECDSA, tpm::SHA_256, tpm::P_256, tpm::NULL]);
    let attributes = tpm::OF_ATTESTATION.to_be_bytes();
    let point = [sized(&[1; 32]), sized(&[2; 32])].concat();
    let head = [&tpm::GENERATED.to_be_bytes()[..], &tpm::ATTEST_QUOTE.to_be_bytes()].concat();
    // A clock, two counts, whether it is safe, and a firmware's version.
    let machine = [0; 25];
    let said = [sized(&[3; 34]), sized(&[4; 32])].concat();
    let quote = Quote {
        key: [&words(&[tpm::ECC, tpm::SHA_256])[..], &attributes, &sized(&[]), &scheme, &point].concat(),
        statement: [&head[..], &said, &machine, &tpm::selection(&registers), &sized(&[5; 32])].concat(),
        signature: [&words(&[tpm::ECDSA, tpm::SHA_256])[..], &sized(&[6; 32]), &sized(&[7; 32])].concat(),
        registers: registers.into_iter().map(|register| (register, Digest([register; 32]))).collect(),
        certificates: vec![vec![8; 64]],
    };
    let key = IdentityKey::from_seed(&[1; 32]);
    Enrollment::attested(
        &IdentityKey::from_seed(&[2; 32]),
        "request".into(),
        Some(Attestation::Tpm(quote)),
        &key,
    )
}

fn renewal() -> Renewal {
    Renewal::new(DEVICE, "request".into(), &IdentityKey::from_seed(&[1; 32]))
}

fn enrolled() -> Enrolled {
    let key = IdentityKey::from_seed(&[1; 32]);
    Enrolled {
        device: DEVICE,
        certificate_pem: "certificate".into(),
        credential: Credential::issue(&key, DEVICE.0, IdentityPublic([3; 32]), 99),
        authority: key.public(),
        issued_unix_secs: 98,
        label: "anna".to_owned(),
        publisher: Some(IdentityKey::from_seed(&[4; 32]).public()),
    }
}

/// A bootstrap token's text.
fn token() -> Vec<u8> {
    let authority = IdentityKey::from_seed(&[1; 32]).public();
    let token = BootstrapToken::new("localhost:7443", [1; 32], authority, Zeroizing::new([2; 32]));
    token.to_text().reveal().as_bytes().to_vec()
}

/// Plans of every mode, method and optimiser.
fn plans() -> Vec<Plan> {
    let plain = Plan::example();
    let mut central = Plan::example();
    central.privacy.mode = Mode::Central;
    central.adapter = AdapterSpec { method: Method::Both, ..central.adapter };
    central.server = ServerOptimizer::FedAvgM { rate: 1.0, momentum: 0.9 };
    central.privacy.epsilon_budget = Some(8.0);
    let mut adaptive = Plan::example();
    adaptive.adapter = AdapterSpec {
        method: Method::Core,
        rank: 2,
        factors: Factors::Given(Digest([4; 32])),
        ..adaptive.adapter
    };
    adaptive.training.optimizer = LocalOptimizer::AdamW { weight_decay: 0.01 };
    adaptive.server = ServerOptimizer::FedAdam { rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    adaptive.privacy.metrics =
        [MetricName::Loss, MetricName::Clipped].map(|name| Metric::of(name, &adaptive.training)).to_vec();
    adaptive.privacy.adaptive_clip = Some(AdaptiveClipPlan::around(1.0, 0.5));
    let mut refreshed = Plan::example();
    refreshed.refresh = Some(RefreshPlan { every: 2, accumulated_rank: 3, shipped_rank: 2 });
    let turns =
        |method| Plan { adapter: AdapterSpec { method, ..Plan::example().adapter }, ..Plan::example() };
    vec![plain, central, adaptive, refreshed, turns(Method::Alternate), turns(Method::FrozenB)]
}

fn numbers() -> Vec<Vec<u8>> {
    let packed = packing::pack(&[1, 2, 3, 500], 9);
    let vector = vector_to_bytes(&[0.5, -1.0, 2.0, f32::NAN]);
    vec![
        [[0, 9, 4, 0].as_slice(), &packed].concat(),
        vec![1, 11, 0, 0b101, 0b100],
        [[2].as_slice(), &[1; SHARE_BYTES]].concat(),
        [[3, 2, 0].as_slice(), &vector].concat(),
    ]
}

fn charge() -> Charge {
    Charge {
        task: TASK,
        version: 1,
        round: 2,
        plan: Digest([3; 32]),
        cost: Plan::example().participation_cost(),
        delta: 1e-5,
        bytes: 400,
        examples: 4,
    }
}

fn found() -> Found {
    let Charge { task, plan, cost, delta, .. } = charge();
    Found { task, times: 3, plan, cost, delta }
}

fn device_records() -> Vec<Vec<u8>> {
    let unbounded = Charge { cost: RdpCurve::Unbounded, ..charge() };
    let signed = Signed { task: TASK, round: 2, statement: Digest([4; 32]) };
    let entries = [
        Entry::Charge { unix_millis: 5, charge: charge() },
        Entry::Charge { unix_millis: 6, charge: unbounded },
        Entry::FoundAtCoordinator { unix_millis: 7, found: found() },
        Entry::Signature(signed),
    ];
    let mut records: Vec<Vec<u8>> = entries.iter().map(json).collect();
    records.push(json(&Declined { unix_millis: 5, why: "too few".into() }));
    records
}

fn ledgers() -> Vec<Vec<u8>> {
    let file = super::folder::with_folder(|folder| {
        let path = folder.join("ledger");
        let mut ledger = client::store::Ledger::open(&path).unwrap().ledger;
        ledger.append(&Entry::Charge { unix_millis: 5, charge: charge() }).unwrap();
        ledger.append(&"two").unwrap();
        std::fs::read(&path).unwrap()
    });
    vec![
        [[0].as_slice(), &file].concat(),
        [[0].as_slice(), &file[..file.len() - 7]].concat(),
        // Two entries, cut in the middle of the second; and the same with a byte changed.
        vec![1, 2, 3, 0, b'o', b'n', b'e', 3, 0, b't', b'w', b'o', 0, 70, 0, 2, 0],
        vec![1, 2, 3, 0, b'o', b'n', b'e', 3, 0, b't', b'w', b'o', 1, 60, 0, 8],
    ]
}

fn coordinator_records() -> Vec<Vec<u8>> {
    let world = run();
    let status = world.status();
    let header = TaskHeader {
        order: 1,
        state: status.state,
        plan: status.plan,
        frozen: None,
        initial: status.adapter,
        adapter: status.adapter,
        folded: None,
        gathered: None,
        optimizer: Digest([6; 32]),
        rounds_charged: 1,
        last_round: 2,
        devices: 3,
    };
    let device = DeviceRecord::new("tablet".into(), IdentityPublic([3; 32]), 5, 9);
    let token = Token {
        label: "tablet".into(),
        issued_unix_secs: 1,
        expires_unix_secs: 9,
        redeemed_unix_secs: Some(2),
        revoked_unix_secs: None,
        redeemed_by: Some(Digest([3; 32])),
    };
    let published = Published {
        task: TASK,
        version: 2,
        plan: status.plan,
        adapter: status.adapter,
        folded: Some(Digest([7; 32])),
        clip_norm: 0.25,
    };
    let payloads = [
        json(&header),
        json(&device),
        json(&status.versions[0]),
        json(&token),
        json(&vec![DEVICE]),
        json(&status),
        json(&published),
    ];
    (0..).zip(payloads).map(|(kind, payload)| [[kind].as_slice(), &payload].concat()).collect()
}

/// A folder of a config, an index, weights and settings, each behind its length but the last.
fn bases() -> Vec<Vec<u8>> {
    let weights = weights();
    let part = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let index = br#"{"weight_map": {"model.norm.weight": "part.safetensors"}}"#;
    let settings = br#"{"bos_token": {"content": "b"}}"#;
    vec![
        [part(b""), part(b""), part(&weights)].concat(),
        [part(CONFIG.as_bytes()), part(index), part(&weights), settings.to_vec()].concat(),
    ]
}

/// Both kinds of tokenizers, numbers and blocks of numbers. Each is a base.
fn ggufs() -> Vec<Vec<u8>> {
    let files =
        [(false, false), (true, false), (false, true)].map(|(pieces, blocks)| gguf_file(pieces, blocks));
    for file in &files {
        super::folder::with_folder(|folder| {
            let path = folder.join("model.gguf");
            std::fs::write(&path, file).unwrap();
            engine::Base::open(&path).unwrap();
        });
    }
    files.to_vec()
}

/// A whole one, two of which a part is changed, and some whose numbers are at their limits or do not fit each other.
fn stopped_trainings() -> Vec<Vec<u8>> {
    let whole = checkpoints::after(2);
    let forged = |tokens: &[u8], step: &[u8], losses: u8| {
        let part = |bytes: &[u8]| [[u8::try_from(bytes.len()).unwrap()].as_slice(), bytes].concat();
        [&[2], part(tokens).as_slice(), &[1, 1], &part(step), &[1, 40, losses + 1], &[0; 64]].concat()
    };
    vec![
        [[0].as_slice(), &whole].concat(),
        vec![1, 2, 1, 1, 200, 1],
        vec![1, 3, 0, 100, 0],
        forged(&[9], &[1], 1),
        forged(&[0], &[0], 0),
        forged(&[0xff; 8], &[1], 1),
        forged(&[9], &[0xff; 4], 1),
        forged(&[9], &[200], 200),
        forged(&[0xff; 16], &[1], 1),
    ]
}

/// What we write, and the settings that others write: half the numbers, another scale, a pattern.
fn peft_folders() -> Vec<Vec<u8>> {
    let module =
        |layer: u32| Module { name: format!("model.layers.{layer}.self_attn.q_proj"), inputs: 2, outputs: 3 };
    let factors = Factors::Seeded(Digest([0; 32]));
    let modules = vec![module(2), module(10)];
    let spec = AdapterSpec { method: Method::Both, rank: 1, alpha: 2.0, factors, modules };
    let trained: Vec<f32> = (0..spec.trained_len()).map(|i| i as f32 / 8.0 - 0.5).collect();
    let files = peft_files(&spec, &[], &trained, "base").unwrap();
    let (ours, tensors) = (&files[0].1, &files[1].1);
    let folder = |config: &[u8], tensors: &[u8]| {
        [&u16::try_from(config.len()).unwrap().to_le_bytes(), config, tensors].concat()
    };
    let scaled = br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true, "bias": "none",
"rank_pattern": {"q_proj": 1}, "alpha_pattern": {"q_proj": 16.5}, "init_lora_weights": "gaussian"}"#;
    let view = |shape: Vec<usize>, bytes| TensorView::new(Dtype::BF16, shape, bytes).unwrap();
    let name = |factor: &str| format!("base_model.model.model.layers.0.mlp.up_proj.lora_{factor}.weight");
    let (a, b) = ([0, 0x3f, 0x80, 0xbf], [0x80, 0x3f, 1, 0x40, 0, 0]);
    let halves = [(name("A"), view(vec![1, 2], &a)), (name("B"), view(vec![3, 1], &b))];
    let folders = [
        folder(ours, tensors),
        folder(scaled, tensors),
        folder(b"", &safetensors::serialize(halves, None).unwrap()),
    ];
    for folder in &folders[..2] {
        let config = usize::from(u16::from_le_bytes([folder[0], folder[1]])) + 2;
        read_peft(&folder[2..config], &folder[config..]).unwrap();
    }
    folders.to_vec()
}

fn key_files() -> Vec<Vec<u8>> {
    let der = IdentityKey::generate_pkcs8(&mut ChaCha20Rng::from_seed([1; 32])).to_vec();
    let certificate = pki::pem(&CertificateDer::from(der));
    let key = certificate.replace("CERTIFICATE", "PRIVATE KEY");
    let part = |text: &str| [&u16::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
    vec![
        [vec![0], part(&certificate), key.clone().into_bytes()].concat(),
        [vec![1], part(&certificate.repeat(2)), key.clone().into_bytes()].concat(),
        [vec![2], part(&key), vec![5; 32]].concat(),
        [3; 33].to_vec(),
    ]
}

/// Whole versions, crashes and losses in every step, a device that goes, and every kind of lie.
fn tasks() -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = (0..6).map(|shape| vec![shape, 1, 31]).collect();
    for steps in 0..28 {
        inputs.push(vec![128 + steps % 6, 1, steps, 7, 1, 0, 12, 0, 1, 8, 11, 1, 4, 1, 20]);
    }
    inputs.push(vec![128, 1, 11, 15, 1, 0, 0, 0, 0, 1, 3, 3, 1, 9]);
    inputs.push(vec![129, 1, 9, 10, 1, 0, 1, 8, 3, 3, 3, 1, 9, 9]);
    inputs
}

/// The same for the answers.
fn sessions() -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = (0..6).map(|shape| vec![shape, 1, 31]).collect();
    for steps in 0..28 {
        inputs.push(vec![steps % 6, 1, steps, 8, 1, 0, 0, 3, 0, 1, 9, 2, 0, 4, 15, 0, 0, 2, 1, 12]);
    }
    inputs
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}
