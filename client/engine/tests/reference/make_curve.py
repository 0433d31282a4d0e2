"""Writes `curve.safetensors`, which `src/tests/pytorch.rs` follows: 200 steps of AdamW by PyTorch and PEFT on the base
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

torch.use_deterministic_algorithms(True)
tokens = torch.randint(0, 64, (BATCHES, BATCH, LENGTH), generator=torch.Generator().manual_seed(11))
given = load_file(HERE / "reference.safetensors")


def run(dtype):
    """The first step's gradients by name, and all losses; products in `dtype`."""
    model = LlamaForCausalLM.from_pretrained(HERE / "base", dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.copy_(weight.bfloat16().float())
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    )
    trained, first, losses = {}, {}, []
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                name = name.removeprefix("base_model.model.").removesuffix(".default.weight")
                module, factor = name.rsplit(".lora_", 1)
                weight.copy_(given[f"{factor.lower()}.{module}"])
                trained[f"{factor.lower()}.{module}"] = weight
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=DECAY)
    for step in range(STEPS):
        optimizer.zero_grad()
        batch = tokens[step % BATCHES]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        if step == 0:
            first = {f"d{name}": weight.grad.clone().contiguous() for name, weight in trained.items()}
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return first, torch.tensor(losses)


gradients, losses = run(torch.float32)
save_file({"tokens": tokens.float(), "losses": losses, **gradients}, HERE / "curve.safetensors")
print("from", losses[0].item(), "to", losses[-1].item())

# How far PyTorch's own bf16 is from that.
in_bf16, losses_in_bf16 = run(torch.bfloat16)
whole = lambda gradients: torch.cat([gradients[name].flatten() for name in sorted(gradients)])
off = (losses_in_bf16 / losses - 1).abs()
print("bf16 by autocast: the first gradient is off by", ((whole(in_bf16) - whole(gradients)).norm() / whole(gradients).norm()).item())
print("bf16 by autocast: losses at most", off[:50].max().item(), "off in the first 50 steps,", off.mean().item(), "on average")
