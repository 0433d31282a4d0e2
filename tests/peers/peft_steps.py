"""Steps of PyTorch + PEFT on random weights; run by `training.py` in its environment.

usage: peft_steps.py CONFIG f32|bf16 all|none RANK TARGETS BATCH SEQ_LEN STEPS THREADS
"""

import json
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

path, dtype, checkpointing, rank, targets, batch, length, steps, threads = sys.argv[1:]
rank, batch, length, steps = int(rank), int(batch), int(length), int(steps)
torch.set_num_threads(int(threads))
torch.manual_seed(0)
kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
settings = json.load(open(path))
config = AutoConfig.for_model(**settings)
model = AutoModelForCausalLM.from_config(config, dtype=kind)
lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets.split(","), task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
if checkpointing == "all":
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4)
tokens = torch.randint(0, config.vocab_size, (batch, length))
seconds, losses = [], []
for step in range(steps + 1):
    before = time.perf_counter()
    optimizer.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    losses.append(loss.item())
    if step > 0:
        seconds.append(time.perf_counter() - before)
median = sorted(seconds)[len(seconds) // 2]
print(json.dumps({
    "tokens_per_second": batch * length / median,
    "seconds_per_step": seconds,
    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "losses": losses,
}))
