"""Writes the fixtures that `src/base/tests.rs` compares the reading of bases with: a tiny random model of each
family as a Hugging Face folder, small GGUF files of every type of number and tokenizer, and what transformers, gguf,
tokenizers and sentencepiece say of them.

usage: python make_families.py [folder of stories260k]
needs: torch transformers safetensors gguf tokenizers sentencepiece numpy; writes beside itself

families/<name>/                the model as a Hugging Face folder
families/<name>.safetensors     tokens (batch, length), logits (batch, length, vocab) in f32 from the stored weights,
                                frequencies (head_dim / 2)
gguf/<name>.gguf                a decoder of one block
gguf/<name>.safetensors         tokens, logits from the dequantized weights, and of each tensor its first row and the
                                sum of its numbers as a Hugging Face folder would have them
gguf/words.json                 texts and their tokens, by file
stories260k.safetensors         tokens of STORY, logits; only where its folder is given
"""
import json
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = Path(__file__).parent
VOCAB = 384
FAMILIES, FILES = HERE / "families", HERE / "gguf"
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 32}


def randomise(model):
    """Norms around one, biases and all else such that logits are of order one."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.3 * torch.randn_like(weight))
    return model


def shape(**more):
    return dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.2,
                bos_token_id=1, eos_token_id=2, pad_token_id=None) | more


def says(model, vocab, out, extra=None):
    tokens = torch.randint(3, vocab, (2, 20))
    with torch.no_grad():
        logits = model.eval().float()(input_ids=tokens).logits
    tensors = {"tokens": tokens.float(), "logits": logits.contiguous(),
               "frequencies": model.model.rotary_emb.inv_freq.float().contiguous()} | (extra or {})
    save_file(tensors, out)
    print(out.name, "logits up to", round(logits.abs().max().item(), 2))


def family(name, model, dtype=torch.float32, shard="1GB"):
    folder = FAMILIES / name
    model = randomise(model).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 64)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }) + "\n")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    says(loaded, 64, FAMILIES / f"{name}.safetensors")


def families():
    family("llama", LlamaForCausalLM(LlamaConfig(**shape(attention_bias=True))))
    family("smollm2", LlamaForCausalLM(LlamaConfig(**shape(tie_word_embeddings=True))), torch.bfloat16)
    family("llama3", LlamaForCausalLM(LlamaConfig(**shape(
        rope_parameters=LLAMA3_SCALING | {"rope_theta": 500000.0}, head_dim=16, tie_word_embeddings=True,
        eos_token_id=[2, 5]))), torch.float16, "20KB")
    family("linear", LlamaForCausalLM(LlamaConfig(**shape(
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}))), torch.bfloat16)
    family("mistral", MistralForCausalLM(MistralConfig(**shape(sliding_window=None, head_dim=12))), torch.bfloat16)
    family("qwen2", Qwen2ForCausalLM(Qwen2Config(**shape(tie_word_embeddings=True))), torch.float16)
    family("qwen3", Qwen3ForCausalLM(Qwen3Config(**shape(head_dim=16, tie_word_embeddings=True))), torch.bfloat16,
           "30KB")


# A block of numbers of a K-quant: its bytes, and where the half-precision scale and minimum are in it.
SUPER = {Kind.Q2_K: (84, 80, 82), Kind.Q3_K: (110, 108, None), Kind.Q4_K: (144, 0, 2), Kind.Q5_K: (176, 0, 2),
         Kind.Q6_K: (210, 208, None)}
# What the scale is, so that random bits are numbers of about 0.1; the minimum is as many of it as centres them.
SCALE = {Kind.Q2_K: (0.008, 1.5), Kind.Q3_K: (0.003, None), Kind.Q4_K: (0.0006, 7.5), Kind.Q5_K: (0.0003, 15.5),
         Kind.Q6_K: (0.0001, None)}


def blocks(rng, shape, kind):
    """Random blocks of a K-quant: (rows, bytes)."""
    size, scale, least = SUPER[kind]
    made = rng.integers(0, 256, (shape[0] * shape[1] // 256, size), dtype=np.uint8)
    made[:, scale:scale + 2] = np.float16(SCALE[kind][0]).reshape(1).view(np.uint8)
    if least is not None:
        made[:, least:least + 2] = np.float16(SCALE[kind][0] * SCALE[kind][1]).reshape(1).view(np.uint8)
    return made.reshape(shape[0], -1)


def turn(rows, heads):
    """Rows in the order of Hugging Face's files to the interleaved order of GGUF's "llama"."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def turn_back(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    module, parameter = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, layer, module = module.split(".", 3)
        return f"blk.{layer}.{NAMES[module]}.{parameter}"
    return f"{NAMES[module]}.{parameter}"


