//! Names of a decoder's tensors, in a GGUF file and in a Hugging Face folder.

/// The linear layers of a decoder block in a GGUF file, and in a Hugging Face folder, in the order of its tensors.
pub(crate) const LINEAR_LAYERS: [(&str, &str); 7] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The norms of a decoder block.
const NORMS: [(&str, &str); 4] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
];

/// Tensors outside the blocks.
const OUTER: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// A tensor's name in a GGUF file, from the one in a Hugging Face folder; the same name where no other is known.
pub fn to_gguf(name: &str) -> String {
    if let Some((short, _)) = OUTER.into_iter().find(|(_, long)| *long == name) {
        return short.to_owned();
    }
    let inner = |rest: &str| {
        let (layer, rest) = rest.split_once('.')?;
        let (module, parameter) = rest.rsplit_once('.')?;
        let (short, _) = modules().find(|(_, long)| *long == module)?;
        Some(format!("blk.{layer}.{short}.{parameter}"))
    };
    name.strip_prefix("model.layers.").and_then(inner).unwrap_or_else(|| name.to_owned())
}

/// A tensor's name in a Hugging Face folder, from the one in a GGUF file; the same name where no other is known.
pub fn to_hugging_face(name: &str) -> String {
    if let Some((_, long)) = OUTER.into_iter().find(|(short, _)| *short == name) {
        return long.to_owned();
    }
    let inner = |rest: &str| {
        let (layer, rest) = rest.split_once('.')?;
        let (module, parameter) = rest.rsplit_once('.')?;
        let (_, long) = modules().find(|(short, _)| *short == module)?;
        Some(format!("model.layers.{layer}.{long}.{parameter}"))
    };
    name.strip_prefix("blk.").and_then(inner).unwrap_or_else(|| name.to_owned())
}

fn modules() -> impl Iterator<Item = (&'static str, &'static str)> {
    LINEAR_LAYERS.into_iter().chain(NORMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_from_the_other_form() {
        let inner = modules().flat_map(|(_, long)| {
            ["weight", "bias"].map(|parameter| format!("model.layers.7.{long}.{parameter}"))
        });
        let outer = OUTER.into_iter().map(|(_, long)| long.to_owned());
        for name in inner.chain(outer) {
            assert_ne!(to_gguf(&name), name);
            assert_eq!(to_hugging_face(&to_gguf(&name)), name);
        }
        assert_eq!(to_gguf("model.layers.0.self_attn.q_proj.weight"), "blk.0.attn_q.weight");
        for other in ["rope_freqs.weight", "model.layers.0", "blk.0.attn_x.weight", "blk.weight"] {
            assert_eq!((to_gguf(other), to_hugging_face(other)), (other.to_owned(), other.to_owned()));
        }
    }
}
