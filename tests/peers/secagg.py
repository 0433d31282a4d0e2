"""A round of Flower's SecAgg+ beside a round of ours: the same machine, the same sizes, one after the other.

    python3.11 tests/peers/secagg.py --devices 50 --coordinates 100000 --missing 0.3
    python3.11 tests/peers/secagg.py --devices 10 --coordinates 1000000 --over-tls

What compares. Both sides run a whole round in memory, over the complete graph, with the same devices, the same
coordinates and the same share of devices that vanish after they shared their keys. Flower's threshold is ours,
a majority. Flower runs as it offers to run on one machine: its server workflow and its client mod in its
simulation, a process for each core. Ours runs a thread for each core. Only Flower's workflow is timed, from its
first stage to its last; its processes are up and have answered once before. Both sums are checked.

What does not compare.
- Flower is Python and NumPy. Its simulation hands messages through Ray from process to process and looks for
  replies ten times a second; nobody would deploy it so. With few devices that is most of its time. Ours encodes
  every message as protobuf, decodes it on the other side, and nobody waits.
- The second table leaves all that out. It takes the processor time of Flower's own functions for keys, shares and
  masks, called directly, and multiplies by how often a round calls them; adding the masks up, encryption and
  messages are not in it. Beside it stands the processor time of our whole round: every device and the coordinator,
  the wire and the hashes included. It is also the table that a busy machine disturbs least.
- Ours does more: signed keys, commitments, a signed agreement on the survivors before anything is unmasked, and
  masks from AES-256 on seeds of 256 bits. Flower folds a seed to 32 bits for a Mersenne twister.
- Flower quantizes to 22 bits and sends 8 bytes a coordinate, modulo 2^32; ours sends 20 bits and is given
  integers. What comes before the masks (clipping, noise) is in neither; Flower's quantizing is in it.
- Neither side crosses a network, or makes anything durable. With --over-tls ours is played once more as it is deployed, with all
  of its devices there: a coordinator with its store on the disk, and the devices in another process, by gRPC over mutual TLS on
  loopback. Flower's is not: its time is that of its simulation there too, in the same run.

Needs Python 3.11, a Rust toolchain, and PyPI once; see README.md.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = ROOT / "target" / "peers" / "secagg"
REQUIREMENTS = HERE / "requirements.txt"
STEPS = ["advertise", "share", "mask", "agree", "unmask"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def python():
    """The Python of an environment that has what REQUIREMENTS names; makes it where there is none."""
    interpreter = ENVIRONMENT / "bin" / "python"
    installed = ENVIRONMENT / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        say(f"installing {' '.join(wanted.split())} into {ENVIRONMENT}")
        venv.create(ENVIRONMENT, with_pip=True)
        command = [interpreter, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]
        subprocess.run(command, check=True, stdout=sys.stderr)
        installed.write_text(wanted, encoding="utf-8")
    return interpreter


def last_lines(path, count=15):
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def ours(args):
    """The report of our round with the shortest wall time."""
    command = [args.binary] if args.binary else ["cargo", "run", "--release", "--quiet", "-p", "nightshift-sim", "--"]
    command += ["bench", "secagg", "--format", "json", "--devices", str(args.devices)]
    command += ["--coordinates", str(args.coordinates), "--missing", str(args.missing)]
    reports = []
    for _ in range(args.repeat):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            sys.exit(f"nightshift-sim ended with {done.returncode}")
        reports.append(json.loads(done.stdout))
    return min(reports, key=lambda report: report["wall_secs"])


def over_tls(args):
    """How long our rounds take between programs, by the coordinator's own measure."""
    command = ["cargo", "test", "--release", "--quiet", "-p", "nightshift-load", "--test", "load"]
    command += ["rounds_over_tls", "--", "--ignored", "--nocapture"]
    sizes = {"NIGHTSHIFT_DEVICES": args.devices, "NIGHTSHIFT_COORDINATES": args.coordinates}
    environment = os.environ | {name: str(size) for name, size in sizes.items()}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(found) != 1:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return json.loads(found[0])


