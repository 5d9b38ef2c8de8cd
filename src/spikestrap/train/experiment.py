"""A whole training, from a recipe's name to a run directory, and its evaluation afterwards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import exchange, fixed, processes
from ..counts import whole_number
from ..errors import SpikestrapError, at
from ..exchange import netx, nir
from ..network import Network
from ..operations import cost
from ..routine import Mode
from .data import SHAPES, TEMPORAL, Arrays, load, to_input
from .evaluate import EventRate, default_device, evaluate
from .hardware import Hardware
from .loop import LOGGERS, Progress, fit, make_logger, measure
from .recipes import MAX_TIME_STEPS, recipe
from .run import (
    EXPORTS,
    LOGS,
    Run,
    clear_run,
    count_parameters,
    export_path,
    load_config,
    load_run,
    prepare_run,
    run_name,
    save_config,
    save_run,
)

MAX_SEED = 2**32 - 1
_COST_SAMPLES = 256


def train(
    name: str = "digits-mlp",
    *,
    data: Path | None = None,
    time_steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    precision: str | None = None,
    patience: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    hardware: Hardware | None = None,
    logger: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train a recipe and write its run directory.

    Args:
        name: the recipe.
        data: the folder of the data set; None for the bundled or downloaded one.
        time_steps, epochs, batch_size, learning_rate, precision: None for the recipe's own. Of
            fewer epochs as large a share trains as an SNN as of the recipe's, see
            `Options.for_epochs`.
        patience: stop early after so many validations without a better SNN accuracy.
        seed: of everything random.
        out: the run directory; None for ``runs/<recipe>-T<time_steps>-s<seed>``.
        hardware: on what; None for one process, on the GPU if there is one.
        logger: ``"tensorboard"`` or ``"csv"`` to log the training into ``logs`` in the run.
        on_progress: called after every step and every epoch.

    Returns:
        The final numbers on the test part: recipe, time_steps, epochs, seed, snn_accuracy and
        ann_accuracy (percent; the latter None if no curve was fitted), gap (percentage points),
        event_rate (spikes a neuron and time step), seconds (total and by mode), parameters, out.

    Raises:
        SpikestrapError: an argument is out of range, the data are missing or damaged, or the run
            directory cannot be written; all of it before the training starts.
    """
    made_by = recipe(name)
    own = made_by.options.for_epochs(epochs)
    options = own.given(batch_size=batch_size, learning_rate=learning_rate, patience=patience)
    seed = whole_number("seed", seed, 0, MAX_SEED)
    steps = made_by.time_steps if time_steps is None else time_steps
    torch.manual_seed(seed)
    net = made_by.network(steps, precision)
    path = Path("runs") / run_name(name, steps, seed) if out is None else out
    run = Run(path, made_by, options, steps, seed, data, net)
    return _train(run, hardware or Hardware(), logger, on_progress, fresh=True)


