//! A base's folder, and its GGUF file, as the engine and the operator's program read them.

use std::path::Path;

use engine::Projection;
use formats::BaseInfo;

use super::folder::with_folder;
use super::tape::Tape;

/// The config of the seeds: one block, everything as small as it can be.
pub(super) const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 2,
"intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8,
"rms_norm_eps": 1e-5, "tie_word_embeddings": true, "bos_token_id": 0}"#;

/// A tokenizer that both sides take; its reading is another project's.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
"normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}"#;

/// The weights of the config of the seeds.
pub(super) fn weights() -> Vec<u8> {
    let matrix = |name: &str, rows: usize, at: usize| {
        let (end, name) = (at + 8 * rows, format!("model.layers.0.{name}.weight"));
        format!(r#""{name}":{{"dtype":"F32","shape":[{rows},2],"data_offsets":[{at},{end}]}}"#)
    };
    let mut tensors = vec![
        r#""model.embed_tokens.weight":{"dtype":"F16","shape":[4,2],"data_offsets":[0,16]}"#.to_owned(),
        r#""model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}"#.to_owned(),
    ];
    for (i, name) in ["input_layernorm", "post_attention_layernorm"].into_iter().enumerate() {
        let at = 24 + 8 * i;
        let end = at + 8;
        let name = format!("model.layers.0.{name}.weight");
        tensors.push(format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{at},{end}]}}"#));
    }
    for (i, projection) in Projection::ALL.into_iter().enumerate() {
        tensors.push(matrix(projection.path(), 2, 40 + 16 * i));
    }
    let header = format!("{{{}}}", tensors.join(","));
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header.as_bytes());
    weights.extend_from_slice(&[0; 40 + 16 * 7]);
    weights
}

/// A folder of a config, an index, weights and a tokenizer's settings. For what the engine opens as a base a plan can be
/// made, and it names that base and those layers.
pub fn base(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let (config, index) = (tape.part(), tape.part());
    let (weights, settings) = (tape.part(), tape.rest());
    let config = if config.is_empty() { CONFIG.as_bytes() } else { config };
    with_folder(|folder| {
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("config.json", config);
        write("tokenizer.json", TOKENIZER.as_bytes());
        if index.is_empty() {
            write("model.safetensors", weights);
        } else {
            write("model.safetensors.index.json", index);
            write("part.safetensors", weights);
        }
        if !settings.is_empty() {
            write("tokenizer_config.json", settings);
        }
        read_by_both(folder);
    });
}

/// A GGUF file; as [`base`].
pub fn gguf(bytes: &[u8]) {
    with_folder(|folder| {
        let path = folder.join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        read_by_both(&path);
    });
}

fn read_by_both(path: &Path) {
    let info = BaseInfo::open(path);
    if let Ok(base) = engine::Base::open(path) {
        let info = info.unwrap();
        assert_eq!(info.digest(), base.digest());
        let all = info.modules(&["all".to_owned()]).unwrap();
        assert_eq!(format!("{all:?}"), format!("{:?}", base.modules(&Projection::ALL)));
        if let Ok(tokens) = base.encode("a b") {
            drop(base.decode(&tokens));
        }
    } else if let Ok(info) = info {
        drop(info.modules(&["q".to_owned(), "all".to_owned()]));
    }
}

/// A GGUF file of one block as small as it can be, with a tokenizer of one of the two kinds; with quantised matrices
/// it is a little larger.
pub(super) fn gguf_file(sentence_piece: bool, quantized: bool) -> Vec<u8> {
    let (hidden, vocab) = if quantized { (32_u64, 4_u64) } else { (2, 4) };
    let mut pairs: Vec<Vec<u8>> = Vec::new();
    let mut pair = |key: &str, kind: u32, value: &[u8]| {
        pairs.push([text(key).as_slice(), &kind.to_le_bytes(), value].concat());
    };
    pair("general.architecture", 8, &text("llama"));
    for (key, value) in [
        ("embedding_length", hidden),
        ("feed_forward_length", hidden),
        ("block_count", 1),
        ("attention.head_count", 1),
        ("context_length", 8),
    ] {
        pair(&format!("llama.{key}"), 4, &u32::try_from(value).unwrap().to_le_bytes());
    }
    pair("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes());
    pair("tokenizer.ggml.bos_token_id", 4, &0_u32.to_le_bytes());
    pair("tokenizer.ggml.model", 8, &text(if sentence_piece { "llama" } else { "gpt2" }));
    let words = ["a", "b", "ab", if sentence_piece { "▁" } else { "Ġ" }];
    pair("tokenizer.ggml.tokens", 9, &list(8, words.map(text).iter().map(Vec::as_slice)));
    let kinds = [1_i32; 4].map(i32::to_le_bytes);
    pair("tokenizer.ggml.token_type", 9, &list(5, kinds.iter().map(<[u8; 4]>::as_slice)));
    if sentence_piece {
        let scores = [-3.0_f32, -2.0, -1.0, -4.0].map(f32::to_le_bytes);
        pair("tokenizer.ggml.scores", 9, &list(6, scores.iter().map(<[u8; 4]>::as_slice)));
    } else {
        pair("tokenizer.ggml.pre", 8, &text("gpt-2"));
        pair("tokenizer.ggml.merges", 9, &list(8, [text("a b")].iter().map(Vec::as_slice)));
    }
    let mut tensors = vec![("token_embd".to_owned(), vec![hidden, vocab])];
    tensors.push(("output_norm".to_owned(), vec![hidden]));
    for name in ["attn_norm", "ffn_norm"] {
        tensors.push((format!("blk.0.{name}"), vec![hidden]));
    }
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        tensors.push((format!("blk.0.{name}"), vec![hidden, hidden]));
    }
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (i, (name, shape)) in (0_u8..).zip(&tensors) {
        infos.extend(text(&format!("{name}.weight")));
        infos.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
        infos.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        let count = usize::try_from(shape.iter().product::<u64>()).unwrap();
        let blocks = quantized && shape.len() == 2;
        // Q4_0: of 32 numbers a scale in half precision, and four bits each.
        infos.extend(if blocks { 2_u32 } else { 0 }.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        let number = |at: usize| (at as f32 + f32::from(i)).sin();
        if blocks {
            data.extend((0..count / 32).flat_map(|_| [[0, 0x2c].as_slice(), &[i ^ 0x97; 16]].concat()));
        } else {
            data.extend((0..count).flat_map(|at| number(at).to_le_bytes()));
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let counts = [tensors.len() as u64, pairs.len() as u64].map(u64::to_le_bytes).concat();
    let mut file = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &counts, &pairs.concat(), &infos].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

fn text(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

fn list<'a>(kind: u32, values: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut list = [kind.to_le_bytes().as_slice(), &(values.len() as u64).to_le_bytes()].concat();
    values.for_each(|value| list.extend_from_slice(value));
    list
}
