"""What transformers and PEFT say of folders that people have: bases whose files say more than their config, and adapters
whose ranks and patterns are unusual.

usage: python make_folders.py       writes folders.json beside itself
needs: torch transformers peft safetensors

folders.json
    bases       for each name of `BASES` the mean loss, in nats a token, over `TOKENS` of `base` changed so
    adapters    the same for each adapter of `ADAPTERS` on `base`

The tests make the same folders: `client/engine/src/base/tests/people.rs` the bases, `client/src/adapter_files/tests.rs` the
adapters. The i-th number of a head is ((37 i + 11) mod 101 - 50) / 256; so is the i-th of an adapter, block by block, in
the order of its layers' names, A before B, row by row.
"""
import json
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
TOKENS = [(i * i * 7 + 3) % 61 + 3 for i in range(20)]
WEIGHTS = load_file(HERE / "base" / "model.safetensors")
CONFIG = json.loads((HERE / "base" / "config.json").read_text())


def numbers(start, *shape):
    count = torch.Size(shape).numel()
    return torch.tensor([((37 * i + 11) % 101 - 50) / 256 for i in range(start, start + count)]).reshape(shape)


def own_head(weights):
    return dict(weights, **{"lm_head.weight": numbers(0, *weights["model.embed_tokens.weight"].shape)})


def same_head(weights):
    return dict(weights, **{"lm_head.weight": weights["model.embed_tokens.weight"].clone()})


def inner(weights):
    return {name.removeprefix("model."): tensor for name, tensor in weights.items()}


def config(**changes):
    merged = {**{key: value for key, value in CONFIG.items() if key != "rope_parameters"}, **changes}
    return {key: value for key, value in merged.items() if value != "left out"}


DEFAULT = {"rope_type": "default", "rope_theta": 500000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10000.0}
BASES = {
    "as it is": (CONFIG, WEIGHTS),
    "tied with a head of its own": (CONFIG, own_head(WEIGHTS)),
    "tied with the embedding as its head": (CONFIG, same_head(WEIGHTS)),
    "theta in rope_scaling": (config(rope_scaling=DEFAULT), WEIGHTS),
    "theta in rope_scaling and outside": (config(rope_scaling=DEFAULT, rope_theta=10000.0), WEIGHTS),
    "theta in both maps": (config(rope_scaling=DEFAULT, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 9000.0}), WEIGHTS),
    "llama3 with positions within": (config(rope_scaling=LLAMA3 | {"original_max_position_embeddings": 16}), WEIGHTS),
    "llama3 with positions outside": (config(rope_scaling=LLAMA3 | {"original_max_position_embeddings": 16}, original_max_position_embeddings=64), WEIGHTS),
    "llama3 without positions": (config(rope_scaling=LLAMA3, max_position_embeddings=24), WEIGHTS),
    "a window that a llama does not have": (config(sliding_window=4, use_sliding_window=True), WEIGHTS),
    "a base of Mistral with the length of its window": (config(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=20), WEIGHTS),
    "without architectures": (config(architectures="left out"), WEIGHTS),
    "architectures null": (config(architectures=None), WEIGHTS),
    "names without model.": (config(architectures=["LlamaModel"]), inner(WEIGHTS)),
    "names without model. and a head": (CONFIG, inner(own_head(WEIGHTS))),
}

# Rank of each layer, config. q_proj is 16 x 16, k_proj and v_proj 8 x 16.
ALL = ["k_proj", "q_proj", "v_proj"]
ADAPTERS = {
    "a rank above k and v": (12, ALL, dict(r=12, lora_alpha=6, target_modules=ALL)),
    "a rank above every side": (20, ALL, dict(r=20, lora_alpha=6, target_modules=ALL)),
    "a pattern that matches nothing": (3, ALL, dict(r=3, lora_alpha=5, target_modules=ALL, rank_pattern={"nothing": 7}, alpha_pattern={"nothing": 7, "layers.9.*": 8})),
    "a pattern that matches all alike": (4, ALL, dict(r=3, lora_alpha=5, target_modules=ALL, rank_pattern={".*_proj": 4}, alpha_pattern={"(q|k|v)_proj": 7})),
    "patterns of single layers alike": (4, ALL, dict(r=3, lora_alpha=5, target_modules=ALL, rank_pattern={"q_proj": 4, "k_proj": 4, "v_proj": 4}, alpha_pattern={"layers.0.self_attn..*": 7, "layers.1.self_attn..*": 7})),
    "an expression as its target": (3, ["q_proj"], dict(r=3, lora_alpha=5, target_modules=r".*layers\.\d+\.self_attn\.q_proj")),
    "rslora with a pattern": (4, ALL, dict(r=3, lora_alpha=5, target_modules=ALL, use_rslora=True, rank_pattern={"self_attn..*": 4})),
    "all-linear": (3, ALL + ["o_proj", "gate_proj", "up_proj", "down_proj"], dict(r=3, lora_alpha=5, target_modules="all-linear")),
}


def loss(model):
    ids = torch.tensor([TOKENS])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss)


def base(folder, settings, weights):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def adapter(folder, rank, layers, settings):
    folder.mkdir()
    names = sorted(name.removesuffix(".weight") for name in WEIGHTS if name.split(".")[-2] in layers)
    at, tensors = 0, {}
    for name in names:
        outputs, inputs = WEIGHTS[f"{name}.weight"].shape
        for factor, shape in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
            tensors[f"base_model.model.{name}.{factor}.weight"] = numbers(at, *shape)
            at += shape[0] * shape[1]
    written = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    save_file(tensors, folder / "adapter_model.safetensors")
    model = PeftModel.from_pretrained(base(folder / "base", CONFIG, WEIGHTS), folder).eval()
    loaded = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert len(loaded) == len(names), (loaded, names)
    return model


with tempfile.TemporaryDirectory() as place:
    place = Path(place)
    bases = {name: loss(base(place / f"base {at}", *changed)) for at, (name, changed) in enumerate(BASES.items())}
    adapters = {name: [settings, rank, layers, loss(adapter(place / f"adapter {at}", rank, layers, settings))]
                for at, (name, (rank, layers, settings)) in enumerate(ADAPTERS.items())}
adapters = {name: {"config": settings, "rank": rank, "layers": layers, "loss": found}
            for name, (settings, rank, layers, found) in adapters.items()}
(HERE / "folders.json").write_text(json.dumps({"bases": bases, "adapters": adapters}, indent=1) + "\n")
print(bases, {name: value["loss"] for name, value in adapters.items()})
