"""One network trained in four ways, under one schedule or within the same seconds."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .. import processes
from ..counts import whole_number
from ..errors import SpikestrapError, SpikestrapWarning, warn
from ..network import Network
from ..routine import LayerMode, Mode
from ..unit import units_of
from .compare_report import comparison_name, read_comparison, write_comparison
from .data import Arrays, Splits, load
from .evaluate import accuracy_over_time, default_device, evaluate
from .experiment import MAX_SEED
from .hardware import Hardware
from .loop import Progress, fit, measure
from .options import Options
from .recipes import recipe
from .run import prepare_run

METHODS = ("ann", "bootstrap", "hybrid", "direct")
TIME_STEPS = (1, 2, 4, 8, 16, 32)  # at which the trained networks are evaluated, besides their own
_CALIBRATION_STEPS = 8  # of each mode
_POINTS = 40  # validations a method, about, for the accuracy over time
_MAX_EPOCHS = 10_000


def compare(
    name: str = "digits-mlp",
    *,
    methods: Sequence[str] = METHODS,
    data: Path | None = None,
    time_steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    budget: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    hardware: Hardware | None = None,
    on_progress: Callable[[str, Progress], None] = lambda method, progress: None,
) -> dict[str, Any]:
    """Train a recipe's network by each of up to four methods, and write table and plot.

    - ``ann``: with ReLU for neurons, never as an SNN: what the network can do at best.
    - ``bootstrap``: on transfer curves alone, sampled by the recipe's schedule.
    - ``hybrid``: the same; over the second half units cross over to SNN one by one from the
      input on, and the last tenth trains as an SNN.
    - ``direct``: as an SNN throughout, by surrogate gradients through all time steps.

    All start from the same weights, see the same images in the same order, and keep the last
    epoch that validates within a standard error of the best. Seconds are those of training,
    without validation, and without what is compiled once: before each method a copy of its
    network trains for a few steps. The files are written anew after each method; of other methods
    they keep what an earlier comparison with the same settings left there. With other settings it
    is replaced, and a warning names what is lost.

    Args:
        name: the recipe.
        methods: some of ``ann``, ``bootstrap``, ``hybrid`` and ``direct``.
        data: the folder of the data set; None for the bundled or downloaded one.
        time_steps, epochs, batch_size, learning_rate: None for the recipe's own.
        budget: train each method for as many whole epochs as fit into so many seconds, by the
            time a few steps of each mode take beforehand; instead of ``epochs``.
        seed: of everything random.
        out: the folder for ``compare.json``, ``compare.md`` and ``compare.png``; None for
            ``runs/compare-<recipe>-T<time_steps>-s<seed>``.
        hardware: on what each method trains; None for one process, on the GPU if there is one.
        on_progress: called with the method's name after every step and every epoch.

    Returns:
        recipe, time_steps, batch_size, learning_rate, precision (of the network),
        training_precision, seed, budget, out, and methods: by name a dict of epochs, seconds,
        seconds_to_direct (until the SNN validated as well as direct training at its best; None
        where it never did or direct is not compared; for ann its ANN accuracy counts),
        snn_accuracy, ann_accuracy, gap, event_rate (as `train` gives them; None for what ann has
        not), over_time (dicts of epoch, seconds, snn_accuracy, ann_accuracy on the validation part)
        and over_time_steps (test accuracy of the SNN by T). Of several processes the first one
        has, and writes, all of it.

    Raises:
        SpikestrapError: an argument is out of range, the data are missing or damaged, or the
            folder cannot be written.
    """
    made_by = recipe(name)
    own = made_by.options.for_epochs(epochs)
    own = own.given(batch_size=batch_size, learning_rate=learning_rate)
    seed = whole_number("seed", seed, 0, MAX_SEED)
    _check_methods(methods)
    device, on = default_device(), hardware or Hardware()
    if budget is not None:
        _check_budget(budget, epochs, on)
    on.check(device)
    steps = made_by.time_steps if time_steps is None else time_steps
    made_by.network(steps)  # says what is wrong with T before data are read
    splits = load(made_by.data, data, seed, steps)
    path = prepare_run(Path("runs") / comparison_name(name, steps, seed) if out is None else out)

    result: dict[str, Any] = {
        "recipe": name,
        "time_steps": steps,
        "batch_size": own.batch_size,
        "learning_rate": own.learning_rate,
        "precision": made_by.precision,
        "training_precision": on.training_precision,
        "seed": seed,
        "budget": budget,
        "methods": {},
        "out": str(path),
    }
    results = _earlier(path, result, methods, own.epochs) if processes.is_first() else {}
    for method in (method for method in METHODS if method in methods):
        torch.manual_seed(seed)
        network = made_by.network(steps).to(device)
        # What crosses over: a residual block does with its two units at once.
        units = sum(1 for block in network.blocks if any(True for _ in units_of(block)))
        net: nn.Module = relu_twin(network) if method == "ann" else network
        options = options_for(method, own, units)
        _warm_up(copy.deepcopy(net), splits, options, on)
        if budget is not None:
            pace = _pace(copy.deepcopy(net), splits, options, on)
            options = _within(budget, pace, method, own, units, len(splits.train))
        results[method] = _train(method, net, splits, options, seed, on, on_progress)
        result["methods"] = {name: results[name] for name in METHODS if name in results}
        if processes.is_first():
            _add_seconds_to_direct(results)
            write_comparison(path, result)
    return result


def _earlier(
    path: Path, result: dict[str, Any], methods: Sequence[str], epochs: int
) -> dict[str, dict[str, Any]]:
    """By method what an earlier comparison with the same settings left in the folder.

    Warns of what one with other settings left there, and none of `methods` replaces.
    """
    stored = read_comparison(path)
    if stored is None:
        return {}
    found: dict[str, dict[str, Any]] = stored["methods"]
    # Comparisons did not always take another one.
    stored.setdefault("learning_rate", recipe(result["recipe"]).options.learning_rate)
    settings = [key for key in result if key not in ("methods", "out")]
    other = [
        f"{key} = {stored.get(key)}, not {result[key]}"
        for key in settings
        if stored.get(key) != result[key]
    ]
    if result["budget"] is None:
        had = {method["epochs"] for method in found.values()} - {epochs}
        other += [f"epochs = {had.pop()}, not {epochs}"] if had else []
    if not other:
        return found
    if lost := [name for name in found if name not in methods]:
        warn(
            f"{path}: replaces what it holds of {', '.join(lost)}, which had other settings: "
            f"{', '.join(other)}"
        )
    return {}


def options_for(method: str, own: Options, units: int) -> Options:
    """A recipe's options for one of `METHODS`; units: how many may cross over.

    >>> hybrid = options_for("hybrid", Options(epochs=20), units=3)
    >>> hybrid.crossover_epochs, hybrid.snn_epochs
    ((10, 13, 16), 2)
    """
    options = replace(
        own,
        crossover_epochs=None,
        snn_epochs=0,
        snn_gradient="surrogate",
        validate_every=max(1, own.epochs // _POINTS),
    )
    if method == "direct":
        return replace(options, snn_epochs=own.epochs)
    if method == "hybrid":
        last = math.ceil(own.epochs / 10)
        half = own.epochs // 2
        crossover = [half + (own.epochs - half) * unit // units for unit in range(units)]
        return replace(options, crossover_epochs=tuple(crossover), snn_epochs=last)
    return options


class ReluTwin(nn.Module):
    """A network as the ANN that it would be without spikes, whatever mode it is called with."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mode: Mode | LayerMode = Mode.ANN) -> Tensor:
        """x (N, features...) to logits (N, out)."""
        logits: Tensor = self.net(x, Mode.ANN)
        return logits


