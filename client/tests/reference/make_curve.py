"""Writes `curve.safetensors`, which `src/train/tests.rs` follows: 200 steps of AdamW by PyTorch and PEFT on the base
of `make_reference.py`, its weights rounded to bf16, computed in f32.

usage: python make_curve.py        needs: torch transformers peft safetensors, and base/ and reference.safetensors

tokens     (4, batch, length): the batches, one after the other, again and again
losses     (200): of each batch before its step
da.*, db.*  the gradients of the first step
"""
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

HERE = Path(__file__).parent
STEPS, BATCHES, BATCH, LENGTH, RATE, DECAY = 200, 4, 3, 11, 2e-3, 0.01

torch.manual_seed(11)
torch.use_deterministic_algorithms(True)
model = LlamaForCausalLM.from_pretrained(HERE / "base", dtype=torch.float32)
with torch.no_grad():
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            weight.copy_(weight.bfloat16().float())
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(
    model, LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
)
given = load_file(HERE / "reference.safetensors")
trained = {}
with torch.no_grad():
    for name, weight in model.named_parameters():
        if "lora_" in name:
            module, factor = name.removeprefix("base_model.model.").removesuffix(".default.weight").rsplit(".lora_", 1)
            weight.copy_(given[f"{factor.lower()}.{module}"])
            trained[f"{factor.lower()}.{module}"] = weight
tokens = torch.randint(0, 64, (BATCHES, BATCH, LENGTH))
optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=DECAY)
losses, tensors = [], {"tokens": tokens.float()}
for step in range(STEPS):
    optimizer.zero_grad()
    batch = tokens[step % BATCHES]
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    if step == 0:
        for name, weight in trained.items():
            tensors[f"d{name}"] = weight.grad.clone().contiguous()
    torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    optimizer.step()
    losses.append(loss.item())
tensors["losses"] = torch.tensor(losses)
save_file(tensors, HERE / "curve.safetensors")
print("from", losses[0], "to", losses[-1])
