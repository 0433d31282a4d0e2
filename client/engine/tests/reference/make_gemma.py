"""Writes what `src/tests/gemma.rs` compares with: a tiny random Gemma 3 as a Hugging Face folder, its loss, the gradients of
a LoRA adapter's factors, and what it says next, by transformers and autograd.

usage: python make_gemma.py        needs: torch transformers safetensors; writes beside itself

gemma/                  the model, in f32, and the tokenizer of `base`
gemma.safetensors       tokens (2, 20); loss (mean over all targets); logits (20, vocab) of the first sequence;
                        for each layer `….lora_A` and `….lora_B` and their gradients under `grad ….lora_A`; the loss with the
                        adapter (`adapted`), with local windows of other lengths (`window 1`, `window 64`), as the
                        original files write their config (`old config`), and with the matrices and the embedding's
                        scale rounded to bf16 (`bf16`)

Five blocks, of which every third sees the whole sequence: windows of 6 tokens in sequences of 20.
"""
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

HERE = Path(__file__).parent
FOLDER = HERE / "gemma"
RANK, ALPHA = 3, 6.0
torch.manual_seed(11)


def config(**more):
    return Gemma3TextConfig(**dict(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=64, rms_norm_eps=1e-6, query_pre_attn_scalar=20,
        sliding_window=6, sliding_window_pattern=3, initializer_range=0.2, bos_token_id=1, eos_token_id=[2, 5],
        pad_token_id=None, rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50000.0},
                                            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}) | more)


def loss(model, tokens):
    return model(input_ids=tokens, labels=tokens).loss


model = Gemma3ForCausalLM(config()).eval()
with torch.no_grad():
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.copy_(0.3 * torch.randn_like(weight))
shutil.rmtree(FOLDER, ignore_errors=True)
model.save_pretrained(FOLDER)
(FOLDER / "generation_config.json").unlink(missing_ok=True)
shutil.copy(HERE / "base" / "tokenizer.json", FOLDER / "tokenizer.json")
saved = json.loads((FOLDER / "config.json").read_text())
tokens = torch.randint(3, 64, (2, 20))
out = {"tokens": tokens.to(torch.float32)}


def again(changed, weights=None, dtype=torch.float32):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / "config.json").write_text(json.dumps(changed))
        stored = weights or load_file(FOLDER / "model.safetensors")
        save_file(stored, place / "model.safetensors", metadata={"format": "pt"})
        return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).eval()


with torch.no_grad():
    out["loss"] = loss(model, tokens).reshape(1)
    out["logits"] = model(input_ids=tokens[:1]).logits[0].contiguous()
    for window in [1, 64]:
        out[f"window {window}"] = loss(again(saved | {"sliding_window": window}), tokens).reshape(1)
    old = {key: value for key, value in saved.items() if key not in ("rope_parameters", "layer_types")}
    old |= {"rope_theta": 90000.0, "rope_local_base_freq": 800.0, "sliding_window_pattern": 2, "rope_scaling": None}
    out["old config"] = loss(again(old), tokens).reshape(1)
    stored = {name: weight.to(torch.bfloat16).float() if weight.dim() == 2 else weight
              for name, weight in load_file(FOLDER / "model.safetensors").items()}
    rounded = again(saved, stored)
    scale = rounded.model.embed_tokens.embed_scale
    scale.copy_(scale.to(torch.bfloat16).to(torch.float32))
    out["bf16"] = loss(rounded, tokens).reshape(1)

generator = torch.Generator().manual_seed(5)
factors = {}
for name, module in model.named_modules():
    if name.startswith("model.layers.") and isinstance(module, torch.nn.Linear):
        a = (0.2 * torch.randn(RANK, module.in_features, generator=generator)).requires_grad_()
        b = (0.2 * torch.randn(module.out_features, RANK, generator=generator)).requires_grad_()
        factors[name] = (a, b)
        module.register_forward_hook(
            lambda _, given, gave, a=a, b=b: gave + ALPHA / RANK * given[0] @ a.T @ b.T)
for weight in model.parameters():
    weight.requires_grad_(False)
adapted = loss(model, tokens)
adapted.backward()
out["adapted"] = adapted.detach().reshape(1)
for name, (a, b) in factors.items():
    for factor, tensor in (("lora_A", a), ("lora_B", b)):
        out[f"{name}.{factor}"] = tensor.detach().clone()
        out[f"grad {name}.{factor}"] = tensor.grad.clone()
save_file(out, HERE / "gemma.safetensors")
print({name: float(out[name]) for name in ["loss", "adapted", "window 1", "window 64", "old config", "bf16"]}, saved)
