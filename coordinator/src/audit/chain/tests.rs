use proptest::prelude::*;

use super::*;

fn key(seed: u8) -> AuditKey {
    AuditKey::from_seed(&[seed; 32]).unwrap()
}

fn said(at: u64) -> Said {
    let of = at.is_multiple_of(2).then(|| at - 1);
    Said {
        at_unix_millis: 1_700_000_000_000 + at,
        who: "operator owl".to_owned(),
        serial: Some(Serial([at.to_le_bytes()[0]; 16])),
        role: Some(Role::Operator),
        what: "stop task".to_owned(),
        with: BTreeMap::from([("task".to_owned(), format!("{at:032x}"))]),
        outcome: if of.is_some() { Outcome::Done } else { Outcome::Intent },
        why: None,
        of,
    }
}

/// The lines of so many entries, without their ends, and the head.
fn log(entries: u64, seed: u8) -> (Vec<Vec<u8>>, Head) {
    let key = key(seed);
    let (mut end, mut lines) = (End::default(), Vec::new());
    for at in 1..=entries {
        let (line, next) = end.next(&said(at), &key).unwrap();
        lines.push(line[..line.len() - 1].to_vec());
        end = next;
    }
    (lines, key.head(end))
}

fn verify(lines: &[Vec<u8>], key: Digest, heads: &[Head]) -> Result<Report, Fault> {
    let mut verifier = Verifier::new(key, heads)?;
    for line in lines {
        verifier.line(line)?;
    }
    verifier.finish()
}

#[test]
fn a_log_that_nobody_touched_holds_and_says_which_intents_are_open() {
    let (lines, head) = log(7, 1);
    let report = verify(&lines, head.key, &[head]).unwrap();
    assert_eq!((report.first, report.last, report.heads_found), (1, 7, 1));
    assert_eq!(report.open, BTreeSet::from([7]));
    assert_eq!(verify(&[], head.key, &[]).unwrap(), Report::default());
    // A head is JSON like all else, and comes back from it.
    let text = serde_json::to_string(&head).unwrap();
    assert_eq!(serde_json::from_str::<Head>(&text).unwrap(), head);
}

#[test]
fn an_older_log_or_one_that_was_written_anew_does_not_hold_against_a_head() {
    let (lines, head) = log(7, 1);
    for shorter in 0..7 {
        let last = shorter as u64;
        let found = verify(&lines[..shorter], head.key, &[head]);
        assert_eq!(found, Err(Fault::Shorter { last, head: 7 }));
    }
    // By who has the key, with one entry that says something else.
    let (mut end, mut anew) = (End::default(), Vec::new());
    for at in 1..=9 {
        let said = Said { who: if at == 3 { "operator bat" } else { "operator owl" }.to_owned(), ..said(at) };
        let (line, next) = end.next(&said, &key(1)).unwrap();
        anew.push(line[..line.len() - 1].to_vec());
        end = next;
    }
    assert_eq!(verify(&anew, head.key, &[]).unwrap().last, 9, "by itself it holds");
    assert_eq!(verify(&anew, head.key, &[head]), Err(Fault::Other(7)));
}

#[test]
fn a_head_and_a_log_of_another_key_are_told() {
    let (lines, head) = log(4, 1);
    let (_, other) = log(4, 2);
    let expected = Fault::HeadKey { n: 4, found: other.key, expected: head.key };
    assert_eq!(verify(&lines, head.key, &[other]), Err(expected));
    assert_eq!(verify(&lines, other.key, &[]), Err(Fault::Signature { n: 1, key: other.key }));
    // One that only claims the key.
    let forged = Head { key: head.key, ..other };
    assert!(matches!(verify(&lines, head.key, &[forged]), Err(Fault::HeadKey { n: 4, .. })));
}

