"""Writes the fixture that `src/tests/pytorch.rs` compares the engine with: a tiny random Llama, a LoRA on all
seven projections, a batch, and what PyTorch and PEFT say of its loss and gradients.

usage: python make_reference.py        needs: torch transformers peft safetensors; writes beside itself

base/            the model as a Hugging Face folder (two key and value heads for four query heads)
reference.safetensors
    a.<module>, b.<module>      the factors, B not zero
    da.<module>, db.<module>    the gradients of the loss
    tokens                      (batch, length)
    loss                        ()
"""
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

RANK, ALPHA, BATCH, LENGTH = 3, 5, 3, 11
HERE = Path(__file__).parent

torch.manual_seed(7)
torch.use_deterministic_algorithms(True)
config = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=True,
    initializer_range=0.3, bos_token_id=1, eos_token_id=2,
)
model = LlamaForCausalLM(config).float()
with torch.no_grad():
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.copy_(1 + 0.3 * torch.randn_like(weight))
base = HERE / "base"
model.save_pretrained(base, safe_serialization=True)
(base / "generation_config.json").unlink(missing_ok=True)
words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 64)}
(base / "tokenizer.json").write_text(json.dumps({
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
}) + "\n")

targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(
    model, LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
)
with torch.no_grad():
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.copy_(0.3 * torch.randn_like(weight))
tokens = torch.randint(0, 64, (BATCH, LENGTH))
loss = model(input_ids=tokens, labels=tokens).loss
loss.backward()

tensors = {"tokens": tokens.float(), "loss": loss.detach()}
for name, weight in model.named_parameters():
    if "lora_" in name:
        module, factor = name.removeprefix("base_model.model.").removesuffix(".default.weight").rsplit(".lora_", 1)
        tensors[f"{factor.lower()}.{module}"] = weight.detach().contiguous()
        tensors[f"d{factor.lower()}.{module}"] = weight.grad.contiguous()
save_file(tensors, HERE / "reference.safetensors", metadata={"rank": str(RANK), "alpha": str(ALPHA)})
print("loss", loss.item(), "tensors", len(tensors))
