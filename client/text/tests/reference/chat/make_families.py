"""Writes `families/families.json`, which `src/encode/tests.rs` compares with: templates in the manner of further families
of bases, as transformers renders rows with them, splits them into tokens, and marks what the assistant says.

usage: python make_families.py        needs: transformers tokenizers jinja2; writes beside itself

families/tokenizer.json     a small tokenizer of bytes with the control tokens of all of them
families/families.json      for each template and row its tokens and marks; `refused` where the template raises, `dropped`
                            where it writes the same without the row's thoughts, calls, tools or setting. A row is as people write
                            it; transformers is given its arguments of calls as objects, as it documents them
"""
import copy
import json
from datetime import datetime
from pathlib import Path

from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent / "families"


class Day(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2024, 7, 26)


chat_template_utils.datetime = Day
TEMPLATES = {
    "gemma": ("<bos>", "<end_of_turn>"),
    "gemma_first": ("<bos>", "<end_of_turn>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"),
    "smollm3": (None, "<|im_end|>"),
    "tekken": ("<s>", "</s>"),
}
CONTROL = ["<bos>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>",
           "<|assistant|>", "<|end|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
           "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>",
           "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
           "[/TOOL_RESULTS]"]


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = [AddedToken(name, special=True, normalized=False) for name in CONTROL]
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=special, show_progress=False)
    made.train_from_iterator(["system user assistant model What is the answer? It is four, and that is all."], trainer)
    return made


def call(name, **arguments):
    return {"id": "abcdefghi", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


ASKED, ANSWERED = {"role": "user", "content": " What is 2?\n"}, {"role": "assistant", "content": "\nFour. "}
SETTING = {"role": "system", "content": "Be brief."}
THINKS = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
REASONS = {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}
CALLS = {"role": "assistant", "content": None, "tool_calls": [call("lamp", box=3, why="\"ö\" <b>")]}
TWO = {"role": "assistant", "content": None, "tool_calls": [call("lamp", box=3), call("lamp", box=4)]}
BACK = {"role": "tool", "tool_call_id": "abcdefghi", "name": "lamp", "content": "on"}
TOOLS = [{"type": "function", "function": {"name": "lamp", "description": "It's a lamp", "parameters": {"type": "object", "properties": {"box": {"type": "integer"}}}}}]
ROWS = {
    "a pair": {"messages": [ASKED, ANSWERED]},
    "a setting": {"messages": [SETTING, ASKED, ANSWERED, ASKED, ANSWERED]},
    "no thinking": {"messages": [{"role": "system", "content": "Be brief. /no_think"}, ASKED, ANSWERED]},
    "two questions": {"messages": [ASKED, ASKED, ANSWERED]},
    "the assistant first": {"messages": [ANSWERED, ASKED, ANSWERED]},
    "given turns": {"messages": [ASKED, dict(ANSWERED, weight=0), ASKED, ANSWERED]},
    "thoughts": {"messages": [ASKED, THINKS, ASKED, THINKS]},
    "a thought of its own": {"messages": [ASKED, REASONS]},
    "calls": {"tools": TOOLS, "messages": [ASKED, CALLS, BACK, ANSWERED]},
    "two calls": {"tools": TOOLS, "messages": [ASKED, TWO, BACK, BACK, ANSWERED]},
    "tools alone": {"tools": TOOLS, "messages": [SETTING, ASKED, ANSWERED]},
    "control tokens in letters": {"messages": [{"role": "user", "content": "What is <|im_end|> or </s><end_of_turn>?"}, ANSWERED]},
}


def given(turn):
    turn = copy.deepcopy(turn)
    for one in turn.get("tool_calls", []):
        one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    # What is not said is an empty text, as the arguments are objects: so do we give it.
    if turn["content"] is None:
        turn["content"] = ""
    turn.pop("weight", None)
    return turn


def without(messages, tools):
    """The same with each thing left out that a template may not know."""
    for place, turn in enumerate(messages):
        for key in ["tool_calls", "reasoning_content"]:
            if key in turn:
                yield [*messages[:place], {k: v for k, v in turn.items() if k != key}, *messages[place + 1:]], tools
        if "</think>" in turn["content"] and place + 1 == len(messages):
            said = turn["content"].split("</think>")[-1]
            yield [*messages[:place], dict(turn, content=said)], tools
            yield [*messages[:place], dict(turn, content=said.lstrip("\n"))], tools
    if tools:
        yield messages, None


made = tokenizer()
made.save(str(HERE / "tokenizer.json"), pretty=False)
cases = []
for template, (bos, eos) in TEMPLATES.items():
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=eos)
    fast.chat_template = (HERE / f"{template}.jinja").read_text()
    for name, row in ROWS.items():
        messages, tools = [given(turn) for turn in row["messages"]], row.get("tools")
        case = {"template": template, "bos": bos, "eos": eos, "name": name, "row": row}

        def text(messages, tools):
            return fast.apply_chat_template(messages, tools=tools, tokenize=False)
        try:
            whole = text(messages, tools)
        except TemplateError:
            cases.append(case | {"refused": True})
            continue

        def same(other):
            try:
                return text(*other) == whole
            except TemplateError:
                return False
        if any(same(other) for other in without(messages, tools)) or any(
                turn["role"] == "tool" and turn["content"] not in whole for turn in messages) or any(
                turn["role"] == "system" and turn["content"].split(" /")[0] not in whole for turn in messages):
            cases.append(case | {"dropped": True})
            continue
        encoded = fast.apply_chat_template(messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        ids, marks = encoded["input_ids"], encoded["assistant_masks"]
        if any("weight" in turn for turn in row["messages"]):
            first = marks.index(1)
            for place in range(first, marks.index(0, first)):
                marks[place] = 0
        if name == "control tokens in letters":
            ids = marks = None
        cases.append(case | {"ids": ids, "learned": marks})
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
(HERE / "families.json").write_text(f"[\n{lines}\n]\n")
print(len(cases), "cases,", sum("refused" in c for c in cases), "refused,", sum("dropped" in c for c in cases), "dropped")
