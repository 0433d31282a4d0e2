use proptest::prelude::*;

use super::*;

fn tokens(blocks: &Blocks) -> Vec<&[u32]> {
    blocks.as_slice().iter().map(Block::tokens).collect()
}

/// A document of consecutive tokens: `?` is context only, `!` counts in the loss.
fn document(first: u32, pattern: &str) -> Encoded {
    let mut encoded = Encoded::default();
    for (token, kind) in (first..).zip(pattern.chars()) {
        encoded.push(token, kind == '!');
    }
    encoded
}

/// Each block as its first token and its loss mask, in the pattern of `document`.
fn cut(documents: &[Encoded], sequence_len: u32) -> Vec<(u32, String)> {
    let blocks = Blocks::of_documents(documents, 1, sequence_len);
    let pattern =
        |block: &Block| block.learned().iter().map(|learned| if *learned { '!' } else { '?' }).collect();
    blocks.as_slice().iter().map(|block| (block.tokens()[0], pattern(block))).collect()
}

#[test]
fn plain_documents_are_joined_and_cut_and_the_rest_is_left_out() {
    let documents = [vec![5, 6, 7], vec![8], vec![9, 10, 11, 12]];
    let blocks = Blocks::new(&documents, 1, 4);
    assert_eq!(tokens(&blocks), [[1, 5, 6, 7], [1, 8, 1, 9]]);
    assert!(blocks.as_slice().iter().all(|block| block.learned() == [false, true, true, true]));
    assert_eq!(blocks.targets(), 6);
    // A last block that ends exactly with the text is dropped, as other trainers do.
    assert_eq!(Blocks::new(&documents[..1], 1, 2).len(), 1);
    let short = Blocks::new(&documents, 1, 64);
    assert_eq!((short.len(), short.targets()), (1, 10));
    assert_eq!(Blocks::new(&[], 1, 8), Blocks::default());
    assert_eq!(Blocks::new(&[vec![]], 1, 8), Blocks::default());
}

#[test]
fn a_block_of_nothing_but_what_is_given_is_not_cut() {
    // BOS is token 1. The answer is short, so its block ends with it.
    let long = document(10, "?????????????????!!?");
    assert_eq!(cut(&[long], 8), [(21, "??????!!".to_owned())]);
    // A long answer begins in the middle of its block.
    let long = document(10, "??????????????????!!!!!!!!!!!!");
    assert_eq!(cut(&[long], 8), [(24, "????!!!!".to_owned())]);
    // Blocks that have targets are cut like plain text.
    let pair = document(10, "???!!");
    let other = document(20, "??!!!?!!!!!!");
    assert_eq!(
        cut(&[pair, other], 6),
        [(1, "????!!".to_owned()), (1, "???!!!".to_owned()), (25, "?!!!!!".to_owned())]
    );
}

#[test]
fn a_short_conversation_is_one_block_and_one_without_an_answer_none() {
    assert_eq!(cut(&[document(10, "??!")], 8), [(1, "???!".to_owned())]);
    assert_eq!(cut(&[document(10, "???")], 8), []);
    assert_eq!(cut(&[document(10, "???????????????????")], 8), []);
    // A block whose only target would be its first token is dropped.
    assert_eq!(cut(&[document(1, "!??")], 8), []);
}

#[test]
fn the_opener_is_there_once_and_learned_only_between_plain_documents() {
    assert_eq!(
        cut(&[document(1, "?!"), document(10, "!!"), document(1, "?!")], 16),
        [(1, "?!!!!?!".to_owned())]
    );
}

#[test]
fn no_debug_shows_tokens() {
    let blocks = Blocks::new(&[vec![31_337, 31_338]], 1, 8);
    assert_eq!(format!("{blocks:?}"), "Blocks { blocks: [Block(2 of 3 tokens learned)] }");
}

#[test]
fn the_bytes_of_a_digest_say_the_tokens_the_mask_and_the_cuts() {
    let mut document = Encoded::plain(vec![7]);
    document.push(258, false);
    document.push(9, true);
    let blocks = Blocks::of_documents(&[document], 1, 8);
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0, 4,
        0, 0, 0, 1, 0,
        0, 0, 0, 7, 1,
        0, 0, 1, 2, 0,
        0, 0, 0, 9, 1,
    ];
    assert_eq!(blocks.to_bytes(), expected);
    // The same tokens in two blocks are other bytes, and nothing is no bytes.
    let cut = |len| Blocks::new(&[vec![2, 3, 4, 5, 6]], 1, len).to_bytes();
    assert_ne!(cut(3), cut(6));
    assert_eq!(Blocks::default().to_bytes(), [0_u8; 0]);
}

proptest! {
    #[test]
    fn plain_blocks_are_a_prefix_of_the_joined_documents(
        documents in prop::collection::vec(prop::collection::vec(2_u32..50, 0..30), 0..8),
        sequence_len in 0_u32..20,
    ) {
        let joined: Vec<u32> =
            documents.iter().flat_map(|document| std::iter::once(1).chain(document.iter().copied())).collect();
        let blocks = Blocks::new(&documents, 1, sequence_len);
        let cut = tokens(&blocks).concat();
        prop_assert!(joined.starts_with(&cut));
        let length = sequence_len.max(2) as usize;
        prop_assert!(joined.len() - cut.len() <= length);
        prop_assert_eq!(blocks.targets(), (cut.len() - blocks.len()) as u64);
        prop_assert!(blocks.len() == 1 || blocks.as_slice().iter().all(|block| block.tokens().len() == length));
    }

    #[test]
    fn every_block_has_something_to_learn_and_no_token_is_in_two(
        patterns in prop::collection::vec("(\\?{0,30}!{0,12}){0,3}", 0..6),
        sequence_len in 2_u32..20,
    ) {
        let mut first = 10;
        let documents: Vec<Encoded> = patterns
            .iter()
            .map(|pattern| {
                let document = document(first, pattern);
                first += 1000;
                document
            })
            .collect();
        let learned: Vec<u32> = documents
            .iter()
            .flat_map(|document| document.tokens().iter().zip(document.learned()))
            .filter_map(|(token, learned)| learned.then_some(*token))
            .collect();
        let blocks = Blocks::of_documents(&documents, 1, sequence_len);
        let mut seen = Vec::new();
        for block in blocks.as_slice() {
            prop_assert_eq!(block.tokens().len(), block.learned().len());
            prop_assert!(block.learned()[1..].contains(&true) && !block.learned()[0]);
            prop_assert!(block.tokens().len() == sequence_len as usize || blocks.len() == 1);
            for (token, counts) in block.tokens().iter().zip(block.learned()) {
                prop_assert!(!*counts || *token == 1 || learned.contains(token));
                seen.extend((*token != 1).then_some(*token));
            }
        }
        // In order, and each once.
        prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", seen);
    }
}
