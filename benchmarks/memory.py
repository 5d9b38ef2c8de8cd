"""Peak memory of training steps of an MLP 784-512-512-10 on static inputs, batch 1024.

Ours in ANN mode at T = 4 and T = 64, and direct training at T = 16 against SpikingJelly's, its
first layer computed once as ours is. Each runs in a process of its own. Its peak is what the
kernel counted as resident at most during the steps (Linux: VmHWM), less what was resident
before them; what one step of a tiny batch needs, such as compiled kernels, is there by then.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

WIDTHS, BATCH, STEPS = (784, 512, 512, 10), 1024, 5
MMAP_THRESHOLD = -3  # malloc.h
CONTENDERS = {
    "spikestrap ann, T = 4": 4,
    "spikestrap ann, T = 64": 64,
    "spikestrap direct, T = 16": 16,
    "spikingjelly direct, T = 16": 16,
}


def resident(field: str) -> float:
    """MiB: VmRSS is now, VmHWM the most so far."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


def peak(name: str, quick: bool) -> float:
    """MiB that training steps of a contender take at most."""
    import torch
    from networks import SpikingJellyNetwork, fit_curves, mlp, training_step

    import spikestrap as ss

    # Tensors are then pages of their own, given back when freed: none is left from before.
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 16)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    time_steps, batch = CONTENDERS[name], 64 if quick else BATCH
    x, labels = 2 * torch.rand(batch, WIDTHS[0]), torch.randint(WIDTHS[-1], (batch,))
    if name.startswith("spikingjelly"):
        network = SpikingJellyNetwork(mlp(WIDTHS), time_steps, first_layer_once=True)
        forward = network
    else:
        network = mlp(WIDTHS).ours(time_steps)
        mode = ss.Mode.ANN if "ann" in name else ss.Mode.SNN
        fit_curves(network, x[:32])
        forward = partial(network, mode=mode)
    training_step(network, forward, x[:8], labels[:8])()
    step = training_step(network, forward, x, labels)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS
    start = resident("VmRSS")
    for _ in range(STEPS):
        step()
    return resident("VmHWM") - start


def measured(name: str, quick: bool) -> float:
    command = [sys.executable, __file__, "--one", name, *["--quick"][: int(quick)]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only sees that it runs")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(peak(options.one, options.quick))
        return
    mebibytes = {name: round(measured(name, options.quick), 2) for name in CONTENDERS}
    few, many, ours, theirs = mebibytes.values()
    result = {
        "ann_64_over_4": many / few,
        "direct_over_spikingjelly": ours / theirs,
        "mebibytes": mebibytes,
        "widths": WIDTHS,
        "batch": BATCH,
        "quick": options.quick,
        "versions": {name: version(name) for name in ("spikestrap", "torch", "spikingjelly")},
    }
    out = sys.stderr if options.json else sys.stdout
    for name, value in mebibytes.items():
        print(f"{name:<28} {value:8.1f} MiB", file=out)
    for name in ("ann_64_over_4", "direct_over_spikingjelly"):
        print(f"{name:<28} {result[name]:8.3f}", file=out)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
