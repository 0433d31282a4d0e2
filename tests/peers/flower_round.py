"""Rounds of Flower's SecAgg+ in its simulation, timed; run by secagg.py in the environment it makes.

A device's "fit" returns numbers and trains nothing. The devices that vanish raise in it: that is after they
shared their keys, while the server waits for masked vectors. Writes one JSON object to --out.

What is timed is `SecAggPlusWorkflow`, from its first stage to its last. Before each round every device answers
one message, so that Ray's processes are up and have imported everything. The model that the server sends is one
number, so that no download is timed.
"""

import argparse
import json
import os
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from flwr.app import Message
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import GetParametersIns, ndarrays_to_parameters
from flwr.common.constant import MessageTypeLegacy
from flwr.common.secure_aggregation.crypto import shamir
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common import recorddict_compat
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes

MODULUS = 2**32


def values(device, coordinates):
    """What a device contributes."""
    return ((31 * device + np.arange(coordinates)) % 101 / 101).astype(np.float32)


class Timed(SecAggPlusWorkflow):
    """The workflow, with the seconds of its stages."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rounds = []

    def __call__(self, grid, context):
        self.rounds.append({})
        super().__call__(grid, context)

    def _stage(self, name, stage, arguments):
        start = time.perf_counter()
        going_on = stage(*arguments)
        self.rounds[-1][name] = time.perf_counter() - start
        if not going_on:
            raise RuntimeError(f"Flower's round ended in the stage {name!r}")
        return going_on

    def setup_stage(self, *arguments):
        return self._stage("advertise", super().setup_stage, arguments)

    def share_keys_stage(self, *arguments):
        return self._stage("share", super().share_keys_stage, arguments)

    def collect_masked_vectors_stage(self, *arguments):
        return self._stage("mask", super().collect_masked_vectors_stage, arguments)

    def unmask_stage(self, *arguments):
        return self._stage("unmask", super().unmask_stage, arguments)


def client_app(coordinates, missing):
    """Devices of which the first `missing` vanish in the third stage."""

    class Device(NumPyClient):
        def __init__(self, number):
            self.number = number

        def get_parameters(self, config):
            return []

        def fit(self, parameters, config):
            if self.number < missing:
                raise RuntimeError("this device vanishes, as it was asked to")
            return [values(self.number, coordinates)], 1, {}

    def client_fn(context):
        return Device(int(context.node_config["partition-id"])).to_client()

    return ClientApp(client_fn, mods=[secaggplus_mod])


def wake(grid):
    """Lets every device answer once."""
    content = recorddict_compat.getparametersins_to_recorddict(GetParametersIns({}))
    kind = MessageTypeLegacy.GET_PARAMETERS
    grid.send_and_receive(
        [Message(content=content, dst_node_id=node, message_type=kind) for node in grid.get_node_ids()]
    )


def simulate(args, found):
    """Plays the rounds; fills `found`."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid, context):
        strategy = FedAvg(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=args.devices,
            min_available_clients=args.devices,
            initial_parameters=ndarrays_to_parameters([np.zeros(1, dtype=np.float32)]),
        )
        context = LegacyContext(context, ServerConfig(num_rounds=args.repeat), strategy)
        workflow = Timed(args.shares, args.threshold, max_weight=1.0)
        plain = sum(values(device, args.coordinates) for device in range(args.missing, args.devices))
        plain /= args.devices - args.missing

        def fit(grid, context):
            wake(grid)
            workflow(grid, context)
            (record,) = context.state.array_records.values()
            (mean,) = record.to_numpy_ndarrays()
            found["error"] = max(found["error"], float(np.abs(mean - plain).max()))

        DefaultWorkflow(fit_workflow=fit)(grid, context)
        found["rounds"] = workflow.rounds

    resources = {"num_cpus": 1, "num_gpus": 0}
    run_simulation(
        server_app,
        client_app(args.coordinates, args.missing),
        args.devices,
        backend_config={"client_resources": resources},
    )


def fastest(work):
    """The processor time of the fastest of some runs, all threads together: 2 to 20 runs, about two seconds."""
    best, begun = float("inf"), time.perf_counter()
    for run in range(20):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
        if run > 0 and time.perf_counter() - begun > 2:
            break
    return best


def primitives(args):
    """Flower's functions, called directly: processor time of one call, and calls in a round."""
    everybody, missing = args.devices, args.missing
    here, others = everybody - missing, args.shares - 1
    own, peer = generate_key_pairs()[0], generate_key_pairs()[1]
    seed, key = os.urandom(32), private_key_to_bytes(own)
    shape = [(1,), (args.coordinates,)]
    collected = min(here, args.shares)
    parts = {}

    def part(name, calls, work):
        secs = fastest(work) if calls else 0.0
        parts[name] = {"calls": calls, "secs_of_a_call": secs, "secs": calls * secs}

    part("key pair", 2 * everybody, generate_key_pairs)
    agreements = everybody * others + here * others + missing * others
    part("key agreement", agreements, lambda: generate_shared_key(own, peer))
    masks = here * (1 + others) + here + missing * others
    part("mask", masks, lambda: pseudo_rand_gen(seed, MODULUS, shape))
    for name, secret, combined in [("seed", seed, here), ("key", key, missing)]:
        split = lambda secret=secret: shamir.create_shares(secret, args.threshold, args.shares)
        part(f"share a {name}", everybody, split)
        shares = split()[:collected]
        part(f"rebuild a {name}", combined, lambda shares=shares: shamir.combine_shares(shares))
    return parts


def main():
    parser = argparse.ArgumentParser()
    for name in ["devices", "coordinates", "missing", "repeat", "shares", "threshold"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    found = {"rounds": [], "error": 0.0, "primitives": primitives(args)}
    simulate(args, found)
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
