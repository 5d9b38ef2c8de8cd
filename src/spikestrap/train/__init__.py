"""Ready-made trainings: data, recipes, the loop, evaluation and the run directory.

`BootstrapCallback` and `BootstrapModule` are for a Lightning training of one's own.
"""

from typing import Any

from .allocator import keep_memory
from .augment import RandomCrop, RandomWarp
from .compare import compare
from .data import Arrays, Splits, cifar10, digits, mnist, nmnist
from .evaluate import EventRate, evaluate
from .experiment import evaluate_file, evaluate_run, export_run, resume, train
from .extras import require
from .hardware import Hardware
from .loop import Epoch, History, Progress, fit
from .options import Options
from .recipes import RECIPES, Recipe, recipe
from .run import Run, load_run, save_run

__all__ = [
    "RECIPES",
    "Arrays",
    "BootstrapCallback",
    "BootstrapModule",
    "Checkpoints",
    "Epoch",
    "EventRate",
    "Hardware",
    "History",
    "Options",
    "Progress",
    "RandomCrop",
    "RandomWarp",
    "Recipe",
    "Run",
    "Splits",
    "WholeFiles",
    "cifar10",
    "compare",
    "digits",
    "evaluate",
    "evaluate_file",
    "evaluate_run",
    "export_run",
    "fit",
    "keep_memory",
    "load_run",
    "mnist",
    "nmnist",
    "recipe",
    "resume",
    "save_run",
    "train",
]

# Lightning takes a second to import: only where these are asked for.
_ON_LIGHTNING = {
    "BootstrapCallback": "callback",
    "BootstrapModule": "module",
    "Checkpoints": "checkpoint",
    "WholeFiles": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_LIGHTNING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("lightning.pytorch", name)
    return getattr(require(f"{__name__}.{_ON_LIGHTNING[name]}", name), name)
