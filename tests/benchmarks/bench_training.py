"""Patches per second of a training step: sparse against dense back-propagation, float32 against bfloat16.

One process, the same patches, the rounds interleaved so that a busy machine is as busy for each. A step is all that
the network's cores do: the input's arithmetic, forward, backward, Adam. Drawing patches is measured apart (one core;
in training it runs beside the steps). Ends with one JSON line.

    python -m tests.benchmarks.bench_training [--data DIR --mpp F] [--batch N] [--rounds N] [--device auto|cpu|cuda]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from service.model_card import Architecture
from service.stain import StainMatrix
from service.training.fields import read_fields
from service.training.gradient import Arithmetic, backpropagate, choose_arithmetic
from service.training.patches import LoadedField, PatchSource, load_fields, reference_stain
from service.training.pretrained import initialise_network
from service.training.recipe import TrainingSettings
from tests.benchmarks.printed import machine, table


def noise() -> list[LoadedField]:
    """Fields without meaning, where there are no real ones: the arithmetic takes as long."""
    rng = np.random.default_rng(0)
    stain = StainMatrix(np.array([[0.42, 0.14], [0.81, 0.92], [0.40, 0.36]]), np.array([2.1, 1.5]))
    pixels = rng.integers(60, 240, (1500, 1500, 3), np.uint8)
    return [LoadedField("noise", "A", pixels, np.array([[300.0, 300.0]]), stain)]


def main() -> None:
    """Measure, print a table, then one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--mpp", type=float, default=0.25)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="auto")
    given = options.parse_args()

    fields = load_fields(read_fields(given.data, given.mpp)[:8], 0.25) if given.data else noise()
    source = PatchSource(fields, reference_stain(fields), TrainingSettings())
    native = choose_arithmetic(given.device)
    started = time.perf_counter()
    batches = [source.batch(0, step, given.batch) for step in range(given.rounds + 1)]
    drawing = (given.rounds + 1) * given.batch / (time.perf_counter() - started)

    network = initialise_network(Architecture(), None, 0).to(native.device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    speeds_of: dict[tuple[str, str], list[float]] = {  # patches per second, a round each
        (way, kind): [] for way in ("dense", "sparse") for kind in ("float32", "bfloat16")
    }
    for number, batch in enumerate(batches):
        for (way, kind), speeds in speeds_of.items():
            arithmetic = Arithmetic(native.device, kind == "bfloat16", native.chunk)
            started = time.perf_counter()
            optimizer.zero_grad()
            backpropagate(network, batch, arithmetic, sparse=way == "sparse")  # ends with a copy to the CPU
            optimizer.step()
            if number:  # the first round warms up
                speeds.append(given.batch / (time.perf_counter() - started))

    base = max(speeds_of["dense", "float32"])
    print(f"{machine()}, {torch.get_num_threads()} threads, {native.device.type}")
    rows = [
        {"back-propagation": way, "precision": kind, "patches/s": f"{max(speeds):.2f}"}
        | {"median": f"{np.median(speeds):.2f}", "times": f"{max(speeds) / base:.2f}"}
        for (way, kind), speeds in speeds_of.items()
    ]
    table("Training steps", rows)
    print(f"drawing patches: {drawing:.0f}/s")
    found = {f"{way}_{kind}": round(max(speeds), 3) for (way, kind), speeds in speeds_of.items()}
    facts = {"threads": torch.get_num_threads(), "device": native.device.type, "native_bfloat16": native.bfloat16}
    print(json.dumps({"bench": "training", "patches_per_s": found, "drawing_per_s": round(drawing, 1), **facts}))


if __name__ == "__main__":
    main()
