"""Clients a second of Flower's simulation beside ours: the same machine, the same sizes, one after the other.

    python3.11 tests/peers/simulation.py --devices 50 --coordinates 100000 --rounds 3

Clients train nothing. Four things are run, --repeat times in turn, and medians are printed with ratios:

1. Flower plain: FedAvg in Flower's simulation, nothing hidden;
2. Flower SecAgg+: the same clients with Flower's secure aggregation;
3. ours: `nightshift-sim population` with `objective = "none"`. Every client is the production machine, every request goes
   through the wire's bytes, and secure aggregation is always whole. There is nothing of ours without masks to be compared;
4. the same, and every client adds its share of the noise of differential privacy, which Flower's do not.

Ratios are of the third.

What does not compare. Flower's rounds are timed from their first message to their mean, when its processes are up; ours is the
whole process, from its start, with enrollment, check-ins and the download of every version. Flower's clients are processes of
Ray, and it looks for replies ten times a second. A client counts for every mean that it is in.

Needs what secagg.py needs; see README.md.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import secagg

SCENARIO = """
[population]
devices = {devices}
speed_spread = 0.0
examples_spread = 0.0
[presence]
arrive_secs = 0.0
[task]
versions = {rounds}
cohort = {devices}
report_goal = {devices}
join_secs = 600
coordinates = {coordinates}
objective = "none"
[privacy]
mode = "{mode}"
noise_multiplier = {noise}
"""


def flower(args, secure):
    """Clients a second, and seconds of a round."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = pathlib.Path(folder, "out.json"), pathlib.Path(folder, "log.txt")
        command = [secagg.python(), secagg.HERE / "flower_clients.py", "--out", out]
        command += ["--devices", str(args.devices), "--coordinates", str(args.coordinates), "--rounds", str(args.rounds)]
        command += ["--secagg"] if secure else []
        with log.open("wb") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or not out.exists():
            sys.exit(f"Flower's rounds did not end well ({done.returncode}):\n{secagg.last_lines(log)}")
        found = json.loads(out.read_text(encoding="utf-8"))
    if found["clients"] != [args.devices] * args.rounds:
        sys.exit(f"Flower's means are of {found['clients']} clients, expected {args.rounds} of {args.devices}")
    secs = sum(found["rounds"])
    return sum(found["clients"]) / secs, secs / args.rounds


def ours(args, binary, mode):
    """Clients a second, and seconds of a round; `mode` says who adds noise."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = pathlib.Path(folder, "scenario.toml")
        scenario.write_text(SCENARIO.format(**vars(args), mode=mode, noise=1.0 if mode == "distributed" else 0.0), encoding="utf-8")
        start = time.perf_counter()
        command = [binary, "population", "--scenario", scenario, "--format", "json"]
        done = subprocess.run(command, cwd=secagg.ROOT, stdout=subprocess.PIPE, check=False)
        secs = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"nightshift-sim ended with {done.returncode}")
    survivors = [version["survivors"] for version in json.loads(done.stdout)["versions"]]
    if len(survivors) != args.rounds:
        sys.exit(f"nightshift-sim made {len(survivors)} versions, expected {args.rounds}")
    return sum(survivors) / secs, secs / args.rounds


def built():
    """An optimized nightshift-sim."""
    command = ["cargo", "build", "--release", "--quiet", "-p", "nightshift-sim", "--message-format", "json"]
    done = subprocess.run(command, cwd=secagg.ROOT, stdout=subprocess.PIPE, check=True)
    paths = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    found = [path for path in paths if path and pathlib.Path(path).stem == "nightshift-sim"]
    if not found:
        sys.exit("cargo built no nightshift-sim")
    return found[0]


def compare(args):
    binary = args.binary or built()
    sides = {
        "Flower plain": lambda: flower(args, False),
        "Flower SecAgg+": lambda: flower(args, True),
        "Nightshift, masks": lambda: ours(args, binary, "off"),
        "with noise": lambda: ours(args, binary, "distributed"),
    }
    runs = {name: [] for name in sides}
    for _ in range(args.repeat):
        for name, run in sides.items():
            secagg.say(f"{name}: {args.rounds} rounds of {args.devices} clients")
            runs[name].append(run())
    own = [clients for clients, _ in runs["Nightshift, masks"]]
    rows = {}
    for name, found in runs.items():
        ratios = [mine / theirs for mine, (theirs, _) in zip(own, found)]
        rows[name] = {
            "clients_a_sec": statistics.median(clients for clients, _ in found),
            "round_secs": statistics.median(secs for _, secs in found),
            "ours_over_it": statistics.median(ratios),
        }
    return {
        "devices": args.devices,
        "coordinates": args.coordinates,
        "rounds": args.rounds,
        "repeat": args.repeat,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "sides": rows,
    }


def text(found):
    line = lambda *cells: "".join(f"{c:<20}" if i == 0 else f"{c:>14}" for i, c in enumerate(cells)).rstrip()
    lines = [
        f"{found['rounds']} rounds of {found['devices']} clients, {found['coordinates']} coordinates, medians of "
        f"{found['repeat']}; {found['cores']} cores, load {found['load_average']:.1f}",
        "",
        line("", "clients/s", "s a round", "ours over it"),
    ]
    for name, side in found["sides"].items():
        numbers = [f"{side['clients_a_sec']:.1f}", f"{side['round_secs']:.3f}", f"{side['ours_over_it']:.1f}"]
        lines.append(line(name, *numbers))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Flower's simulation and ours, in clients a second")
    parser.add_argument("--devices", type=int, default=50, help="clients of a round, all that there are; at least 3")
    parser.add_argument("--coordinates", type=int, default=100_000, help="numbers in each client's answer")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of a run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side")
    parser.add_argument("--binary", help="nightshift-sim, optimized; built where left out")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args()
    if args.devices < 3:
        parser.error(f"--devices is {args.devices}, Flower shares among at least 3")
    for name in ["coordinates", "rounds", "repeat"]:
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected at least 1")
    found = compare(args)
    print(json.dumps(found, indent=2) if args.format == "json" else text(found))


if __name__ == "__main__":
    main()
