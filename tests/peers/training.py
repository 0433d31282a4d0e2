"""LoRA steps of PyTorch + PEFT beside ours: the same shape, batch and steps, one after the other.

    python3.11 tests/peers/training.py --shape smollm2-135m --targets q_proj,v_proj
    python3.11 tests/peers/training.py --shape stories260k --targets all

What compares. Random weights of one shape, LoRA of one rank on the same layers, both factors trained by AdamW, the
same batch of tokens, all cores. Seconds are the median of the steps after the first; memory is the largest resident
size of the process, interpreter and libraries included, on both sides. PEFT runs in f32 and in bf16, each without
and with gradient checkpointing; "ours" runs with the base in bf16 and in f32, without and with --recompute. Ratios
of speed are to PEFT's fastest, ratios of memory to PEFT's leanest.

What does not compare. Which of PEFT's types is faster is a matter of the CPU: bf16 where it has bf16 products, f32
where it has not. Ours multiplies 16-bit integers with a scale for each row where the CPU has them, which rounds
finer than bf16.

A machine that others use changes its speed: with --rounds all modes run several times, and a ratio is the median of
those within one round; its least and largest are printed too. With +int8 ours multiplies bytes on the way back.

As on a CPU with AVX2 and no AVX-512, both held to it: NIGHTSHIFT_VECTORS=avx2 ONEDNN_MAX_CPU_ISA=AVX2
ATEN_CPU_CAPABILITY=avx2 before the command, with --peft f32, because bf16 is emulated there and takes minutes. Ours
multiplies attention's heads and an adapter's factors through a library that knows no such limit, a twentieth of the time.

With --busy another process keeps one core busy meanwhile, and the ratio is to the same run alone.

Needs Python 3.11, a Rust toolchain, and PyPI once; see README.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = ROOT / "target" / "peers" / "training"
REQUIREMENTS = HERE / "training-requirements.txt"
HOW = {"gc": ["--recompute"], "int8": ["--dtype", "int8"]}
SEVEN = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "hidden_act": "silu", "max_position_embeddings": 2048, "tie_word_embeddings": True}
SHAPES = {
    "stories260k": LLAMA | {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
                            "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
                            "max_position_embeddings": 512},
    "smollm2-135m": LLAMA | {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                             "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
    "smollm2-360m": LLAMA | {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32,
                             "num_attention_heads": 15, "num_key_value_heads": 5, "vocab_size": 49152},
    "qwen2.5-0.5b": LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
                             "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                             "num_key_value_heads": 2, "vocab_size": 151936, "rms_norm_eps": 1e-6,
                             "rope_theta": 1000000.0},
}


def environment(python):
    """The interpreter of the environment that has torch, transformers and peft."""
    if python:
        return python
    interpreter = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    if not done.exists():
        print(f"installing {REQUIREMENTS.read_text().split()} into {ENVIRONMENT}", file=sys.stderr)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        done.touch()
    return interpreter


def binary(given):
    """An optimized nightshift-agent."""
    if given:
        return given
    command = ["cargo", "build", "--release", "--locked", "-p", "nightshift-agent"]
    subprocess.run(command, check=True, cwd=ROOT)
    return ROOT / "target" / "release" / "nightshift-agent"


def ours(agent, config, args, weights, extra=()):
    command = [agent, "bench", "--config", config, "--rank", args.rank, "--targets", args.targets, "--batch", args.batch,
               "--seq-len", args.seq_len, "--steps", args.steps, "--weights", weights, "--format", "json",
               "--threads", args.threads, *extra]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peft(python, config, args, dtype, checkpointing):
    command = [python, HERE / "peft_steps.py", config, dtype, "all" if checkpointing else "none", args.rank,
               SEVEN if args.targets == "all" else args.targets, args.batch, args.seq_len, args.steps, args.threads]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def busy():
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--targets", default="q_proj,v_proj", help="layers, or all")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peft", default="f32,bf16,f32+gc,bf16+gc", help="which of PEFT's modes to run")
    parser.add_argument("--ours", default="bf16,f32,bf16+gc", help="which of our modes to run: what weights are held as, also q4 and q8, with +gc and +int8")
    parser.add_argument("--rounds", type=int, default=1, help="run all modes so often; figures are medians")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps a core busy")
    parser.add_argument("--python", help="an interpreter that has torch, transformers and peft")
    parser.add_argument("--binary", help="an optimized nightshift-agent")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args()
    agent, python = binary(args.binary), environment(args.python)
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config.json"
        config.write_text(json.dumps(SHAPES[args.shape]))

        def measure(name, run):
            row = {"name": name} | run()
            if args.busy:
                other = busy()
                try:
                    row["beside_busy"] = run()["tokens_per_second"] / row["tokens_per_second"]
                finally:
                    other.kill()
                    other.wait()
            return row

        def one_round():
            rows = []
            for mode in filter(None, args.peft.split(",")):
                dtype, _, checkpointing = mode.partition("+")
                rows.append(measure(f"PEFT {mode}", lambda: peft(python, config, args, dtype, bool(checkpointing))))
            for mode in filter(None, args.ours.split(",")):
                weights, *how = mode.split("+")
                extra = [part for one in how for part in HOW[one]]
                rows.append(measure(f"ours {mode}", lambda: ours(agent, config, args, weights, extra)))
            peers = [row for row in rows if row["name"].startswith("PEFT")]
            fastest = max((row["tokens_per_second"] for row in peers), default=float("nan"))
            leanest = min((row["peak_rss_bytes"] for row in peers), default=float("nan"))
            for row in rows:
                row["speed_ratio"] = row["tokens_per_second"] / fastest
                row["memory_ratio"] = row["peak_rss_bytes"] / leanest
            return rows

        rounds = [one_round() for _ in range(args.rounds)]
    rows = []
    for same in zip(*rounds):
        figures = {key: statistics.median(row[key] for row in same)
                   for key in ("tokens_per_second", "peak_rss_bytes", "speed_ratio", "memory_ratio", "beside_busy")
                   if key in same[0]}
        ratios = [row["speed_ratio"] for row in same]
        rows.append({"name": same[0]["name"], "lowest_ratio": min(ratios), "highest_ratio": max(ratios)} | figures)
    if args.format == "json":
        print(json.dumps({"shape": args.shape, "targets": args.targets, "rows": rows}, indent=2))
        return
    print(f"{args.shape}, {args.targets}, rank {args.rank}, batch {args.batch} x {args.seq_len}, "
          f"{args.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'':16} {'tokens/s':>9} {'of fastest':>11} {'':10} {'peak MiB':>9} {'of leanest':>11}" +
          (f" {'beside busy':>12}" if args.busy else ""))
    for row in rows:
        line = (f"{row['name']:16} {row['tokens_per_second']:9.0f} {row['speed_ratio']:11.2f} "
                f"{row['lowest_ratio']:5.2f}-{row['highest_ratio']:.2f} "
                f"{row['peak_rss_bytes'] / 2**20:9.0f} {row['memory_ratio']:11.2f}")
        print(line + (f" {row['beside_busy']:12.2f}" if args.busy else ""))


if __name__ == "__main__":
    main()