def relu_twin(net: nn.Module) -> ReluTwin:
    """Puts ReLU in the place of every unit of a network, for good.

    Of inputs in units of the threshold (its mean over channels), for that is what a rate of IF
    follows up to 1: both give what comes next values of one size.

    >>> import spikestrap as ss
    >>> net = ss.Network(ss.block.cuba.Dense(dict(threshold=2.0), 4, 2), time_steps=8)
    >>> x = torch.rand(3, 4)
    >>> z = net.blocks[0].synapse(x)
    >>> torch.equal(relu_twin(net)(x), torch.relu(z / 2))
    True
    """
    for name, unit in list(units_of(net)):
        threshold = getattr(getattr(unit, "neuron", None), "threshold", torch.ones(()))
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, _Relu(float(threshold.mean())))
    return ReluTwin(net)


class _Relu(nn.Module):
    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, z: Tensor, mode: Mode = Mode.ANN, time_steps: int | None = None) -> Tensor:
        # As most have a threshold of 1, and the time that ReLU takes is compared: no idle division.
        return torch.relu(z if self.threshold == 1 else z / self.threshold)


def _train(
    method: str,
    net: nn.Module,
    splits: Splits,
    options: Options,
    seed: int,
    hardware: Hardware | None,
    on_progress: Callable[[str, Progress], None],
) -> dict[str, Any]:
    """Train by one method, and measure the network on the test part."""
    watch = _Watch(method, on_progress)
    fit(net, splits, options, seed, watch, hardware=hardware)
    result: dict[str, Any] = {"epochs": options.epochs, "seconds": watch.seconds}
    over_time_steps: dict[int, float] = {}
    if isinstance(net, Network):
        over_time_steps = _over_time_steps(net, splits.test)
    return {
        **result,
        **numbers(net, splits.test),
        "over_time": watch.points,
        "over_time_steps": over_time_steps,
    }


