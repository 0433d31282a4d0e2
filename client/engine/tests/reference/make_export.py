"""What transformers and PEFT say of adapters and bases that we write.

usage: python make_export.py                        writes beside itself what `client/src/adapter_files/tests.rs` compares with
       python make_export.py BASE [ADAPTER]         prints the logits of a folder of ours as JSON
needs: torch transformers peft safetensors numpy

exports.safetensors
    tokens              (length)
    logits.<family>     (length, vocab), of families/<family> in f32 with the adapter of `adapter()`

The i-th number of the adapter is ((37 i + 11) mod 101 - 50) / 256, which is exact in f32; its rank is 3, its alpha 5, and
it changes the layers of `LAYERS` in both blocks, block by block, A before B, row by row.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
RANK, ALPHA = 3, 5
LAYERS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
          "mlp.up_proj", "mlp.down_proj"]
TOKENS = [(i * i * 7 + 3) % 61 + 3 for i in range(20)]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([TOKENS])).logits[0].float().contiguous()


def adapter(model):
    """The model with the adapter, its factors set one by one."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=[name.split(".")[1] for name in LAYERS],
                        task_type="CAUSAL_LM")
    model, at = get_peft_model(model, config).eval(), 0
    with torch.no_grad():
        for block in range(2):
            for layer in LAYERS:
                for factor in "AB":
                    weight = model.get_parameter(f"base_model.model.model.layers.{block}.{layer}.lora_{factor}.default.weight")
                    index = np.arange(at, at + weight.numel())
                    numbers = (((index * 37 + 11) % 101 - 50) / 256).astype(np.float32)
                    weight.copy_(torch.from_numpy(numbers).reshape(weight.shape))
                    at += weight.numel()
    return model


def main():
    if sys.argv[1:]:
        model = load(sys.argv[1])
        if sys.argv[2:]:
            model = PeftModel.from_pretrained(model, sys.argv[2]).eval()
        print(json.dumps(logits(model).flatten().tolist()))
        return
    said = {"tokens": torch.tensor(TOKENS).float()}
    for family in ["llama", "qwen2"]:
        plain = logits(load(HERE / "families" / family))
        said[f"logits.{family}"] = logits(adapter(load(HERE / "families" / family)))
        print(family, "moved by up to", (said[f"logits.{family}"] - plain).abs().max().item())
    save_file(said, HERE / "exports.safetensors")


if __name__ == "__main__":
    main()
