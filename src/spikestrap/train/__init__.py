"""Ready-made trainings: data, recipes, the loop, evaluation and the run directory."""

from .augment import RandomAffine
from .data import Arrays, Splits, digits, mnist
from .evaluate import EventRate, evaluate
from .experiment import evaluate_file, evaluate_run, export_run, train
from .loop import Epoch, History, Progress, fit
from .options import Options
from .recipes import RECIPES, Recipe, recipe
from .run import Run, load_run, save_run

__all__ = [
    "RECIPES",
    "Arrays",
    "Epoch",
    "EventRate",
    "History",
    "Options",
    "Progress",
    "RandomAffine",
    "Recipe",
    "Run",
    "Splits",
    "digits",
    "evaluate",
    "evaluate_file",
    "evaluate_run",
    "export_run",
    "fit",
    "load_run",
    "mnist",
    "recipe",
    "save_run",
    "train",
]