def gguf_file(name, arch, model, kinds, words, divisors=None):
    """`kinds`: from a part of a tensor's GGUF name to its type; `words`: adds the tokenizer to the writer."""
    config, rng = model.config, np.random.default_rng(5)
    randomise(model)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    path = FILES / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if width * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if arch == "llama":
        writer.add_rope_dimension_count(width)
        writer.add_vocab_size(config.vocab_size)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    words(writer)
    state, rows = {}, {}
    for full, weight in model.state_dict().items():
        if full == "lm_head.weight" and config.tie_word_embeddings:
            continue
        short, weight = gguf_name(full), weight.float().numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        heads = next((n for letter, n in heads.items() if arch == "llama" and f".{letter}_proj." in full), None)
        if weight.ndim == 1:
            writer.add_tensor(short, turn(weight, heads) if heads else weight)
            state[full] = torch.from_numpy(weight.copy())
            continue
        kind = next(kind for part, kind in kinds.items() if part in short)
        if kind in SUPER:
            raw = blocks(rng, weight.shape, kind)
        elif kind == Kind.F32:
            raw = turn(weight, heads) if heads else weight
        else:
            raw = gguf.quants.quantize(np.ascontiguousarray(turn(weight, heads) if heads else weight), kind)
        if kind == Kind.F16:
            writer.add_tensor(short, raw)
        else:
            writer.add_tensor(short, raw, raw_dtype=kind)
        stored = gguf.quants.dequantize(raw, kind) if kind != Kind.F32 else raw
        stored = turn_back(stored, heads) if heads else stored
        state[full] = torch.from_numpy(np.ascontiguousarray(stored, dtype=np.float32))
        rows[f"row.{full}"] = state[full][0].clone()
        rows[f"sum.{full}"] = state[full].double().sum().float().reshape(1)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    says(model, config.vocab_size, FILES / f"{name}.safetensors", rows)


SAMPLE = """The owl flies at 12:45 o'clock; it's the 1234567th night, isn't it?  They'll say: "WE'RE here", and go on.
Ünïcödé — naïve café, straße, 東京 and Ελλάδα, 100,000.50 € (½ of ²), e = mc^2 + <tag/>|~x.

	def owl(x):\n\t\treturn x ** 2   # trailing   spaces   \n\r\nthe end\n\n\n  and more
"""
TEXTS = ["the owl flies at night", SAMPLE, " leading and trailing ", "12345 6789", "e\u0301 combined", "🦉 owls 🦉🦉",
         "a\tb\nc", "the the<|endoftext|>owl", "'LL 'll don't DON'T", ""]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def byte_level(pre, pre_tokenizer, ignore_merges=False, normalizer=None, special=("<|endoftext|>", "<|im_end|>")):
    """A byte-level tokenizer of VOCAB tokens, cut as `pre` says, and what adds it to a GGUF file."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, min_frequency=1, show_progress=False, special_tokens=list(special),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([SAMPLE] * 3 + ["the owl " * 9, "12345678 2222 12 345 <=> ''"], trainer)
    said = json.loads(tokenizer.to_str())
    vocab = sorted(said["model"]["vocab"], key=said["model"]["vocab"].get)
    vocab += [f"[PAD{i}]" for i in range(len(vocab), VOCAB)]

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        if pre:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(vocab)
        control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
        writer.add_token_types([control if token in special else normal for token in vocab])
        writer.add_token_merges([" ".join(pair) for pair in said["model"]["merges"]])
        writer.add_eos_token_id(1)
        if pre == "qwen2":
            writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
        else:
            writer.add_bos_token_id(0)
    return add, [(text, tokenizer.encode(text, add_special_tokens=False).ids) for text in TEXTS]


def pieces():
    """A SentencePiece tokenizer of VOCAB tokens with bytes to fall back on."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text").write_text((SAMPLE.replace("\r", "") + "the owl flies at night\n" * 5) * 3)
        sentencepiece.SentencePieceTrainer.train(
            input=f"{folder}/text", model_prefix=f"{folder}/model", vocab_size=VOCAB, model_type="bpe",
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            character_coverage=0.98, hard_vocab_limit=False, minloglevel=1)
        model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/model.model")
    types = gguf.TokenType
    count = model.vocab_size()

    def kind(i):
        for test, kind in [(model.is_unknown, types.UNKNOWN), (model.is_control, types.CONTROL),
                           (model.is_byte, types.BYTE), (model.is_unused, types.UNUSED)]:
            if test(i):
                return kind
        return types.NORMAL

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([model.id_to_piece(i) for i in range(count)] + [f"[PAD{i}]" for i in range(count, VOCAB)])
        writer.add_token_scores([model.get_score(i) for i in range(count)] + [-1e9] * (VOCAB - count))
        writer.add_token_types([kind(i) for i in range(count)] + [types.UNUSED] * (VOCAB - count))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_chat_template("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}")
    texts = [text for text in TEXTS if "<|" not in text]
    return add, [(text, model.encode(text)) for text in texts]


def small(**more):
    return shape(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=1, initializer_range=0.1) | more