def numbers(net: nn.Module, arrays: Arrays) -> dict[str, Any]:
    """snn_accuracy, ann_accuracy, gap and event_rate; of a `ReluTwin` its accuracy, else None."""
    if isinstance(net, ReluTwin):
        ann = evaluate(net, arrays, Mode.ANN)
        return {"snn_accuracy": None, "ann_accuracy": ann, "gap": None, "event_rate": None}
    return measure(net, arrays)[0]


def _over_time_steps(net: Network, test: Arrays) -> dict[int, float]:
    wanted = sorted({*TIME_STEPS, net.time_steps or 1})
    if net.time_steps is None:  # its samples have so many steps and no more
        steps = test.x.shape[1]
        wanted = sorted({steps, *(t for t in TIME_STEPS if t < steps)})
    accuracy = accuracy_over_time(net, test, wanted[-1])
    return {steps: accuracy[steps - 1] for steps in wanted}


class _Watch:
    """Adds up the seconds of training, without validation, and keeps what validation found."""

    def __init__(self, method: str, on_progress: Callable[[str, Progress], None]) -> None:
        self._method, self._on_progress = method, on_progress
        self.seconds = 0.0
        self.points: list[dict[str, Any]] = []

    def __call__(self, progress: Progress) -> None:
        epoch = progress.finished
        if epoch is not None:
            validated = epoch.snn_accuracy is not None
            if self._method == "ann":
                # It is the same in both modes; in which it was validated does not matter.
                epoch = replace(epoch, snn_accuracy=None, ann_accuracy=epoch.snn_accuracy)
                progress = replace(progress, finished=epoch)
            # Not by a clock of its own: that would also time how processes are started.
            self.seconds += epoch.seconds - epoch.seconds_by_mode.get("evaluation", 0.0)
            if validated:
                self.points.append(
                    {
                        "epoch": epoch.epoch + 1,
                        "seconds": self.seconds,
                        "snn_accuracy": epoch.snn_accuracy,
                        "ann_accuracy": epoch.ann_accuracy,
                    }
                )
        self._on_progress(self._method, progress)


def _add_seconds_to_direct(methods: dict[str, dict[str, Any]]) -> None:
    """When each method validated as well as direct training at its best."""
    direct = methods.get("direct", {"over_time": []})
    goal = max((point["snn_accuracy"] for point in direct["over_time"]), default=math.inf)
    for method, result in methods.items():
        kind = "ann_accuracy" if method == "ann" else "snn_accuracy"
        reached = (point["seconds"] for point in result["over_time"] if point[kind] >= goal)
        result["seconds_to_direct"] = next(reached, None)


