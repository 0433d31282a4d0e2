"""Writes what `src/template/tests.rs` and `src/encode/tests.rs` compare with: four chat templates in
the manner of well-known ones, as transformers renders conversations with them, splits them into tokens, and marks what
the assistant says.

usage: python make_chats.py        needs: transformers tokenizers jinja2; writes beside itself

bytes.json, pieces.json     two small tokenizers: bytes in the manner of GPT-2, pieces in the manner of SentencePiece
chats.json                  for each template and conversation
    text, prompt            the rendering, and the rendering that opens the assistant's next turn
    ids, learned            the tokens, and a 1 for each that the assistant says
rows.json                   the same for rows with thoughts and calls, by `thinking.jinja`; a row is as people write it, and
                            transformers is given its arguments of calls as objects, as it documents them
"""
import json
from datetime import datetime
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
WORDS = ["You are helpful, and you answer in few words. What is the capital of Norway? It is Oslo.",
         "system user assistant Today: 26 Jul 2024 Thank you! def f(x):\n    return x + 1\n\nA list: one, two, three."]
CHATS = {
    "pair": [("user", "What is two and two?"), ("assistant", "Four.")],
    "setting": [("system", "Be brief."), ("user", "Hi!\n\n- a\n- b"), ("assistant", "Grüße, 你好 👋"),
                ("user", "Code?"), ("assistant", "def f(x):\n    return x + 1\n")],
    "space": [("user", "  And now?\n"), ("assistant", "\n Later. \n"), ("user", "Thank you"), ("assistant", "a")],
}
DAY = datetime(2024, 7, 26)


class Day(datetime):
    @classmethod
    def now(cls, tz=None):
        return DAY


chat_template_utils.datetime = Day


def specials(names):
    return [AddedToken(name, special=True, normalized=False) for name in names]


def by_bytes():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=specials(names), show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def by_pieces():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    # Trained as special, so that they have ids; only the first five are control tokens.
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] < 5]
    return Tokenizer.from_str(json.dumps(raw))


TOKENIZERS = {"bytes": by_bytes(), "pieces": by_pieces()}
TEMPLATES = {
    "chatml": ("bytes", "<|im_start|>", "<|im_end|>"),
    "llama3": ("bytes", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("pieces", "<s>", "</s>"),
    "zephyr": ("pieces", "<s>", "</s>"),
}
for name, tokenizer in TOKENIZERS.items():
    tokenizer.save(str(HERE / f"{name}.json"), pretty=False)

cases = []
for template, (kind, bos, eos) in TEMPLATES.items():
    source = (HERE / f"{template}.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[kind], bos_token=bos, eos_token=eos)
    tokenizer.chat_template = source
    for chat, turns in CHATS.items():
        messages = [{"role": role, "content": content} for role, content in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert encoded["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        cases.append({"template": template, "tokenizer": kind, "bos": bos, "eos": eos, "chat": chat, "messages": turns,
                      "text": text, "prompt": prompt, "ids": encoded["input_ids"],
                      "learned": encoded["assistant_masks"]})
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
(HERE / "chats.json").write_text(f"[\n{lines}\n]\n")
print(len(cases), "cases")


def call(name, **arguments):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def with_objects(turn):
    calls = [dict(one, function=dict(one["function"], arguments=json.loads(one["function"]["arguments"])))
             for one in turn.get("tool_calls", [])]
    return dict(turn, tool_calls=calls) if calls else turn


TOOLS = [{"type": "function", "function": {"name": "lamp", "parameters": {"box": {"type": "integer"}}}}]
ASKED, ANSWERED = {"role": "user", "content": "What is 2?"}, {"role": "assistant", "content": "Four."}
THINKS = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
REASONS = {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}
CALLS = {"role": "assistant", "content": "I look.", "tool_calls": [call("lamp", box=3), call("lamp", box=4)]}
CALLS_ONLY = {"role": "assistant", "content": "", "tool_calls": [call("lamp", box=3, why="\"ö\"")]}
BACK = [{"role": "tool", "tool_call_id": "c1", "content": "on"}, {"role": "tool", "tool_call_id": "c1", "content": "off"}]
ROWS = {
    "thoughts in contents": {"messages": [ASKED, THINKS, ASKED, THINKS, ASKED, THINKS]},
    "thoughts of their own": {"messages": [ASKED, REASONS, ASKED, REASONS]},
    "a last turn without a thought": {"messages": [ASKED, THINKS, ASKED, ANSWERED]},
    "one turn with a thought": {"messages": [{"role": "system", "content": "Be brief."}, ASKED, REASONS]},
    "no thought": {"messages": [ASKED, ANSWERED, ASKED, ANSWERED]},
    "calls": {"tools": TOOLS, "messages": [ASKED, CALLS, *BACK, ANSWERED]},
    "calls without words": {"tools": TOOLS, "messages": [{"role": "system", "content": "Be brief."}, ASKED, CALLS_ONLY]},
    "a thought before a call": {"tools": TOOLS, "messages": [ASKED, dict(CALLS, reasoning_content="Which?"), *BACK, REASONS]},
    "tools that are not called": {"tools": TOOLS, "messages": [ASKED, ANSWERED]},
}
rows = []
tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS["bytes"], bos_token="<|im_start|>", eos_token="<|im_end|>")
tokenizer.chat_template = (HERE / "thinking.jinja").read_text()
for name, row in ROWS.items():
    messages = [with_objects(turn) for turn in row["messages"]]
    told = {"tools": row.get("tools"), "tokenize": False}
    text = tokenizer.apply_chat_template(messages, **told)
    encoded = tokenizer.apply_chat_template(messages, tools=row.get("tools"), return_dict=True,
                                            return_assistant_tokens_mask=True)
    rows.append({"name": name, "row": row, "text": text, "ids": encoded["input_ids"],
                 "learned": encoded["assistant_masks"]})
lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
(HERE / "rows.json").write_text(f"[\n{lines}\n]\n")
print(len(rows), "rows")