def files():
    level = pre_tokenizers.ByteLevel
    isolated = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    cut = lambda *parts: pre_tokenizers.Sequence(list(parts))
    plain = level(add_prefix_space=False, use_regex=False)
    words = {
        "f16": pieces(),
        "q8_0": byte_level("llama-bpe", cut(isolated(LLAMA3), plain), ignore_merges=True),
        "q4_0": byte_level("smollm", cut(pre_tokenizers.Digits(individual_digits=True),
                                         level(add_prefix_space=False, use_regex=True))),
        "mixed": byte_level("gpt-2", cut(isolated(GPT2), plain)),
        "k": byte_level(None, cut(isolated(r"[\p{P}\$\+<=>\^~\|]+"), isolated(GPT2), isolated(r"\p{N}+"),
                                  isolated("[0-9][0-9][0-9]"), plain)),
        "qwen2": byte_level("qwen2", cut(isolated(QWEN2), plain), normalizer=normalizers.NFC()),
        "qwen3": byte_level("qwen2", cut(isolated(QWEN2), plain), normalizer=normalizers.NFC()),
    }
    llama = lambda **more: LlamaForCausalLM(LlamaConfig(**small(**more), attn_implementation="eager"))
    gguf_file("f16", "llama", llama(attention_bias=True), {"": Kind.F16}, words["f16"][0])
    scaled = llama(tie_word_embeddings=True, rope_parameters=LLAMA3_SCALING | {"rope_theta": 500000.0})
    plain_frequencies = 500000.0 ** (-np.arange(0, 16, 2) / 16)
    divisors = plain_frequencies / scaled.model.rotary_emb.inv_freq.numpy()
    gguf_file("q8_0", "llama", scaled, {"": Kind.Q8_0}, words["q8_0"][0], divisors)
    gguf_file("q4_0", "llama", llama(tie_word_embeddings=True, rope_parameters={
        "rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}), {"": Kind.Q4_0}, words["q4_0"][0])
    gguf_file("mixed", "llama", llama(head_dim=32), {
        "attn_q": Kind.Q4_1, "attn_k": Kind.Q5_0, "attn_v": Kind.Q5_1, "attn_output": Kind.BF16,
        "ffn_gate": Kind.F32, "ffn_up": Kind.F16, "ffn_down": Kind.Q4_0, "token_embd": Kind.Q8_0,
        "output": Kind.Q5_0}, words["mixed"][0])
    gguf_file("k", "llama", llama(hidden_size=256, intermediate_size=256, num_attention_heads=4,
                                  num_key_value_heads=1, tie_word_embeddings=True), {
        "attn_q": Kind.Q4_K, "attn_k": Kind.Q5_K, "attn_v": Kind.Q6_K, "attn_output": Kind.Q3_K,
        "ffn_gate": Kind.Q2_K, "ffn_up": Kind.Q4_K, "ffn_down": Kind.Q6_K, "token_embd": Kind.Q4_K},
        words["k"][0])
    gguf_file("qwen2", "qwen2", Qwen2ForCausalLM(Qwen2Config(**small(tie_word_embeddings=True))), {"": Kind.Q8_0},
              words["qwen2"][0])
    gguf_file("qwen3", "qwen3", Qwen3ForCausalLM(Qwen3Config(**small(head_dim=32, tie_word_embeddings=True))),
              {"": Kind.Q4_0}, words["qwen3"][0])
    said = {name: [{"text": text, "tokens": tokens} for text, tokens in said] for name, (_, said) in words.items()}
    (FILES / "words.json").write_text(json.dumps(said, ensure_ascii=False, indent=None) + "\n")
    # transformers reads GGUF too; what it can read must say the same of the same tokens.
    from safetensors.torch import load_file
    for name in ["k", "qwen2"]:
        theirs = AutoModelForCausalLM.from_pretrained(FILES, gguf_file=f"{name}.gguf", dtype=torch.float32)
        ours = load_file(FILES / f"{name}.safetensors")
        with torch.no_grad():
            off = (theirs.eval()(input_ids=ours["tokens"].long()).logits - ours["logits"]).abs().max().item()
        print(name, "as transformers reads it: off by", off)


STORY = "Once upon a time, there was a little owl."


def stories(folder):
    """A trained model, which is not committed."""
    tokens = [1] + Tokenizer.from_file(str(folder / "tokenizer.json")).encode(STORY, add_special_tokens=False).ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits
    save_file({"tokens": torch.tensor([tokens]).float(), "logits": logits.contiguous()}, HERE / "stories260k.safetensors")
    print("stories260k logits up to", round(logits.abs().max().item(), 2))


if __name__ == "__main__":
    torch.manual_seed(11)
    torch.use_deterministic_algorithms(True)
    for folder in (FAMILIES, FILES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    families()
    files()
    if len(sys.argv) > 1:
        stories(Path(sys.argv[1]))
