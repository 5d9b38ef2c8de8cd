"""The run directory: what a training leaves behind, and how it is read again.

``config.json`` says what was trained and how, ``history.json`` what each epoch gave,
``curves.json`` the curves that were fitted on the way, ``best.pt`` holds the weights and curves,
``result.json`` the final numbers, ``report.html`` shows it; ``last.ckpt`` and ``previous.ckpt`` are
what a training that is cut off goes on from.
"""

from __future__ import annotations

import io
import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..counts import whole_number
from ..errors import SpikestrapError, at
from ..files import read_weights, write_file
from ..network import Network
from .hardware import PRECISIONS
from .loop import History
from .options import Options
from .recipes import MAX_TIME_STEPS, Recipe, recipe

CONFIG, HISTORY, WEIGHTS, RESULT = "config.json", "history.json", "best.pt", "result.json"
CURVES, REPORT = "curves.json", "report.html"
NEWEST, BEFORE = "last.ckpt", "previous.ckpt"
LOGS = "logs"
EXPORTS = ("net", "nir", "onnx")
# What Lightning's loggers write.
_LOGGED = ("events.out.tfevents.*", "metrics.csv", "hparams.yaml")
# The options that a run may have other than its recipe.
OWN_OPTIONS = ("epochs", "batch_size", "learning_rate", "patience")
_MAX_JSON = 16 * 2**20  # bytes; a history of 100,000 epochs fits


@dataclass(frozen=True)
class Run:
    """A run as read from its directory.

    Attributes:
        path: the directory.
        recipe, options, time_steps, seed: what was trained, and how.
        data: the folder of the data set, None for the bundled or downloaded one.
        net: the trained network, at ``time_steps``.
        training_precision: see `Hardware`; None where the run does not say.
        config: all of ``config.json``, where it was read from there.
    """

    path: Path
    recipe: Recipe
    options: Options
    time_steps: int
    seed: int
    data: Path | None
    net: Network
    training_precision: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def run_name(recipe: str, time_steps: int, seed: int) -> str:
    """What the folder of a training is called by default."""
    return f"{recipe}-T{time_steps}-s{seed}"


def prepare_run(path: Path) -> Path:
    """Make the run directory, and make sure that it can be written before any work is done.

    Raises:
        SpikestrapError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise SpikestrapError(
            f"--out: expected a folder that can be written, got {path} ({error.strerror or error})"
        ) from error
    return path


def clear_run(path: Path) -> None:
    """Take away what an earlier run left in the folder, and nothing else.

    Otherwise a training that is cut off would leave its own config beside another one's weights.

    Raises:
        SpikestrapError: the folder holds a file of such a name that no run wrote.
    """
    names = (CONFIG, RESULT, REPORT, WEIGHTS, HISTORY, CURVES, NEWEST, BEFORE)
    found = [path / name for name in names if (path / name).exists()]
    if found and not _is_config(path / CONFIG):
        raise SpikestrapError(
            f"--out: expected a new folder or that of a run, got {path}, whose {found[0].name} is "
            "no run's"
        )
    if found:
        found += [file for kind in EXPORTS if (file := export_path(path, kind)).exists()]
        for folder in (path / LOGS, *(path / LOGS).glob("resumed-*")):
            found += [file for name in _LOGGED for file in folder.glob(name)]
    for file in found:
        if file.name != CONFIG:  # the next one replaces it
            file.unlink()


def export_path(path: Path, kind: str) -> Path:
    """Where a run's network is exported to by default: ``network.<kind>``."""
    return path / f"network.{kind}"


def _is_config(path: Path) -> bool:
    try:
        return {"recipe", "options"} <= set(read_json(path))
    except SpikestrapError:
        return False


def save_run(
    path: Path,
    made_by: Recipe,
    options: Options,
    time_steps: int,
    seed: int,
    data: Path | None,
    net: Network,
    history: History,
    result: Mapping[str, Any],
    *,
    training_precision: str | None = None,
) -> None:
    """Write a run; a file of an earlier one is replaced, never left half new and half old."""
    save_config(
        path, made_by, options, time_steps, seed, data, net, training_precision=training_precision
    )
    weights = io.BytesIO()
    torch.save(net.state_dict(), weights)
    epochs = history.as_dict()
    # Long rows of numbers, which are no reading matter: a file and a line of their own.
    curves = {"curves": epochs.pop("curves")}
    write_file(path / HISTORY, _json(epochs))
    write_file(path / CURVES, json.dumps(curves).encode())
    write_file(path / WEIGHTS, weights.getvalue())
    write_file(path / RESULT, _json(dict(result)))


