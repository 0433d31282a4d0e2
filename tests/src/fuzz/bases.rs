//! A base's folder, as both sides read it.

use client::train::Projection;

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

/// A folder of a config, an index, weights and a tokenizer's settings. What the device reads as a base the
/// coordinator reads as the same one.
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
        let theirs = coordinator::base::Base::open(folder);
        if let Ok(base) = client::train::Base::open(folder) {
            let theirs = theirs.unwrap();
            assert_eq!(theirs.digest(), base.digest());
            let all = theirs.modules(&["all".to_owned()]).unwrap();
            assert_eq!(format!("{all:?}"), format!("{:?}", base.modules(&Projection::ALL)));
            drop(base.encode("a b"));
        } else if let Ok(theirs) = theirs {
            drop(theirs.modules(&["q".to_owned(), "all".to_owned()]));
        }
    });
}
