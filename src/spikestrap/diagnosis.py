"""Where the ANN is a bad model of the SNN: layer by layer, in numbers and in words."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .ann_sampler import AnnSampler
from .counts import whole_number
from .errors import SpikestrapError, SpikestrapWarning
from .neuron import Neuron
from .random_state import random_state_kept
from .routine import LayerMode, Mode
from .unit import Unit

# From here on a number is worth a warning.
GAP = 0.05
SHARE = 0.5
SAMPLES = 500
AGREEMENT = 0.95
HELPS_TO_AGREE = (
    "; take more time steps, read out by a layer that does not spike, or train the last epochs as "
    "an SNN"
)
NO_CURVE = "no curve: run some batches in Mode.SAMPLE, then one in Mode.FIT"
# A dead layer is tried for so many times more steps.
LONGER = 32


@dataclass(frozen=True)
class LayerDiagnosis:
    """How well one unit's curve stands for its neurons.

    name: the unit's path in the network. time_steps: T of the run as an SNN. fitted: whether
    it has a curve; samples that no fit has used count as fitted. samples: pairs that the fit
    used, the fewest of any curve. residual: root mean square distance of those from the curve,
    the largest of any.
    curve_gap: mean |curve - rate| at the mean inputs of the SNN: the curve's own part.
    rate_gap: mean |ANN's rate - SNN's rate| on the same inputs of the network: with what comes
        from the layers before. These three are NaN before any fit.
    event_rate: spikes a neuron and time step. dead, saturated: shares of neurons that never
        spiked, and that spiked at every step, on all inputs.
    warnings: what is wrong, and what helps, in plain language; empty if all is well.
    """

    name: str
    time_steps: int
    fitted: bool
    samples: int
    residual: float
    curve_gap: float
    rate_gap: float
    event_rate: float
    dead: float
    saturated: float
    warnings: tuple[str, ...]


class Diagnosis(list[LayerDiagnosis]):
    """One `LayerDiagnosis` a unit, in order of definition; `print` shows a table.

    inputs: how many were looked at. agreement: share of them of which SNN and ANN give the same
    class, the largest output; NaN before any fit, and for outputs other than (N, classes).
    """

    def __init__(self, layers: Iterable[LayerDiagnosis], inputs: int, agreement: float) -> None:
        super().__init__(layers)
        self.inputs, self.agreement = inputs, agreement

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Name to numbers and warnings, of plain types."""
        return {layer.name: _without_name(asdict(layer)) for layer in self}

    def __str__(self) -> str:
        columns: dict[str, Callable[[LayerDiagnosis], str]] = {
            "unit": lambda d: d.name,
            "samples": lambda d: str(d.samples),
            "residual": lambda d: f"{d.residual:.3f}",
            "curve gap": lambda d: f"{d.curve_gap:.3f}",
            "rate gap": lambda d: f"{d.rate_gap:.3f}",
            "event rate": lambda d: f"{d.event_rate:.3f}",
            "dead": lambda d: f"{d.dead:.1%}",
            "saturated": lambda d: f"{d.saturated:.1%}",
        }
        rows = [list(columns), *([cell(d) for cell in columns.values()] for d in self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        lines += [f"{layer.name}: {text}" for layer in self for text in layer.warnings]
        if not math.isnan(self.agreement):
            share = f"{self.agreement:.1%} of {self.inputs} inputs"
            helps = HELPS_TO_AGREE if self.agreement < AGREEMENT else ""
            lines.append(f"output: SNN and ANN agree on the class of {share}{helps}")
        return "\n".join(lines)


def diagnose(net: nn.Module, loader: Iterable[Any], batches: int = 4) -> Diagnosis:
    """Compares each unit's curve with its neurons, on the same inputs.

    net: a Network, what `ss.bootstrap` returns, or a module of your own with units in it,
        called as ``net(x, mode)``. It is copied, and stays as it is: curves, statistics,
        modes, and the state of torch's random numbers.
    loader: yields inputs x, or tuples that start with them, as the net takes them.
    batches: how many of those are looked at, at most.

    Raises SpikestrapError for a net without units and a loader without batches.
    Samples that no fit has used are fitted, in the copy, as ANN mode would.

    >>> import spikestrap as ss
    >>> _ = torch.manual_seed(0)
    >>> neuron = dict(threshold=1.0, reset="subtract", v_init=0.5)
    >>> net = ss.Network(
    ...     ss.block.integrate_fire.Dense(neuron, 20, 50, weight_scale=4.0),
    ...     ss.block.integrate_fire.Dense(dict(neuron, threshold=99.0), 50, 50),
    ...     ss.block.integrate_fire.Affine(neuron, 50, 10),
    ...     time_steps=8,
    ... )
    >>> x = torch.rand(100, 20)
    >>> logits = net(x, ss.Mode.SAMPLE)
    >>> first, second = ss.diagnose(net, [x])
    >>> first.warnings, second.event_rate
    ((), 0.0)
    >>> second.warnings[0].partition(" (")[0]
    'dead: no input reaches the threshold within T = 8 steps'
    """
    batches = whole_number("diagnose: batches", batches, 1)
    # On a copy whatever happens has no consequences.
    twin = copy.deepcopy(net).eval()
    units = list(_units(twin))
    if not units:
        raise SpikestrapError(f"diagnose: found no bootstrap unit in {type(net).__name__}")
    with warnings.catch_warnings():
        # What a fit warns of is told below.
        warnings.simplefilter("ignore", SpikestrapWarning)
        for unit in units:
            if unit.sampler.pending:
                unit.sampler.fit()
    device = next((p.device for p in twin.parameters()), torch.device("cpu"))
    classes = []
    with torch.no_grad(), random_state_kept(device):
        for batch in islice(loader, batches):
            x = batch[0] if isinstance(batch, list | tuple) else batch
            classes.append(_compare(twin, x.to(device), units))
        if not units[0].pairs:
            raise SpikestrapError("diagnose: expected at least one batch, the loader gave none")
        layers = [unit.judge(depth) for depth, unit in enumerate(units)]
    same = torch.cat(classes)
    return Diagnosis(layers, len(same), same.mean().item())


class _Unit:
    """A unit of the copy, and what was seen of it so far."""

    def __init__(self, name: str, sampler: AnnSampler, neuron: Neuron | None) -> None:
        self.name, self.sampler, self.neuron = name, sampler, neuron
        self.fitted = bool(sampler.fitted > 0) or sampler.pending
        self.time_steps = self.pairs = 0
        self.events = self.curve_gap = self.rate_gap = 0.0
        self.largest: Tensor | None = None
        self.ever: Tensor | None = None
        self.always: Tensor | None = None
        # Of the unit's calls in a spiking pass and in one on rates, in their order.
        self.rates: list[Tensor] = []
        self.on_rates: list[Tensor] = []
        self.compared = False

    def see_samples(self, rate: Tensor, mean: Tensor, time_steps: int) -> None:
        """Rates and mean inputs (N, ...) of a batch over so many steps."""
        rate, mean = rate.float(), mean.float()
        self.rates.append(rate)
        self.time_steps = time_steps
        self.pairs += rate.numel()
        self.events += rate.double().sum().item()
        ever, always = (rate > 0).any(0), (rate == 1).all(0)
        self.ever = ever if self.ever is None else self.ever | ever
        self.always = always if self.always is None else self.always & always
        if self.fitted:
            self.curve_gap += (self.sampler(mean) - rate).abs().double().sum().item()
        top = mean[mean.flatten(1).amax(1).argmax()]
        if self.largest is None or top.max() > self.largest.max():
            self.largest = top

    def compare(self) -> None:
        """What was seen of a batch as an SNN and as an ANN.

        A foreign model that loops over time by itself may call it T times on rates, and has been
        sampled once.
        """
        self.compared = True
        calls = len(self.on_rates) // len(self.rates)
        for i, rate in enumerate(self.rates):
            rates = torch.stack(self.on_rates[i * calls : (i + 1) * calls]).mean(0)
            self.rate_gap += (rates - rate).abs().double().sum().item()

    def judge(self, depth: int) -> LayerDiagnosis:
        """The numbers, and what they mean for the unit with so many before it."""
        assert self.ever is not None
        assert self.always is not None
        unknown = float("nan")
        found = LayerDiagnosis(
            name=self.name,
            time_steps=self.time_steps,
            fitted=self.fitted,
            samples=int(self.sampler.statistics.pairs[:, 0].sum(-1).min()),
            residual=float(self.sampler.residual.max()) if self.fitted else unknown,
            curve_gap=self.curve_gap / self.pairs if self.fitted else unknown,
            rate_gap=self.rate_gap / self.pairs if self.compared else unknown,
            event_rate=self.events / self.pairs,
            dead=1 - self.ever.double().mean().item(),
            saturated=self.always.double().mean().item(),
            warnings=(),
        )
        told = (*self._about_fit(found), *self._about_spikes(found), *self._about_gap(found, depth))
        return replace(found, warnings=told)

    def _about_fit(self, found: LayerDiagnosis) -> Iterator[str]:
        if not found.fitted:
            yield NO_CURVE
            return
        if found.samples < SAMPLES:
            yield (
                f"too few samples: {found.samples} pairs for a curve, expected {SAMPLES} or more; "
                "sample more or larger batches"
            )
        if self.sampler.time_steps != found.time_steps:
            yield (
                f"other time steps: the curve was sampled at T = {self.sampler.time_steps}, the "
                f"network runs for {found.time_steps}; sample again"
            )

    def _about_spikes(self, found: LayerDiagnosis) -> Iterator[str]:
        if found.event_rate == 0:
            yield self._about_silence(found.time_steps)
        elif found.dead > SHARE:
            yield (
                f"{found.dead:.0%} of the neurons are dead: they never spike; lower the threshold, "
                "raise the weights, or make the layer smaller"
            )
        if found.event_rate == 1:
            yield (
                "saturated: all neurons spike at every step; raise the threshold or lower the "
                "weights"
            )
        elif found.saturated > SHARE:
            yield (
                f"{found.saturated:.0%} of the neurons are saturated: they spike at every step; "
                "raise the threshold or lower the weights"
            )

    def _about_silence(self, time_steps: int) -> str:
        assert self.largest is not None
        text = (
            f"dead: no input reaches the threshold within T = {time_steps} steps (largest mean "
            f"input {self.largest.max().item():g})"
        )
        if self.neuron is not None:
            held = self.largest.expand(1, 1, *self.largest.shape)
            if self.neuron(held, time_steps=LONGER * time_steps).any():
                start = ", or set v_init" if "v_init" in self.neuron.bounds else ""
                return f"{text}, though it would in time: take more time steps{start}"
        return f"{text}; lower the threshold or raise the weights"

    def _about_gap(self, found: LayerDiagnosis, depth: int) -> Iterator[str]:
        if found.curve_gap > GAP:
            text = f"its curve is a bad model, off by {found.curve_gap:.3f} on average; "
            if found.curve_gap > found.residual:
                yield f"{text}worse than when it was fitted ({found.residual:.3f}): sample again"
            else:
                # Units of a wrapped model share their settings, as to how many channels too.
                could = self.neuron is not None and self.sampler.per == "layer"
                curves = "" if not could else 'a curve for each channel (per="channel"), '
                yield (
                    f"{text}its mean input alone does not tell a neuron's rate: take more time "
                    f"steps, {curves}or cross over to SNN mode here"
                )
        elif found.rate_gap > GAP:
            yield (
                f"ANN and SNN differ by {found.rate_gap:.3f}, of which its own curve makes "
                f"{found.curve_gap:.3f}: the rest has come from the {depth} units before; mend "
                "those first, or cross over to SNN mode there"
            )


def _units(net: nn.Module) -> Iterator[_Unit]:
    """Every unit of a network; own ones and foreign ones have their curve in common."""
    for path, module in net.named_modules():
        if isinstance(module, AnnSampler):
            holder = net.get_submodule(path.rpartition(".")[0])
            neuron = holder.neuron if isinstance(holder, Unit) else None
            yield _Unit(module.name or path.removesuffix(".sampler"), module, neuron)


def _compare(net: nn.Module, x: Tensor, units: list[_Unit]) -> Tensor:
    """Runs one batch as an SNN and, where there are curves, as an ANN.

    Returns whether both give the same class, as `_same_class`; without curves (0,).
    """
    for unit in units:
        unit.rates.clear()
        unit.on_rates.clear()
        # In place of the sampler's own: it sees just what would be sampled.
        unit.sampler.__dict__["append_means"] = unit.see_samples
    spiking = _call(net, x, Mode.SAMPLE)
    if not all(unit.fitted for unit in units):
        return torch.zeros(0)
    hooks = [
        unit.sampler.register_forward_hook(
            lambda _, args, rates, u=unit: u.on_rates.append(rates.float())
        )
        for unit in units
    ]
    on_rates = _call(net, x, Mode.ANN)
    for hook in hooks:
        hook.remove()
    for unit in units:
        unit.compare()
    return _same_class(spiking, on_rates)


def _same_class(one: Any, other: Any) -> Tensor:
    """(N,) whether outputs (N, classes) are largest at the same class; (0,) of any others."""
    if not all(isinstance(o, Tensor) and o.ndim == 2 and o.shape[1] > 1 for o in (one, other)):
        return torch.zeros(0)
    same: Tensor = one.argmax(1) == other.argmax(1)
    return same.double().cpu()


def _call(net: nn.Module, x: Tensor, mode: Mode) -> Any:
    """A module of one's own takes one mode a unit, or one for all."""
    try:
        return net(x, LayerMode(mode))
    except (TypeError, SpikestrapError):
        return net(x, mode)


def _without_name(layer: dict[str, Any]) -> dict[str, Any]:
    del layer["name"]
    return {**layer, "warnings": list(layer["warnings"])}
