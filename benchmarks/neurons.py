"""How well a transfer curve foretells the rate of each neuron: the tables of docs/neurons.md.

A curve is sampled and fitted on some batches; on fresh inputs, the mean absolute distance
between the curve at the mean input and the expected rate of the neuron itself is the gap. The
expected rate is the mean over 32 draws of the neuron's own noise, the input the same; of a
neuron without noise, its rate. Inputs are, in thresholds, a static value for each neuron and
sample, normal with mean 0.25 and deviation 1, plus normal noise of deviation --fluctuation at
each step. A table of its own has the resonators on inputs that swing with their period.

python benchmarks/neurons.py            prints the tables
python benchmarks/neurons.py --write    puts them into docs/neurons.md
"""

from __future__ import annotations

import argparse
import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spikestrap import SpikestrapWarning, neuron
from spikestrap.ann_sampler import AnnSampler
from spikestrap.files import write_file
from spikestrap.neuron import Neuron

PAGE = Path(__file__).parent.parent / "docs" / "neurons.md"
RESETS = ("zero", "subtract", "none")
TIME_STEPS = (2, 4, 16)
MEAN, DEVIATION = 0.25, 1.0
PERIOD = 8
DRAWS = 32

# Each at parameters that fire at T = 2 already, where it can: v_init is half a threshold.
HALF = {"threshold": 1.0, "v_init": 0.5}
NEURONS: dict[str, Callable[[str], Neuron]] = {
    "IF": lambda reset: neuron.IF(**HALF, reset=reset),
    "LIF": lambda reset: neuron.LIF(**HALF, voltage_decay=0.1, reset=reset),
    "CUBA": lambda reset: neuron.CUBA(**HALF, current_decay=0.5, voltage_decay=0.1, reset=reset),
    "PLIF": lambda reset: neuron.PLIF(**HALF, w=0.0, reset=reset),
    "RefractoryLIF": lambda reset: neuron.RefractoryLIF(
        **HALF, voltage_decay=0.1, refractory_steps=1, reset=reset
    ),
    "NoisyLIF": lambda reset: neuron.NoisyLIF(**HALF, voltage_decay=0.1, noise=0.1, reset=reset),
    "ALIF": lambda reset: neuron.ALIF(**HALF, threshold_step=0.2, voltage_decay=0.1, reset=reset),
    "RF": lambda reset: neuron.RF(1.0, PERIOD, 0.1, reset=reset),
    "RFIzhikevich": lambda reset: neuron.RFIzhikevich(1.0, PERIOD, 0.1, reset=reset),
    "AdRF": lambda reset: neuron.AdRF(1.0, 0.2, PERIOD, 0.1, reset=reset),
    "AdRFIzhikevich": lambda reset: neuron.AdRFIzhikevich(1.0, 0.2, PERIOD, 0.1, reset=reset),
}
RESONATORS = ("RF", "RFIzhikevich", "AdRF", "AdRFIzhikevich")


def noisy(shape: tuple[int, int, int], fluctuation: float, generator: torch.Generator) -> Tensor:
    """Static values and noise: (T, N, C)."""
    static = MEAN + DEVIATION * torch.randn(1, *shape[1:], generator=generator)
    return static + fluctuation * torch.randn(shape, generator=generator)


def rhythmic(shape: tuple[int, int, int], fluctuation: float, generator: torch.Generator) -> Tensor:
    """The same, swinging with the resonators' period from 0 to twice its value, at any phase."""
    phase = torch.rand(1, *shape[1:], generator=generator) * 2 * math.pi
    time = torch.arange(shape[0]).view(-1, 1, 1) * 2 * math.pi / PERIOD
    static = MEAN + DEVIATION * torch.randn(1, *shape[1:], generator=generator)
    swing = static * (1 + torch.cos(time + phase))
    return swing + fluctuation * torch.randn(shape, generator=generator)


