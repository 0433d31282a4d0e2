//! What a device reads from its own disk, and from its user.

use std::path::Path;

use client::store::{Declined, Entry};
use client::store::{Ledger, LedgerError};
use coordinator::peer::AdminName;
use engine::{Blocks, DecoderConfig, Projection};
use privacy::Delta;
use proto::ids::{Digest, Timestamp};
use proto::token::BootstrapToken;
use session::spending::Spending;
use text::{Document, ReadOptions, UserText};

use super::folder::with_folder;
use super::tape::Tape;

/// The token that opens a document.
const BOS: u32 = 256;

/// A ledger's file: any bytes, or whole records of which the end, or one byte, is not as it was written.
pub fn ledger(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    with_folder(|folder| {
        let path = folder.join("ledger");
        match tape.byte() % 2 {
            0 => any_ledger(&path, tape),
            _ => damaged_ledger(&path, tape),
        }
    });
}

fn any_ledger(path: &Path, tape: Tape<'_>) {
    std::fs::write(path, tape.rest()).unwrap();
    let before = tape.rest().len() as u64;
    match Ledger::open(path) {
        Ok(opened) => {
            let left = std::fs::metadata(path).unwrap().len();
            assert_eq!(left + opened.torn_bytes, before);
            goes_on(path, opened.ledger);
        }
        Err(LedgerError::Damaged { offset, .. }) => {
            assert!(offset < before);
            assert_eq!(std::fs::read(path).unwrap(), tape.rest(), "a damaged ledger was changed");
        }
        Err(error) => assert!(matches!(error, LedgerError::TooLarge { .. }), "{error}"),
    }
}

fn damaged_ledger(path: &Path, mut tape: Tape<'_>) {
    let mut ledger = Ledger::open(path).unwrap().ledger;
    let mut ends = vec![0];
    for _ in 0..tape.byte() % 6 {
        let entry = String::from_utf8_lossy(tape.part()).into_owned();
        if ledger.append(&entry).is_ok() {
            ends.push(std::fs::metadata(path).unwrap().len());
        }
    }
    drop(ledger);
    let whole = std::fs::read(path).unwrap();
    let (kind, at) = (tape.byte() % 2, tape.below(whole.len() + 1));
    let mut damaged = whole.clone();
    if kind == 0 {
        damaged.truncate(at);
        damaged.resize(whole.len(), 0);
        damaged.truncate(at + tape.below(whole.len() - at + 1));
    } else if let Some(byte) = damaged.get_mut(at) {
        *byte ^= tape.byte();
    }
    std::fs::write(path, &damaged).unwrap();
    // Where the file first differs from what was written.
    let same = whole.iter().zip(&damaged).take_while(|(a, b)| a == b).count() as u64;
    match Ledger::open(path) {
        Ok(opened) => {
            let kept = ends.iter().filter(|end| **end <= same).count() - 1;
            assert_eq!(opened.ledger.head().0, kept, "records were lost or invented");
            goes_on(path, opened.ledger);
        }
        Err(error) => {
            assert!(kind == 1 && matches!(error, LedgerError::Damaged { .. }), "a torn record: {error}");
        }
    }
}

/// A ledger that opens takes an entry and opens again.
fn goes_on(path: &Path, mut ledger: Ledger) {
    drop(ledger.entries::<Entry>());
    ledger.verify().unwrap();
    ledger.append(&"again").unwrap();
    ledger.verify().unwrap();
    let head = ledger.head();
    drop(ledger);
    let opened = Ledger::open(path).unwrap();
    assert_eq!((opened.ledger.head(), opened.torn_bytes), (head, 0));
}

/// A record of the ledger or of the state.
pub fn device_record(bytes: &[u8]) {
    if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
        let again: Entry = serde_json::from_slice(&serde_json::to_vec(&entry).unwrap()).unwrap();
        assert_eq!(entry, again);
        if let Entry::Charge { unix_millis, charge } = entry {
            let mut spending = Spending::new();
            spending.add(&charge, Timestamp(unix_millis));
            assert_eq!((spending.participations(charge.task), spending.in_total()), (1, 1));
            let epsilon = spending.epsilon(charge.task, Delta::new(1e-5).unwrap());
            assert!(epsilon.is_nan() || epsilon >= 0.0, "ε = {epsilon}");
        }
    }
    if let Ok(declined) = serde_json::from_slice::<Declined>(bytes) {
        let again: Declined = serde_json::from_slice(&serde_json::to_vec(&declined).unwrap()).unwrap();
        assert_eq!(declined, again);
    }
}

/// A text that names something: a bootstrap token, an identifier, an administrator, a projection.
pub fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<BootstrapToken>() {
        assert!(text.contains("nst2.") && token.address().len() < text.len());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(name) = text.parse::<AdminName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(projection) = text.parse::<Projection>() {
        assert_eq!(projection.to_string().parse(), Ok(projection));
    }
}

/// A user's text, whatever its name says that it is, and the blocks that are cut from it.
pub fn text(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let sequence_len = u32::from(tape.byte());
    with_folder(|folder| {
        let texts = ["text.jsonl", "text.json", "text.md", "text"].map(|name| {
            let path = folder.join(name);
            std::fs::write(&path, tape.rest()).unwrap();
            let text = UserText::read(&[path], &ReadOptions::default()).unwrap();
            assert_eq!(text.reading().files + text.reading().unread_files(), 1);
            assert_eq!(text.reading().documents, text.documents().len() as u64);
            text
        });
        let lines = tape.rest().split(|byte| *byte == b'\n').count();
        let [objects, _, _, _] = &texts;
        if !tape.rest().contains(&b'[') {
            assert!(objects.documents().len() as u64 + objects.reading().skipped_lines() <= lines as u64);
        }
        let documents: Vec<Vec<u32>> = objects
            .documents()
            .filter_map(|document| match document {
                Document::Plain(text) => Some(text.bytes().map(u32::from).collect()),
                Document::Completion { .. } | Document::Conversation(_) => None,
            })
            .collect();
        assert!(documents.iter().all(|document| document.iter().any(|byte| *byte > 32)));
        let blocks = Blocks::new(&documents, BOS, sequence_len);
        let longest = sequence_len.max(2) as usize;
        assert!(blocks.as_slice().iter().all(|block| (2..=longest).contains(&block.tokens().len())));
        let tokens: usize = documents.iter().map(|document| document.len() + 1).sum();
        assert!(blocks.targets() <= tokens as u64);
    });
}

/// A model's `config.json`.
pub fn model_config(bytes: &[u8]) {
    if let Ok(config) = DecoderConfig::parse(bytes) {
        config.check().unwrap();
    }
}
