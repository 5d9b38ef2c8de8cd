"""The page: figures and numbers in one HTML file that needs nothing else."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..diagnosis import NO_CURVE
from ..operations import ADDITION_PJ, MAC_PJ
from ..train.extras import require
from ..train.hardware import PRECISIONS
from ..train.loop import Epoch
from ..train.recipes import recipe
from ..train.run import OWN_OPTIONS
from . import figures
from .example import example
from .gather import ORDER, Report
from .measure import RASTER_STEPS
from .svg import thinned

_TEMPLATE = "page.html.jinja"
_ROWS = 200  # of the table of epochs, at most
_DID = {
    "ann": "ran the network as an ANN, on curves",
    "sample": "sampled the network as an SNN (SAMPLE)",
    "fit": "fitted the curves to the samples (FIT)",
    "snn": "trained the network as an SNN",
}


@dataclass(frozen=True)
class ModeRow:
    """What a mode took: steps, seconds, and as a share of the longest.

    milliseconds: a step's, the lower median of the epochs; their mean where that was not recorded.
    """

    mode: str
    steps: int
    seconds: float
    milliseconds: float | None
    share: float


def render(report: Report) -> str:
    """The page of a report, as HTML."""
    jinja2 = require("jinja2", "the report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spikestrap", "report"),
        autoescape=True,  # what a run's files say comes from anywhere
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = jinja2.utils.markupsafe.Markup
    modes = mode_rows(report)
    page: str = environment.get_template(_TEMPLATE).render(
        r=report,
        result=report.records.result,
        measured=report.measured,
        figures=figures,
        example_figure=example,
        modes=modes,
        trained=how_it_trained(report.records.epochs),
        times=_sample_over_ann(modes),
        epochs=thinned(report.records.epochs, _ROWS),
        order=ORDER,
        command=command(report),
        options=json.dumps(report.config.get("options"), indent=2),
        versions=_versions(report),
        has_history=any(layer.history for layer in report.layers),
        has_curves=any(layer.curve is not None for layer in report.layers),
        no_curve=NO_CURVE,
        raster_steps=RASTER_STEPS,
        addition_pj=ADDITION_PJ,
        mac_pj=MAC_PJ,
    )
    return page


def how_it_trained(epochs: Sequence[Epoch]) -> str:
    """What how many steps did, by the modes that ran; empty where there were none.

    >>> print(how_it_trained([Epoch(0, 1.0, 0.1, {"ann": 1200, "snn": 20}, 1.0)]))
    Steps that ran the network as an ANN, on curves: 1,200; that trained the network as an SNN: 20.
    """
    steps = {mode: sum(epoch.steps.get(mode, 0) for epoch in epochs) for mode in _DID}
    told = "; ".join(f"that {_DID[mode]}: {count:,}" for mode, count in steps.items() if count)
    return f"Steps {told}." if told else ""


def mode_rows(report: Report) -> list[ModeRow]:
    """Where the time went, by mode, the most first."""
    seconds = {k: v for k, v in report.records.result.seconds.items() if k != "total"}
    most = max(seconds.values(), default=0.0) or 1.0
    rows = []
    for mode, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        epochs = [epoch for epoch in report.records.epochs if epoch.steps.get(mode)]
        steps = sum(epoch.steps[mode] for epoch in epochs)
        # The first steps also wait for compilers, hence the median, of two epochs the lower.
        paces = [
            epoch.seconds_by_mode[mode] / epoch.steps[mode]
            for epoch in epochs
            if mode in epoch.seconds_by_mode
        ]
        pace = statistics.median_low(paces) if paces else spent / steps if steps else None
        milliseconds = None if pace is None else 1000 * pace
        rows.append(ModeRow(mode, steps, spent, milliseconds, spent / most))
    return rows


def _sample_over_ann(modes: Sequence[ModeRow]) -> float | None:
    """How many times longer a step takes as an SNN that is sampled than as an ANN."""
    spent = {row.mode: row.milliseconds for row in modes}
    sample, ann = spent.get("sample"), spent.get("ann")
    return sample / ann if sample and ann else None


def command(report: Report) -> str:
    """The command line that trains the same again."""
    words = ["spikestrap", "train", report.name, "--time-steps", report.time_steps]
    options = report.config.get("options")
    for key in OWN_OPTIONS:
        if isinstance(options, dict) and isinstance(options.get(key), int | float):
            words += [f"--{key.replace('_', '-')}", options[key]]
    if report.precision != recipe(report.name).precision:
        words += ["--chip", "none" if report.precision == "float" else report.precision]
    if (arithmetic := report.config.get("training_precision")) in PRECISIONS[1:]:
        words += ["--precision", arithmetic]
    words += ["--seed", report.seed]
    if report.config.get("data") is not None:
        words += ["--data", "DIR"]
    return " ".join(map(str, words))


def _versions(report: Report) -> dict[str, str]:
    versions: Any = report.config.get("versions")
    if not isinstance(versions, dict):
        return {}
    return {str(name): str(version) for name, version in versions.items()}