def save_config(
    path: Path,
    made_by: Recipe,
    options: Options,
    time_steps: int,
    seed: int,
    data: Path | None,
    net: Network,
    *,
    training_precision: str | None = None,
) -> None:
    """Write what is trained and how; all that a training which was cut off needs to go on."""
    config = {
        "recipe": made_by.name,
        "time_steps": time_steps,
        "precision": net.precision,
        "training_precision": training_precision,
        "seed": seed,
        "data": None if data is None else str(data.resolve()),
        "options": asdict(options),
        "parameters": count_parameters(net),
        "versions": {
            "spikestrap": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    write_file(path / CONFIG, _json(config))


def load_run(path: Path) -> Run:
    """Read a run and rebuild its network, weights and curves included.

    The directory may come from anywhere: sizes are checked before they are believed, and weights
    are read as tensors only.

    Raises:
        SpikestrapError: a file is missing, or is not what ``save_run`` writes.
    """
    run = load_config(path)
    weights_path = path / WEIGHTS
    if not weights_path.exists() and ((path / NEWEST).exists() or (path / BEFORE).exists()):
        raise SpikestrapError(f"{path}: the training was cut off: spikestrap train --resume {path}")
    state = read_weights(weights_path, 2 * _size(run.net.state_dict()) + 2**20)
    with at(weights_path):
        _check_state(state, run.net.state_dict())
    run.net.load_state_dict(state)
    return run


def load_config(path: Path) -> Run:
    """Read what a run trains and how, also of one that was cut off; the network is a new one.

    Raises:
        SpikestrapError: there is no such file, or it is not what ``save_config`` writes.
    """
    if not path.is_dir():
        raise SpikestrapError(f"run: expected the folder of a run, got {path}")
    config_path = path / CONFIG
    config = read_json(config_path)
    with at(config_path):
        made_by = recipe(_text(config, "recipe"))
        time_steps = whole_number("time_steps", config.get("time_steps"), 1, MAX_TIME_STEPS)
        seed = whole_number("seed", config.get("seed"), 0)
        data = None if config.get("data") is None else Path(_text(config, "data"))
        precision = _text({"precision": made_by.precision, **config}, "precision")
        training_precision = config.get("training_precision")
        if training_precision not in (None, *PRECISIONS):
            raise SpikestrapError(
                f"training_precision: expected one of {', '.join(PRECISIONS)}, "
                f"got {training_precision!r}"
            )
        given = config.get("options")
        if not isinstance(given, dict):
            raise SpikestrapError(f"options: expected an object, got {given!r}")
        known = (*OWN_OPTIONS, "snn_epochs")  # which follows from the epochs
        options = replace(made_by.options, **{key: given[key] for key in known if key in given})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the weights that the training began with
            net = made_by.network(time_steps, precision)
    return Run(path, made_by, options, time_steps, seed, data, net, training_precision, config)


def count_parameters(net: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Raises:
        SpikestrapError: it cannot be read, is too large, or is no JSON object.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_JSON + 1)
        value = json.loads(text) if len(text) <= _MAX_JSON else None
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SpikestrapError(f"{path}: expected JSON, got: {error}") from error
    if not isinstance(value, dict):
        raise SpikestrapError(f"{path}: expected a JSON object of at most {_MAX_JSON} bytes")
    return value


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise SpikestrapError(f"{key}: expected a text, got {value!r}")
    return value


def _check_state(state: Mapping[Any, Any], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        got = state.get(name)
        if not isinstance(got, Tensor):
            raise SpikestrapError(f"expected a tensor {name!r}, found none")
        if got.shape != tensor.shape or got.dtype != tensor.dtype:
            raise SpikestrapError(
                f"{name}: expected {tensor.dtype} {tuple(tensor.shape)}, "
                f"got {got.dtype} {tuple(got.shape)}"
            )
        if got.is_floating_point() and got.isnan().any():
            raise SpikestrapError(f"{name}: expected numbers, got NaN")
    if unknown := set(state) - set(expected):
        raise SpikestrapError(
            f"{min(map(str, unknown))!r}: the recipe's network has no such tensor"
        )


def _size(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
