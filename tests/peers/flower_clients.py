"""Clients a second of Flower's simulation; run by simulation.py in the environment that secagg.py makes.

A client's "fit" trains nothing and returns as many zeros as it is asked for. Plain is Flower's default workflow with
FedAvg: the server sends the model, of as many numbers, to every client, and averages what comes back. With --secagg the
clients have Flower's SecAgg+ mod and the server its workflow. Each round is timed from its first message to its mean;
before the first every client answers one message, so that Ray's processes are up. Writes one JSON object to --out.
"""

import argparse
import json
import time

import flower_round
import numpy as np
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.server.workflow.default_workflows import default_fit_workflow
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation


def client_app(coordinates, secagg):
    class Device(NumPyClient):
        def get_parameters(self, config):
            return []

        def fit(self, parameters, config):
            return [np.zeros(coordinates, dtype=np.float32)], 1, {}

    return ClientApp(lambda context: Device().to_client(), mods=[secaggplus_mod] if secagg else [])


def main():
    parser = argparse.ArgumentParser()
    for name in ["devices", "coordinates", "rounds"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--secagg", action="store_true")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rounds, answered = [], []

    class Counting(FedAvg):
        """FedAvg that notes how many clients are in a mean."""

        def aggregate_fit(self, server_round, results, failures):
            answered.append(len(results))
            return super().aggregate_fit(server_round, results, failures)

    server_app = ServerApp()

    @server_app.main()
    def play(grid, context):
        strategy = Counting(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=args.devices,
            min_available_clients=args.devices,
            initial_parameters=ndarrays_to_parameters([np.zeros(args.coordinates, dtype=np.float32)]),
        )
        context = LegacyContext(context, ServerConfig(num_rounds=args.rounds), strategy)
        one = SecAggPlusWorkflow(args.devices, args.devices // 2 + 1, max_weight=1.0) if args.secagg else default_fit_workflow

        def fit(grid, context):
            if not rounds:
                flower_round.wake(grid)
            start = time.perf_counter()
            one(grid, context)
            rounds.append(time.perf_counter() - start)

        DefaultWorkflow(fit_workflow=fit)(grid, context)

    run_simulation(
        server_app,
        client_app(args.coordinates, args.secagg),
        args.devices,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
    )
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump({"rounds": rounds, "clients": answered}, file)


if __name__ == "__main__":
    main()