def flower(args, missing):
    """What flower_round.py found, with its fastest round as `round`."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = pathlib.Path(folder, "out.json"), pathlib.Path(folder, "log.txt")
        command = [python(), HERE / "flower_round.py", "--out", out, "--repeat", str(args.repeat)]
        command += ["--devices", str(args.devices), "--coordinates", str(args.coordinates)]
        command += ["--missing", str(missing), "--shares", str(args.devices)]
        command += ["--threshold", str(args.devices // 2 + 1)]
        with log.open("wb") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or not out.exists():
            sys.exit(f"Flower's round did not end well ({done.returncode}):\n{last_lines(log)}")
        found = json.loads(out.read_text(encoding="utf-8"))
    if len(found["rounds"]) != args.repeat:
        sys.exit(f"Flower played {len(found['rounds'])} rounds, expected {args.repeat}")
    if found["error"] > 1e-3:
        sys.exit(f"Flower's mean is off by {found['error']}")
    found["round"] = min(found["rounds"], key=lambda stages: sum(stages.values()))
    return found


def ratio(theirs, own):
    return theirs / own if theirs and own else None


def compare(args):
    """Everything that is printed."""
    own = ours(args)
    peer = flower(args, own["devices"] - own["survivors"])
    walls = {step["step"]: step["wall_secs"] for step in own["steps"]}
    rows = [(step, peer["round"].get(step), walls[step]) for step in STEPS]
    rows.append(("whole", sum(peer["round"].values()), own["wall_secs"]))
    functions = sum(part["secs"] for part in peer["primitives"].values())
    work = own["processor_secs"] or own["device_total_secs"] + own["coordinator_secs"]
    return {
        "devices": own["devices"],
        "survivors": own["survivors"],
        "coordinates": own["coordinates"],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "steps": [{"step": s, "flower_secs": f, "nightshift_secs": n, "ratio": ratio(f, n)} for s, f, n in rows],
        "functions": {
            "flower_secs": functions,
            "nightshift_secs": work,
            "ratio": ratio(functions, work),
            "flower_calls": peer["primitives"],
        },
        "flower_whole_secs": [sum(stages.values()) for stages in peer["rounds"]],
        "nightshift": own,
        "over_tls": over_tls(args) if args.over_tls else None,
    }


def text(found):
    number = lambda value, form: "–" if value is None else format(value, form)
    line = lambda *cells: "".join(f"{c:<20}" if i == 0 else f"{c:>14}" for i, c in enumerate(cells)).rstrip()
    lines = [
        f"{found['devices']} devices, {found['survivors']} survive, {found['coordinates']} coordinates; "
        f"{found['cores']} cores, load {found['load_average']:.1f}",
        "",
        line("a whole round", "Flower s", "Nightshift s", "ratio"),
    ]
    for row in found["steps"]:
        cells = [number(row["flower_secs"], ".3f"), number(row["nightshift_secs"], ".3f"), number(row["ratio"], ".1f")]
        lines.append(line(row["step"], *cells))
    functions = found["functions"]
    lines += ["", line("processor time", "calls", "ms a call", "s")]
    for name, part in functions["flower_calls"].items():
        cells = [str(part["calls"]), f"{1000 * part['secs_of_a_call']:.3f}", f"{part['secs']:.3f}"]
        lines.append(line(f"Flower: {name}", *cells))
    lines.append(line("Flower's functions", "", "", f"{functions['flower_secs']:.3f}"))
    lines.append(line("Nightshift, whole", "", "", f"{functions['nightshift_secs']:.3f}"))
    lines.append(line("ratio", "", "", number(functions["ratio"], ".1f")))
    if found["over_tls"]:
        tls, whole = found["over_tls"], found["steps"][-1]["flower_secs"]
        lines += ["", line("over mutual TLS", "Flower s", "Nightshift s", "ratio")]
        for name, secs in [("a round", tls["mean_round_secs"]), ("version to version", tls["median_secs_between_versions"])]:
            lines.append(line(name, number(whole, ".3f"), number(secs, ".3f"), number(ratio(whole, secs), ".1f")))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Flower's SecAgg+ and ours, timed in one run")
    parser.add_argument("--devices", type=int, default=50, help="devices in the cohort, at least 3")
    parser.add_argument("--coordinates", type=int, default=100_000, help="numbers in each device's input")
    parser.add_argument("--missing", type=float, default=0.0, help="share that vanishes after sharing keys")
    parser.add_argument("--repeat", type=int, default=1, help="rounds of each side; the fastest counts")
    parser.add_argument("--over-tls", action="store_true", help="our rounds between programs too, over mutual TLS")
    parser.add_argument("--binary", help="nightshift-sim, optimized; cargo run --release where left out")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args()
    if args.devices < 3:
        parser.error(f"--devices is {args.devices}, Flower shares among at least 3")
    if args.repeat < 1:
        parser.error(f"--repeat is {args.repeat}, expected at least 1")
    if args.over_tls and args.missing:
        parser.error(f"--missing is {args.missing}, with --over-tls nobody is missing: leave one of them out")
    found = compare(args)
    print(json.dumps(found, indent=2) if args.format == "json" else text(found))


if __name__ == "__main__":
    main()