#[test]
fn a_log_may_begin_later_only_where_an_entry_says_so() {
    let key = key(1);
    let (lines, head) = log(6, 1);
    let third: Entry = serde_json::from_slice::<Line>(&lines[2]).unwrap().entry;
    let says = |oldest: u64, before: Digest| {
        let with = [(OLDEST, oldest.to_string()), (BEFORE, before.to_string())];
        let with = with.map(|(name, value)| (name.to_owned(), value)).into();
        let said = Said { what: REMOVE.to_owned(), with, outcome: Outcome::Done, of: None, ..said(7) };
        let (line, _) = End::from(&head).next(&said, &key).unwrap();
        [&lines[2..], &[line[..line.len() - 1].to_vec()]].concat()
    };
    assert_eq!(verify(&lines[2..], head.key, &[head]), Err(Fault::Beginning(3)));
    let report = verify(&says(3, third.before), head.key, &[head, key.head(End { n: 1, ..End::default() })]);
    let report = report.unwrap();
    assert_eq!((report.first, report.last, report.heads_before), (3, 7, 1));
    // It was written down, and the files are still there after a crash.
    assert_eq!(verify(&says(5, third.before), head.key, &[head]).unwrap().first, 3);
    assert_eq!(verify(&says(2, third.before), head.key, &[head]), Err(Fault::Beginning(3)));
    assert_eq!(verify(&says(3, head.hash), head.key, &[head]), Err(Fault::Beginning(3)));
}

/// What somebody without the key may do to a log.
#[derive(Clone, Debug)]
enum Mutation {
    Byte { line: usize, at: usize, to: u8 },
    Drop(usize),
    Duplicate(usize, usize),
    Swap(usize, usize),
    Cut(usize),
    OfAnotherKey(usize),
    Blank(usize),
    CutWithin { line: usize, at: usize },
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let (a, b) = (any::<usize>(), any::<usize>());
    prop_oneof![
        (any::<usize>(), any::<usize>(), any::<u8>()).prop_map(|(line, at, to)| Mutation::Byte {
            line,
            at,
            to
        }),
        any::<usize>().prop_map(Mutation::Drop),
        (any::<usize>(), any::<usize>()).prop_map(|(line, to)| Mutation::Duplicate(line, to)),
        (a, b).prop_map(|(one, other)| Mutation::Swap(one, other)),
        any::<usize>().prop_map(Mutation::Cut),
        any::<usize>().prop_map(Mutation::OfAnotherKey),
        any::<usize>().prop_map(Mutation::Blank),
        (any::<usize>(), any::<usize>()).prop_map(|(line, at)| Mutation::CutWithin { line, at }),
    ]
}

fn mutate(lines: &mut Vec<Vec<u8>>, mutation: &Mutation) {
    let count = lines.len();
    match *mutation {
        Mutation::Byte { line, at, to } => {
            let line = &mut lines[line % count];
            let at = at % line.len();
            line[at] = to;
        }
        Mutation::Drop(line) => drop(lines.remove(line % count)),
        Mutation::Duplicate(line, to) => {
            let line = lines[line % count].clone();
            lines.insert(to % (count + 1), line);
        }
        Mutation::Swap(one, other) => lines.swap(one % count, other % count),
        Mutation::Cut(to) => lines.truncate(to % count),
        Mutation::OfAnotherKey(line) => lines[line % count] = log(count as u64, 2).0[line % count].clone(),
        Mutation::Blank(line) => lines.insert(line % (count + 1), Vec::new()),
        Mutation::CutWithin { line, at } => {
            let line = &mut lines[line % count];
            line.truncate(at % line.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_single_change_of_a_log_is_found(entries in 1_u64..12, mutation in mutations()) {
        let (lines, head) = log(entries, 1);
        let mut changed = lines.clone();
        mutate(&mut changed, &mutation);
        prop_assume!(changed != lines);
        let found = verify(&changed, head.key, &[head]);
        prop_assert!(found.is_err(), "{:?}", found);
    }
}