def _check_methods(methods: Sequence[str]) -> None:
    if not methods or not set(methods) <= set(METHODS):
        expected = ", ".join(METHODS)
        raise SpikestrapError(f"methods: expected some of {expected}, got {list(methods)}")


def _check_budget(budget: float, epochs: int | None, hardware: Hardware) -> None:
    if epochs is not None:
        raise SpikestrapError(f"expected epochs or budget, got both: {epochs} and {budget}")
    if not 0 < budget < math.inf:
        raise SpikestrapError(f"budget: expected a finite number of seconds > 0, got {budget}")
    if (several := hardware.devices * hardware.nodes) > 1:
        raise SpikestrapError(
            f"budget: the pace is that of one process, got {several}; say epochs instead"
        )


def _warm_up(net: nn.Module, splits: Splits, options: Options, hardware: Hardware) -> None:
    """Have all compiled that a method runs, by a few steps that train the copy given."""
    short = replace(
        options,
        epochs=3,
        num_sample_iter=1,
        sample_period=3,
        crossover_epochs=None if options.crossover_epochs is None else (1,),
        snn_epochs=3 if options.snn_epochs == options.epochs else 1,
        validate_every=3,
    )
    _few_steps(net, splits, short, 3, hardware)


def _few_steps(
    net: nn.Module,
    splits: Splits,
    options: Options,
    batches: int,
    hardware: Hardware,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train on so many full batches an epoch; where there are not enough, the images come again."""
    size = min(options.batch_size, len(splits.train))
    chosen = torch.arange(batches * size) % len(splits.train)
    few = Arrays(splits.train.x[chosen], splits.train.y[chosen])
    each = slice(hardware.devices * hardware.nodes)  # an image a process
    small = replace(splits, train=few, validation=Arrays(few.x[each], few.y[each]))
    options = replace(options, batch_size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpikestrapWarning)  # the training itself will say it
        fit(net, small, options, on_progress=on_progress, hardware=hardware)


def _pace(net: nn.Module, splits: Splits, options: Options, hardware: Hardware) -> dict[str, float]:
    """Seconds a step by mode, as a few steps take that train nothing but the copy given."""
    steps = _CALIBRATION_STEPS
    short = replace(
        options,
        epochs=2,
        num_sample_iter=steps // 2,
        sample_period=2,
        crossover_epochs=None,
        snn_epochs=1,
        validate_every=2,
    )
    ends: list[tuple[int, str, float]] = []

    def note(progress: Progress) -> None:
        if progress.finished is None:
            ends.append((progress.epoch, progress.mode.lower(), time.perf_counter()))

    _few_steps(net, splits, short, 2 * steps, hardware, note)
    # From the end of one step to that of the next, with the images' augmentation and all else.
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for (epoch, _, start), (same, mode, end) in pairwise(ends):
        if epoch == same:
            seconds[mode].append(end - start)
    return {mode: median(values) for mode, values in seconds.items()}


def _within(
    budget: float, pace: dict[str, float], method: str, own: Options, units: int, images: int
) -> Options:
    """The options of a method with as many epochs as fit into so many seconds, at least one."""

    def fits(epochs: int) -> bool:
        options = options_for(method, replace(own, epochs=epochs), units)
        return _seconds(options, pace, units, max(1, images // own.batch_size)) <= budget

    low, high = 1, 2
    while high < _MAX_EPOCHS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return options_for(method, replace(own, epochs=low), units)


def _seconds(options: Options, pace: dict[str, float], units: int, steps: int) -> float:
    """How long a training should take, given the seconds a step by mode."""
    scheduler = options.scheduler()
    special = min(steps, options.num_sample_iter + 1)  # the steps that may sample or fit

    def step(epoch: int, iteration: int) -> float:
        mode = scheduler.mode(epoch, iteration)
        base, spiking = pace.get(mode.base_mode.value, pace["snn"]), pace["snn"]
        # Units that have crossed over cost what they cost in an SNN.
        return base + (spiking - base) * min(mode.crossover / units, 1.0)

    return sum(
        sum(step(epoch, i) for i in range(special)) + (steps - special) * step(epoch, special)
        for epoch in range(options.epochs)
    )