def resume(
    path: Path,
    *,
    data: Path | None = None,
    hardware: Hardware | None = None,
    logger: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Go on with a training that was cut off; it ends as if it had not been.

    Args:
        path: the run directory.
        data, hardware, logger, on_progress: as for `train`; the result is the same to the bit on
            the same hardware only. The precision is the run's.

    Returns:
        What `train` would have.

    Raises:
        SpikestrapError: there is no such run, none of its checkpoints is whole, or it began in
            another precision than was asked for.
    """
    run = load_config(path)
    if data is not None:
        run = replace(run, data=data)
    on = (hardware or Hardware()).going_on(run.training_precision)
    return _train(run, on, logger, on_progress, fresh=False)


def _train(
    run: Run,
    hardware: Hardware,
    logger: str | None,
    on_progress: Callable[[Progress], None],
    fresh: bool,
) -> dict[str, Any]:
    if logger is not None and logger not in LOGGERS:
        raise SpikestrapError(f"--logger: expected one of {', '.join(LOGGERS)}, got {logger!r}")
    # What may be wrong shows before there is a folder, or an earlier run is taken away.
    hardware.check(default_device())
    log = make_logger(logger, run.path / LOGS, fresh) if logger else None
    splits = load(run.recipe.data, run.data, run.seed, run.time_steps)
    path, net = prepare_run(run.path), run.net
    what = (run.recipe, run.options, run.time_steps, run.seed, run.data, net)
    net.to(default_device())
    if processes.is_first() and fresh:
        clear_run(path)
        save_config(path, *what, training_precision=hardware.training_precision)
    history = fit(
        net,
        splits,
        run.options,
        run.seed,
        on_progress,
        hardware=hardware,
        logger=log,
        checkpoints=path,
    )
    numbers, _ = measure(net, splits.test)
    result = {
        "recipe": run.recipe.name,
        "time_steps": run.time_steps,
        "epochs": len(history.epochs),
        "seed": run.seed,
        **numbers,
        "seconds": history.seconds,
        "parameters": count_parameters(net),
        "out": str(path),
    }
    if processes.is_first():
        save_run(path, *what, history, result, training_precision=hardware.training_precision)
    return result


def evaluate_run(
    path: Path,
    *,
    data: Path | None = None,
    time_steps: int | None = None,
    hardware: Hardware | None = None,
) -> dict[str, Any]:
    """Evaluate a run on its test part, at the T it was trained for or at another.

    Args:
        path: the run directory.
        data: the folder of the data set; None for the one it was trained with.
        time_steps: None for the run's own.
        hardware: on what; None for one process, on the GPU if there is one.

    Returns:
        recipe, time_steps, snn_accuracy, ann_accuracy and gap (None at another T than the
        trained one: the curves hold for that one only), event_rate, samples, seconds
        (total and by mode), run.
    """
    start = time.perf_counter()
    run = load_run(path)
    steps = run.time_steps if time_steps is None else time_steps
    steps = whole_number("time_steps", steps, 1, MAX_TIME_STEPS)
    if not run.recipe.temporal:
        run.net.time_steps = steps
    test = load(run.recipe.data, data or run.data, run.seed, steps).test
    run.net.to(default_device())
    numbers, seconds = measure(run.net, test, as_ann=steps == run.time_steps, hardware=hardware)
    return {
        "recipe": run.recipe.name,
        "time_steps": steps,
        **numbers,
        "samples": len(test),
        "seconds": {**seconds, "total": time.perf_counter() - start},
        "run": str(path),
    }


def evaluate_file(
    path: Path, *, data: Path | None = None, time_steps: int | None = None
) -> dict[str, Any]:
    """Evaluate a ``.net`` or ``.nir`` file on the test part of the data set whose images fit it.

    A ``.net`` file runs in the chip's integers, a ``.nir`` file as an SNN in floating point.
    Both take pixels in [0, 1], held for all steps, or frames of events, and are read out by the
    mean over time.

    Args:
        path: the file.
        data: the folder of the data set; None for the bundled or downloaded one.
        time_steps: None for what the file says.

    Returns:
        file, data (the data set's name), time_steps, snn_accuracy, event_rate, samples,
        seconds; of a ``.net`` file also cost (see `spikestrap.Cost`, over the first 256 images).

    Raises:
        SpikestrapError: the file is damaged, no data set fits it, or it says no T.
    """
    start = time.perf_counter()
    net: Network | fixed.Network
    if path.suffix == ".net":
        net = netx.read(path)
        shape = net.layers[0].shape
    elif path.suffix == ".nir":
        net, shape = _read_nir(path)
    else:
        raise SpikestrapError(f"expected the folder of a run, a .net or a .nir file, got {path}")
    steps = net.time_steps if time_steps is None else time_steps
    if steps is None:
        raise SpikestrapError(f"{path}: the file does not say for how many steps: --time-steps T")
    steps = whole_number("time_steps", steps, 1, MAX_TIME_STEPS)
    name = _fitting_data(path, shape)
    test = load(name, data, 0, steps).test
    lead = test.x.shape[: 2 if name in TEMPORAL else 1]
    images = Arrays(test.x.reshape(*lead, *shape), test.y)
    if isinstance(net, fixed.Network):
        with at(path):
            measured = _run_on_chip(net, images, steps)
    else:
        net.time_steps = None if name in TEMPORAL else steps
        measured = _run_as_snn(net, images)
    return {
        "file": str(path),
        "data": name,
        "time_steps": steps,
        **measured,
        "samples": len(test),
        "seconds": {"total": time.perf_counter() - start},
    }


def _read_nir(path: Path) -> tuple[Network, tuple[int, ...]]:
    """The network in a ``.nir`` file, and the shape of one input."""
    graph = nir.read_graph(path)
    with at(path):
        return nir.from_graph(graph), nir.input_shape(graph)


def _run_on_chip(net: fixed.Network, test: Arrays, steps: int) -> dict[str, Any]:
    result = net.run(to_input(test.x), steps)
    right = int((torch.from_numpy(result.logits.argmax(1)) == test.y).sum())
    return {
        "snn_accuracy": 100 * right / len(test),
        "event_rate": result.event_rate,
        "cost": cost(net, to_input(test.x[:_COST_SAMPLES]), steps).to_dict(),
    }


def _run_as_snn(net: Network, test: Arrays) -> dict[str, Any]:
    net.to(default_device())
    with EventRate(net) as rate:
        accuracy = evaluate(net, test, Mode.SNN)
    return {"snn_accuracy": accuracy, "event_rate": rate.value}


def export_run(
    path: Path, kind: str, file: Path | None = None, allow: Collection[str] = ()
) -> dict[str, Any]:
    """Write a run's network as a file for other tools.

    Args:
        path: the run directory.
        kind: ``"net"`` (Lava), ``"nir"``, or ``"onnx"`` (the ANN).
        file: None for ``network.<kind>`` in the run directory.
        allow: for ``"nir"``, what may go into the metadata: ``"reset"``, ``"v_init"``.

    Returns:
        file, format, time_steps, bytes.
    """
    if kind not in EXPORTS:
        raise SpikestrapError(f"--format: expected one of {', '.join(EXPORTS)}, got {kind!r}")
    if allow and kind != "nir":
        raise SpikestrapError(f"--allow: is for --format nir, got {kind!r}")
    run = load_run(path)
    if kind == "net" and run.net.precision != "loihi":
        raise SpikestrapError(
            f"--format net: expected a run on the chip's weights, from train --chip loihi or a "
            f"recipe that ends in -loihi; {path} was trained with precision={run.net.precision!r}"
        )
    target = export_path(path, kind) if file is None else file
    if target.suffix != f".{kind}":
        raise SpikestrapError(f"--out: expected a name that ends in .{kind}, got {target}")
    options = {"allow": allow} if allow else {}
    exchange.save(run.net.eval(), target, input_shape=SHAPES[run.recipe.data], **options)
    return {
        "file": str(target),
        "format": kind,
        "time_steps": run.time_steps,
        "bytes": target.stat().st_size,
    }


def _fitting_data(path: Path, shape: tuple[int, ...]) -> str:
    """The data set whose images a network takes, as they are or flat."""
    for name, images in SHAPES.items():
        if shape in (images, (math.prod(images),)):
            return name
    wanted = ", ".join(f"{images} ({name})" for name, images in SHAPES.items())
    raise SpikestrapError(f"{path}: takes inputs of shape {shape}; expected {wanted}, or flat")
