"""Writes the fixtures that `src/tests.rs` compares the export of adapters with: GGUF adapters as the package
`gguf` writes them, and PEFT folders as PEFT writes them. With paths of GGUF adapters of our own, reads these instead.

usage: python make_adapters.py [ADAPTER.gguf ...]        needs: torch transformers peft safetensors gguf numpy

<architecture>.gguf     the adapter of `adapter()` for that architecture
peft/<name>/            a PEFT folder; its numbers in the order of `adapter()`

The i-th number of an adapter is ((37 i + 11) mod 101 - 50) / 256, which is exact in f32, f16 and bf16.
"""
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
RANK, ALPHA, HEADS, KV_HEADS, HIDDEN, INNER = 3, 5.0, 4, 2, 16, 24
SHAPES = {"mlp.down_proj": (HIDDEN, INNER), "self_attn.k_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN),
          "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN)}
SHORT = {"mlp.down_proj": "ffn_down", "self_attn.k_proj": "attn_k", "self_attn.q_proj": "attn_q",
         "self_attn.v_proj": "attn_v"}
BLOCKS = (0, 1)


def adapter():
    """(block, layer, A, B) in the order of the flat vector."""
    at = 0
    for block in BLOCKS:
        for layer, (outputs, inputs) in SHAPES.items():
            factors = []
            for shape in [(RANK, inputs), (outputs, RANK)]:
                index = np.arange(at, at + shape[0] * shape[1])
                factors.append((((index * 37 + 11) % 101 - 50) / 256).astype(np.float32).reshape(shape))
                at += index.size
            yield block, layer, *factors


def turn(rows, heads):
    """Rows in the order of Hugging Face's files to the interleaved order of GGUF's "llama"."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def heads_of(architecture, layer):
    return {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(layer) if architecture == "llama" else None


def write(architecture):
    path = HERE / f"{architecture}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for block, layer, a, b in adapter():
        heads = heads_of(architecture, layer)
        name = f"blk.{block}.{SHORT[layer]}.weight"
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(turn(b, heads) if heads else b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read(path)


def read(path):
    """What llama.cpp asks of an adapter's file, and that it does to a base in GGUF's order what PEFT does in its own."""
    reader = gguf.GGUFReader(path)
    said = {key: reader.get_field(key).contents() for key in
            ["general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"]}
    assert reader.get_field("adapter.lora.alpha").types == [gguf.GGUFValueType.FLOAT32]
    architecture = said.pop("general.architecture")
    assert said == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": ALPHA}, said
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    rng = np.random.default_rng(3)
    for block, layer, a, b in adapter():
        name, heads = f"blk.{block}.{SHORT[layer]}.weight", heads_of(architecture, layer)
        their_a, their_b = tensors.pop(f"{name}.lora_a"), tensors.pop(f"{name}.lora_b")
        assert {their_a.tensor_type, their_b.tensor_type} == {gguf.GGMLQuantizationType.F32}
        # The fastest size first: of A the inputs, of B the rank.
        outputs, inputs = SHAPES[layer]
        assert list(their_a.shape) == [inputs, RANK] and list(their_b.shape) == [RANK, outputs], name
        assert (their_a.data_offset | their_b.data_offset) % 32 == 0
        weight = rng.standard_normal((outputs, inputs), dtype=np.float32)
        scale = said["adapter.lora.alpha"] / their_b.shape[0]
        changed = (turn(weight, heads) if heads else weight) + scale * their_b.data @ their_a.data
        expected = weight + ALPHA / RANK * b @ a
        off = np.abs(changed - (turn(expected, heads) if heads else expected)).max()
        assert off < 1e-6, (name, off)
    assert not tensors, tensors
    print(path, "is an adapter for", architecture)


def peft_folders():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.rmtree(HERE / "peft", ignore_errors=True)
    for name, dtype, more in [
        ("f32", torch.float32, dict(target_modules=list(SHAPES))),
        ("f16_rslora", torch.float16, dict(target_modules=[m.rsplit(".", 1)[1] for m in SHAPES], use_rslora=True)),
        ("bf16_patterns", torch.bfloat16, dict(target_modules=r".*\.(down|k|q|v)_proj", r=RANK + 4,
                                               rank_pattern={".*_proj": RANK}, alpha_pattern={"q_proj": ALPHA})),
    ]:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=32, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=len(BLOCKS),
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=32))
        config = LoraConfig(**dict(r=RANK, lora_alpha=int(ALPHA), task_type="CAUSAL_LM") | more)
        model = get_peft_model(model, config, autocast_adapter_dtype=False).to(dtype)
        state = dict(model.named_parameters())
        with torch.no_grad():
            for block, layer, a, b in adapter():
                for factor, numbers in [("A", a), ("B", b)]:
                    full = f"base_model.model.model.layers.{block}.{layer}.lora_{factor}.default.weight"
                    state.pop(full).copy_(torch.from_numpy(numbers))
        assert not [name for name in state if "lora_" in name]
        model.save_pretrained(HERE / "peft" / name)
        (HERE / "peft" / name / "README.md").unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        for path in sys.argv[1:]:
            read(Path(path))
    else:
        write("llama")
        write("qwen2")
        peft_folders()
