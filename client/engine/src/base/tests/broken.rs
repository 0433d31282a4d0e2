//! Files that are no base: one error that names what is wrong, and never a panic.

use proptest::prelude::*;

use super::*;

/// Opens a changed copy of a GGUF file; the error without the folder's path.
fn complaint(name: &str, delta: impl Fn(&mut Vec<u8>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let mut bytes = std::fs::read(file(name)).unwrap();
    delta(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    Base::open(&path).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
}

/// Replaces a text of the file by one of the same length.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

/// Writes a number where a text ends.
fn write_after(bytes: &mut [u8], text: &str, skip: usize, number: &[u8]) {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let at = at + text.len() + skip;
    bytes[at..at + number.len()].copy_from_slice(number);
}

#[test]
fn a_gguf_file_that_is_no_base_is_refused_by_key_and_tensor() {
    let other = complaint("qwen2", |bytes| replace(bytes, "qwen2", "qwen9"));
    assert_eq!(other, "x.gguf: unknown architecture `qwen9`; known are llama, qwen2, qwen3");
    let key = complaint("qwen2", |bytes| replace(bytes, "qwen2.block_count", "qwen2.block_kount"));
    assert_eq!(key, "x.gguf: `qwen2.block_count` is missing");
    let split = complaint("q4_0", |bytes| {
        // Two more pairs, together of 64 bytes, so that the tensors stay aligned.
        let mut pairs = Vec::new();
        for (key, kind, value) in
            [("split.count", 2_u32, [3, 0].as_slice()), ("general.x_of_26_characters", 0, &[1])]
        {
            pairs.extend((key.len() as u64).to_le_bytes());
            pairs.extend(key.as_bytes());
            pairs.extend(kind.to_le_bytes());
            pairs.extend(value);
        }
        assert_eq!(pairs.len(), 64);
        bytes.splice(24..24, pairs);
        bytes[16] += 2;
    });
    assert_eq!(
        split,
        "x.gguf: `split.count` = 3 is not supported; make one file of the 3 first, by llama-gguf-split --merge FIRST OUT"
    );
    // Only the first part says what the model is.
    let part = complaint("q4_0", |bytes| {
        let mut pairs = Vec::new();
        for (key, value) in [("split.count", 2_u16), ("split.no", 1)] {
            pairs.extend((key.len() as u64).to_le_bytes());
            pairs.extend(key.as_bytes());
            pairs.extend(2_u32.to_le_bytes());
            pairs.extend(value.to_le_bytes());
        }
        bytes.splice(24..24, pairs);
        bytes[16] += 2;
        replace(bytes, "general.architecture", "general.architectura");
        // Wherever the tensors begin now, they end within the file.
        bytes.extend([0; 64]);
    });
    assert!(
        part.starts_with("x.gguf: `split.count` = 2 is not supported: this is part 2 of 2; make one"),
        "{part}"
    );
    let pre = complaint("q4_0", |bytes| replace(bytes, "smollm", "smullm"));
    assert_eq!(
        pre,
        "x.gguf: `tokenizer.ggml.pre` = smullm is not supported; known are llama-bpe, qwen2, deepseek-r1-qwen, tekken, smollm, gpt-2 and default"
    );
    let model = complaint("q4_0", |bytes| replace(bytes, "gpt2", "bert"));
    assert_eq!(model, "x.gguf: `tokenizer.ggml.model` = bert is not supported; known are gpt2 and llama");
    let missing = complaint("f16", |bytes| replace(bytes, "blk.0.ffn_up.weight", "blk.0.ffn_xx.weight"));
    assert_eq!(missing, "x.gguf has no tensor `blk.0.ffn_up.weight`");
    let scaling = complaint("q4_0", |bytes| replace(bytes, "linear", "yarn__"));
    assert_eq!(scaling, "x.gguf: `llama.rope.scaling.type` = yarn__ is not supported");
    // After a tensor's name: how many dimensions, the columns, the rows, the type.
    let kind = complaint("qwen2", |bytes| write_after(bytes, "ffn_up.weight", 20, &[20, 0, 0, 0]));
    assert_eq!(
        kind,
        "x.gguf: tensor `blk.0.ffn_up.weight` must be F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, \
         Q4_K, Q5_K or Q6_K, found IQ4_NL"
    );
    let shape = complaint("qwen2", |bytes| write_after(bytes, "ffn_up.weight", 12, &[95]));
    assert_eq!(shape, "x.gguf: tensor `blk.0.ffn_up.weight` must be [96, 64], found [95, 64]");
    let overlap = complaint("qwen2", |bytes| write_after(bytes, "ffn_up.weight", 24, &[0; 8]));
    assert!(overlap.contains("overlap"), "{overlap}");
    let vocabulary = complaint("qwen2", |bytes| write_after(bytes, "token_embd.weight", 12, &[0x7f, 1]));
    assert_eq!(vocabulary, "x.gguf: the tokenizer's tokens go up to 383, the model's vocab_size is 383");
}

/// A list of texts, as a file has it after its kind.
fn texts<'a>(list: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = 8_u32.to_le_bytes().to_vec();
    bytes.extend((list.len() as u64).to_le_bytes());
    for text in list {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Puts a list in the place of the one that has this key.
fn set_list(bytes: &mut Vec<u8>, key: &str, list: &[u8]) {
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
    let number = |at: usize| {
        let word = bytes[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(word)).unwrap()
    };
    let (kind, count) = (bytes[at], number(at + 4));
    let end = match kind {
        8 => (0..count).fold(at + 12, |at, _| at + 8 + number(at)),
        _ => at + 12 + 4 * count,
    };
    bytes.splice(at..end, list.iter().copied());
    // Wherever the tensors begin now, they end within the file.
    bytes.extend([0; 64]);
}

#[test]
fn a_gguf_file_s_words_take_a_small_multiple_of_its_bytes() {
    // Each word is one letter longer than the one before it, and can be cut at each of its letters.
    let words: Vec<String> = (1..=1024).map(|len| "a".repeat(len)).collect();
    let cuts = complaint("f16", |bytes| {
        set_list(bytes, "tokenizer.ggml.tokens", &texts(words.iter().map(String::as_str)));
        let mut scores = 6_u32.to_le_bytes().to_vec();
        scores.extend(1024_u64.to_le_bytes());
        scores.extend([0; 4096]);
        set_list(bytes, "tokenizer.ggml.scores", &scores);
    });
    assert!(
        cuts.contains("has tokens that can be cut into two of its tokens in more than 20480 ways"),
        "{cuts}"
    );
    let long = "x".repeat(3000);
    let control = complaint("qwen2", |bytes| {
        let list: Vec<String> = (0..500).map(|i| format!("{i}{long}")).collect();
        set_list(bytes, "tokenizer.ggml.tokens", &texts(list.iter().map(String::as_str)));
        let mut kinds = 5_u32.to_le_bytes().to_vec();
        kinds.extend(500_u64.to_le_bytes());
        kinds.extend([3, 0, 0, 0].repeat(500));
        set_list(bytes, "tokenizer.ggml.token_type", &kinds);
        set_list(bytes, "tokenizer.ggml.merges", &texts(std::iter::empty()));
    });
    assert!(control.contains("at most 1048576 are read"), "{control}");
}

#[test]
fn a_tensor_that_no_decoder_has_is_refused_instead_of_left_out() {
    // The same file says that nothing is tied, and has a bias that the first block's queries alone have.
    let unknown = complaint("f16", |bytes| replace(bytes, "blk.0.attn_q.bias", "blk.0.attn_q.bia_"));
    assert_eq!(
        unknown,
        "x.gguf: tensor `blk.0.attn_k.bias` is not supported, and to leave it out would change the model"
    );
}

fn folder_complaint(files: &[(&str, &str)]) -> String {
    let dir = with_files("smollm2", files);
    Base::open(dir.path()).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_folder_whose_parts_disagree_is_refused_with_both_numbers() {
    let config = std::fs::read_to_string(family("smollm2").join("config.json")).unwrap();
    let tokenizer = std::fs::read_to_string(family("smollm2").join("tokenizer.json")).unwrap();
    let more = tokenizer.replace("\"w63\": 63", "\"w63\": 63, \"w70\": 70");
    assert_eq!(
        folder_complaint(&[("tokenizer.json", &more)]),
        "tokenizer.json: the tokenizer's tokens go up to 70, the model's vocab_size is 64"
    );
    let eos = config.replace("\"eos_token_id\": 2", "\"eos_token_id\": 64");
    assert_eq!(
        folder_complaint(&[("config.json", &eos)]),
        "config.json: token 64 is not below vocab_size, which is 64"
    );
    assert_eq!(
        folder_complaint(&[("generation_config.json", r#"{"eos_token_id": 99}"#)]),
        "tokenizer.json: the special token 99 is not below the model's vocab_size, 64"
    );
    let none = config.replace("\"eos_token_id\": 2", "\"eos_token_id\": null");
    let none = none.replace("\"bos_token_id\": 1", "\"bos_token_id\": null");
    assert_eq!(
        folder_complaint(&[("config.json", &none), ("generation_config.json", "{}")]),
        "tokenizer.json: no token can open a document: neither a first one (bos), nor <|endoftext|>, nor a last one \
         (eos)"
    );
    let broken = folder_complaint(&[("tokenizer_config.json", "{")]);
    assert!(broken.starts_with("tokenizer_config.json: EOF"), "{broken}");
    let untied = config.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert_eq!(
        folder_complaint(&[("config.json", &untied)]),
        "model.safetensors has no tensor `lm_head.weight`"
    );
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_tensor() {
    for name in FILES {
        // Ones throughout are no number as f32 and f16, and neither as a block's scale, which is f16.
        let tail = complaint(name, |bytes| {
            let from = bytes.len() - bytes.len() / 4;
            bytes[from..].fill(0xff);
        });
        assert!(tail.starts_with("x.gguf is damaged: `"), "{name}: {tail}");
        assert!(tail.contains("has a number that is not finite"), "{name}: {tail}");
    }
    let dir = with_files("smollm2", &[]);
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last..].copy_from_slice(&half::bf16::INFINITY.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
    for dtype in [WeightDtype::AsStored, WeightDtype::F32, WeightDtype::Bf16] {
        let error = Base::open_with(dir.path(), BaseOptions { dtype }).unwrap_err().to_string();
        assert!(error.contains("has a number that is not finite"), "{dtype:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_gguf_files_open_or_are_refused(
        which in 0..FILES.len(),
        deltas in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..6),
        header in any::<bool>(),
        cut in prop::option::of(0.0..1.0_f64),
    ) {
        let mut bytes = std::fs::read(file(FILES[which])).unwrap();
        // The header is the first few kilobytes; what is behind the metadata is in it too.
        let reach = if header { 12_000.min(bytes.len()) } else { bytes.len() };
        for (at, byte) in deltas {
            bytes[place(at, reach)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(place(cut, bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(base) = Base::open(&path) {
            base.config().check().unwrap();
            drop(base.encode(" the owl 12 <|im_end|> \u{301}"));
        }
    }

    #[test]
    fn changed_safetensors_files_open_or_are_refused(
        deltas in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..6),
        cut in prop::option::of(0.0..1.0_f64),
    ) {
        let dir = with_files("smollm2", &[]);
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in deltas {
            bytes[place(at, 3000)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(place(cut, bytes.len()));
        }
        std::fs::write(path, bytes).unwrap();
        drop(Base::open(dir.path()));
    }
}

/// The place at this part of a length.
fn place(part: f64, length: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the part is between 0 and 1"
    )]
    let place = (part * length as f64) as usize;
    place.min(length - 1)
}
