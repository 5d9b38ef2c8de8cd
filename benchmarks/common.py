"""What the benchmarks share: the neuron, the allocator's set-up, timing in turns, output."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numba
import torch
from torch import Tensor

from spikestrap.train import keep_memory

# One neuron for all libraries: LIF, reset to zero, hidden from the gradient. The leak is a
# power of two, so that v - leak * v and (1 - leak) * v round alike.
THRESHOLD = 1.0
LEAK = 1 / 16
# arctan surrogate in SpikingJelly's and snnTorch's terms; ours has tau_grad = 1 / ALPHA.
ALPHA = 2.0
LIF: dict[str, Any] = {
    "threshold": THRESHOLD,
    "voltage_decay": LEAK,
    "surrogate": "arctan",
    "tau_grad": 1 / ALPHA,
}

# Calls of a turn that are timed, and their seconds, at the least; seconds of calls before.
_CALLS, _TIMED, _WARM = 3, 0.02, 0.02


def arguments(description: str | None) -> argparse.Namespace:
    """The options of every benchmark, read from the command line and acted upon."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, help="rounds to time (default: 15, quick: 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only sees that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument(
        "--default-allocator", action="store_true", help="leave glibc's allocator as it is"
    )
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 2 if options.quick else 15
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    options.allocator = "default"
    if not options.default_allocator and keep_memory():
        options.allocator = "keeps memory"
    return options


def in_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round.

    In a round all take their turn, so that a machine that slows down slows all of them.
    """
    for run in contenders.values():  # compiles, and fills the allocator's pools
        run()
        run()
    gc.collect()
    gc.freeze()  # the collection in each turn need not look through what is there to stay
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        print(f"round {number + 1}/{rounds}", file=sys.stderr)
        for name, run in contenders.items():
            seconds[name].append(turn(run))
    return seconds


def turn(run: Callable[[], object], warm: float = _WARM, timed: float = _TIMED) -> float:
    """Seconds of a call: the median of a few, behind others that warm the caches up and outlast
    the threads of who came before, which go on spinning for some milliseconds.

    warm, timed: seconds that both take at the least. With 0 it is one call and then three, the same
    in processes that have to call alike.
    """
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + warm
        while True:
            run()
            if time.perf_counter() >= end:
                break
        calls: list[float] = []
        while len(calls) < _CALLS or sum(calls) < timed:
            start = time.perf_counter()
            run()
            calls.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return statistics.median(calls)


def rotating(tensor: Tensor) -> Iterator[Tensor]:
    """Three equal tensors in turns, without end: who reads one at each call finds it in memory,
    and not in a cache. Two cores that share no cache may keep halves of a tensor of 32 MB.
    """
    return itertools.cycle([tensor, tensor.clone(), tensor.clone()])


def ratio(numerator: list[float], denominator: list[float], factor: float = 1.0) -> list[float]:
    """numerator / (factor * denominator), round by round."""
    return [n / (factor * d) for n, d in zip(numerator, denominator, strict=True)]


def check_spikes(name: str, spikes: Tensor, expected: Tensor, allowed: float) -> None:
    """Exits unless at most this share of the spikes differs."""
    differing = (spikes != expected).double().mean().item()
    if differing > allowed:
        sys.exit(f"{name}: {differing:.2g} of the spikes differ from ours; allowed {allowed:g}")


def report(
    options: argparse.Namespace,
    ratios: dict[str, list[float]],
    seconds: dict[str, list[float]],
    peers: tuple[str, ...],
    **facts: Any,
) -> None:
    """Prints the medians and spreads; with --json the object is standard output's last line."""
    milliseconds = {name: [1000 * s for s in values] for name, values in seconds.items()}
    tables = _table("ms", milliseconds, ".2f") + "\n\n" + _table("ratio", ratios, ".3f")
    print(tables, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        result: dict[str, Any] = {key: _spread(ratios[key])["median"] for key in ratios}
        result["spread"] = {key: [_short(min(v)), _short(max(v))] for key, v in ratios.items()}
        result["milliseconds"] = {name: _spread(values) for name, values in milliseconds.items()}
        result |= facts
        result |= {"rounds": options.rounds, "quick": options.quick}
        result["allocator"] = options.allocator
        result["threads"] = {"torch": torch.get_num_threads(), "numba": numba.get_num_threads()}
        packages = ("spikestrap", "torch", "numba", *peers)
        result["versions"] = {name: version(name) for name in packages}
        print(json.dumps(result))


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: _short(value) for name, value in found.items()}


def _short(value: float) -> float:
    """To four digits: there is no more in a timing."""
    return float(f"{value:.4g}")


def _table(title: str, rows: dict[str, list[float]], form: str) -> str:
    width = max(map(len, rows))
    lines = [f"{title:<{width}} {'median':>9} {'min':>9} {'max':>9}"]
    for name, values in rows.items():
        cells = " ".join(f"{value:>9{form}}" for value in _spread(values).values())
        lines.append(f"{name:<{width}} {cells}")
    return "\n".join(lines)