@torch.no_grad()
def gap(
    made: Neuron, draw: Callable[..., Tensor], time_steps: int, fluctuation: float, size: int
) -> dict[str, float]:
    """Mean absolute gaps with and without rounding, and the mean rate, on fresh inputs."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    shape = (time_steps, size, 64)
    sampler = AnnSampler()
    for _ in range(4):
        z = draw(shape, fluctuation, generator)
        sampler.append(made(z), z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpikestrapWarning)  # silent ones are told in the table
        sampler.fit()
    z = draw(shape, fluctuation, generator)
    draws = DRAWS if made.extra(z[:1], 1) else 1
    rate, found = sum(made(z).mean(0) for _ in range(draws)) / draws, {}
    for name, rounding in (("rounded", True), ("plain", False)):
        sampler.rounding = rounding
        found[name] = (sampler(z.mean(0)) - rate).abs().mean().item()
    return found | {"rate": rate.mean().item()}


def measure(fluctuation: float, size: int) -> list[dict[str, object]]:
    """All neurons, resets and T."""
    rows: list[dict[str, object]] = []
    for name, make in NEURONS.items():
        inputs = {"noisy": noisy} | ({"rhythmic": rhythmic} if name in RESONATORS else {})
        for kind, draw in inputs.items():
            for reset in RESETS:
                for time_steps in TIME_STEPS:
                    found = gap(make(reset), draw, time_steps, fluctuation, size)
                    key = {"neuron": name, "input": kind, "reset": reset, "T": time_steps}
                    rows.append(key | found)
    return rows


def table(rows: list[dict[str, object]], *keys: str) -> str:
    """In Markdown, the keys' values first: a cell is the gap with rounding / without (rate)."""
    lines = [f"| {', '.join(keys)} | " + " | ".join(f"T = {t}" for t in TIME_STEPS) + " |"]
    lines.append("|---|" + "---|" * len(TIME_STEPS))
    for start in range(0, len(rows), len(TIME_STEPS)):
        line = rows[start : start + len(TIME_STEPS)]
        first = ", ".join(str(line[0][key]) for key in keys)
        lines.append(f"| {first} | " + " | ".join(map(cell, line)) + " |")
    return "\n".join(lines)


def tables(rows: list[dict[str, object]]) -> dict[str, str]:
    """By their marks in the page: one a neuron, and one of the rhythmic inputs."""
    swinging = [row for row in rows if row["input"] == "rhythmic"]
    steady = [row for row in rows if row["input"] == "noisy"]
    found = {name: table([r for r in steady if r["neuron"] == name], "reset") for name in NEURONS}
    return found | {"rhythmic": table(swinging, "neuron", "reset")}


def cell(row: dict[str, object]) -> str:
    if row["rate"] == 0:
        return "silent"
    return f"{row['rounded']:.3f} / {row['plain']:.3f} ({row['rate']:.2f})"


def write(rows: list[dict[str, object]], page: Path) -> None:
    """Each table between its marks in the page; the page is replaced whole."""
    text = page.read_text(encoding="utf-8")
    for name, filled in tables(rows).items():
        block = f"<!-- {name} -->\n{filled}\n<!-- end -->"
        text, count = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page}: expected one place <!-- {name} --> ... <!-- end -->")
    write_file(page, text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fluctuation", type=float, default=0.2, help="default: 0.2 thresholds")
    parser.add_argument("--size", type=int, default=256, help="samples a batch, of 64 neurons")
    parser.add_argument(
        "--write", nargs="?", type=Path, const=PAGE, help="default: docs/neurons.md"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    rows = measure(options.fluctuation, options.size)
    for name, filled in tables(rows).items():
        print(f"{name}\n{filled}\n")
    if options.write:
        write(rows, options.write)
    if options.json:
        print(json.dumps({"fluctuation": options.fluctuation, "rows": rows}))


if __name__ == "__main__":
    main()
