"""Weak scaling: a training step of an MLP 784-512-512-10, T = 16, in one process and in two.

One process with one thread trains on a batch of 256; two processes with one thread each, which
gloo connects and `DistributedDataParallel` keeps alike, train on a batch of 512, half of it each.
A step is forward, cross entropy, backward and Adam. The efficiency is the images a second of the
two over twice those of the one: 1 where the second process costs the first one nothing. It needs
two cores with nothing else on them.
"""

from __future__ import annotations

import gc
import os
import socket
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from common import arguments, ratio, report, turn
from networks import fit_curves, mlp, training_step
from torch.nn.parallel import DistributedDataParallel

import spikestrap as ss

PROCESSES = 2
MODES = ("ann", "snn")
ALONE, TOGETHER = "one process", f"{PROCESSES} processes"


def launch() -> None:
    """Runs this file once a process; the first one prints."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    running = [
        subprocess.Popen(
            [sys.executable, *sys.argv], env={**os.environ, **threads, **where, "RANK": str(rank)}
        )
        for rank in range(PROCESSES)
    ]
    while any(process.poll() is None for process in running):
        if any(process.returncode for process in running):  # the others would wait for it
            for process in running:
                process.kill()
        time.sleep(0.1)
    sys.exit(any(process.returncode for process in running))


def steps_of(
    mode: str, widths: tuple[int, ...], batch: int, time_steps: int
) -> tuple[dict[str, Callable[[], None]], ss.Network]:
    """A training step alone and one with the other processes, and the network of the latter."""
    x, labels = 2 * torch.rand(batch, widths[0]), torch.randint(widths[-1], (batch,))
    steps = {}
    for name in (ALONE, TOGETHER):
        torch.manual_seed(0)
        network = mlp(widths).ours(time_steps)
        fit_curves(network, x)  # over all processes
        model = DistributedDataParallel(network)
        forward = partial(network if name == ALONE else model, mode=ss.Mode(mode))
        steps[name] = training_step(network, forward, x, labels)
    return steps, network


def measure(options: Namespace) -> None:
    """What each process runs: in turns alone, while the others wait, and together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    widths, batch, time_steps = (784, 512, 512, 10), 256, 16
    if options.quick:
        widths, batch, time_steps = (64, 32, 32, 10), 8, 4

    seconds: dict[str, list[float]] = {}
    for mode in MODES:
        seconds |= timed(mode, widths, batch, time_steps, options.rounds)
    # Models go before the group: if a DistributedDataParallel is the last to hold it, torch
    # waits, with the interpreter's lock, for a thread that may need that lock.
    gc.collect()
    dist.barrier()
    if rank == 0:
        summarize(options, seconds, widths, batch, time_steps)
    dist.destroy_process_group()


def timed(
    mode: str, widths: tuple[int, ...], batch: int, time_steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a step, in each round, of those that this process takes part in."""
    rank = dist.get_rank()
    steps, network = steps_of(mode, widths, batch, time_steps)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):
        if rank == 0:
            print(f"{mode}: round {number + 1}/{rounds}", file=sys.stderr)
        for name, step in steps.items():
            dist.barrier()
            if rank == 0 or name == TOGETHER:
                seconds.setdefault(f"{mode}, {name}", []).append(turn(step, warm=0, timed=0))
    check_alike(network)
    return seconds


def check_alike(network: ss.Network) -> None:
    """Exits unless the network has the same weights and curves in all processes."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        first = tensor.detach().clone()
        dist.broadcast(first, 0)
        if not torch.equal(first, tensor):
            sys.exit(f"{name}: not the same in process {dist.get_rank()} as in the first")


def summarize(
    options: Namespace,
    seconds: dict[str, list[float]],
    widths: tuple[int, ...],
    batch: int,
    time_steps: int,
) -> None:
    """Prints milliseconds a step, images a second and the efficiencies."""
    images = {}
    for name, values in seconds.items():
        size = batch * (1 if name.endswith(ALONE) else PROCESSES)
        images[name] = float(f"{size / statistics.median(values):.4g}")
        out = sys.stderr if options.json else sys.stdout
        print(f"{name:<20} {images[name]:>10.0f} images/s", file=out)
    # As long for PROCESSES times the images is an efficiency of 1.
    ratios = {
        f"{mode}_efficiency": ratio(seconds[f"{mode}, {ALONE}"], seconds[f"{mode}, {TOGETHER}"])
        for mode in MODES
    }
    facts = {"widths": widths, "batch": batch, "time_steps": time_steps, "processes": PROCESSES}
    report(options, ratios, seconds, (), **facts, images_per_second=images)


def main() -> None:
    options = arguments(__doc__)
    if "RANK" in os.environ:
        measure(options)
    else:
        launch()


if __name__ == "__main__":
    main()
