"""Writes values.json: what other people's accountants say.

    pip install -r requirements.txt
    python make_values.py

`dp_accounting` and `opacus` are independent of this project and of each other's
code for the quantities below; the Rust tests read the file and need no Python.
"""

import json
import math
import pathlib
import warnings
from importlib import metadata

import dp_accounting
from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from opacus.accountants.analysis import rdp as opacus_rdp

warnings.filterwarnings("ignore")

# The orders of Opacus's accountant.
ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
INTERVAL = 1e-4

# (q, z, T, delta): the cases of the two libraries' own tests, then a spread.
CASES = [
    (0.04, 1.5, 2250, 1e-5),
    (150 / 60000, 1.3, 6000, 1e-5),
    (100 / 100000, 1.0, 30000, 1e-7),
    (0.01, 0.7, 120, 1e-5),
    (0.01, 2.5, 50, 1e-6),
    (0.01, 1.0, 1, 1e-6),
    (0.05, 4.0, 1000, 1e-6),
    (0.1, 2.0, 100, 1e-5),
    (0.2, 5.0, 500, 1e-6),
    (0.5, 3.0, 30, 1e-5),
    (0.9, 8.0, 200, 1e-6),
    (1.0, 1.0, 1, 1e-5),
    (1.0, 4.0, 30, 1e-6),
    (1.0, 10.0, 500, 1e-8),
]


def event(q, z):
    noise = dp_accounting.GaussianDpEvent(z)
    return noise if q == 1 else dp_accounting.PoissonSampledDpEvent(q, noise)


def gaussian_epsilons():
    for z in (0.3, 0.5, 1.0, 2.0, 4.0, 10.0):
        for delta in (1e-3, 1e-5, 1e-6, 1e-10):
            epsilon = gaussian_mechanism.get_epsilon_gaussian(z, delta)
            yield {"z": z, "delta": delta, "epsilon": epsilon}


def divergences():
    for q in (1e-3, 0.01, 0.1, 0.5, 1.0):
        for z in (0.7, 1.0, 2.5, 8.0):
            for order in (1.25, 1.5, 2.0, 2.5, 3.7, 5.0, 9.9, 17.3, 32.0, 50.0, 63.0, 100.0, 256.0):
                accountant = RdpAccountant([order])
                accountant.compose(event(q, z))
                google = float(accountant._rdp[0])
                meta = float(opacus_rdp.compute_rdp(q=q, noise_multiplier=z, steps=1, orders=order))
                row = {"q": q, "z": z, "order": order, "dp_accounting": google, "opacus": meta}
                yield {k: v if math.isfinite(v) else None for k, v in row.items()}


def rdp_epsilons():
    for q, z, steps, delta in CASES:
        accountant = RdpAccountant(ORDERS)
        accountant.compose(event(q, z), steps)
        google = float(accountant.get_epsilon(delta))
        curve = opacus_rdp.compute_rdp(q=q, noise_multiplier=z, steps=steps, orders=ORDERS)
        meta = float(opacus_rdp.get_privacy_spent(orders=ORDERS, rdp=curve, delta=delta)[0])
        yield {"q": q, "z": z, "steps": steps, "delta": delta, "dp_accounting": google, "opacus": meta}


def pld_epsilons():
    for q, z, steps, delta in CASES:
        row = {"q": q, "z": z, "steps": steps, "delta": delta}
        # Rounding down is only tight on a much finer grid when steps are many.
        fine = 1e-6 if steps > 5000 else 1e-5
        for name, pessimistic, interval in (("pessimistic", True, INTERVAL), ("optimistic", False, fine)):
            one = privacy_loss_distribution.from_gaussian_mechanism(
                standard_deviation=z,
                pessimistic_estimate=pessimistic,
                value_discretization_interval=interval,
                sampling_prob=q,
                use_connect_dots=pessimistic,
            )
            row[name] = float(one.self_compose(steps).get_epsilon_for_delta(delta))
        print(row, flush=True)
        yield row


def noise_multipliers():
    for q, steps, delta, epsilon in (
        (0.01, 1000, 1e-5, 1.0),
        (0.04, 2250, 1e-5, 8.0),
        (0.1, 100, 1e-6, 2.0),
        (1.0, 10, 1e-6, 4.0),
    ):
        z = dp_accounting.calibrate_dp_mechanism(
            lambda: RdpAccountant(ORDERS),
            lambda z: dp_accounting.SelfComposedDpEvent(event(q, z), steps),
            epsilon,
            delta,
            tol=1e-9,
        )
        yield {"q": q, "steps": steps, "delta": delta, "epsilon": epsilon, "z": float(z)}


values = {
    "versions": {name: metadata.version(name) for name in ("dp_accounting", "opacus", "scipy")},
    "orders": ORDERS,
    "interval": INTERVAL,
    "gaussian_epsilon": list(gaussian_epsilons()),
    "divergence": list(divergences()),
    "rdp_epsilon": list(rdp_epsilons()),
    "noise_multiplier": list(noise_multipliers()),
    "pld_epsilon": list(pld_epsilons()),
}
path = pathlib.Path(__file__).with_name("values.json")
path.write_text(json.dumps(values, indent=1) + "\n")
