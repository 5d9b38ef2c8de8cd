"""The command line: ``spikestrap train``, ``evaluate``, ``compare``, ``export`` and ``report``.

Results go to standard output, progress and errors to standard error. The exit code is 0, 1 for a
failure, with one line that begins with ``error:``, or 2 for wrong usage.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from . import __version__
from .errors import SpikestrapError

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as missing:
    sys.exit(f"error: the command line needs {missing.name}: pip install 'spikestrap[train]'")

if TYPE_CHECKING:  # what pulls torch in is imported where it is used, so that --help is fast
    from collections.abc import Callable

    from .train import Epoch
    from .train import Progress as Step


def _examples(*lines: str) -> str:
    """The end of a help text. The sign keeps the lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    help="Rate-coded spiking networks with few time steps, trained by bootstrap.",
    epilog=_examples(
        "spikestrap train                        # the bundled digits, half a minute",
        "spikestrap recipes                      # what else can be trained",
        "spikestrap evaluate runs/digits-mlp-T8-s0 --time-steps 4",
        "spikestrap COMMAND --help               # a command's options and examples",
        "spikestrap --install-completion         # TAB completes commands and options",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _path(text: str) -> Path:
    """As given; an empty one, from a variable that is not set, would be the current folder."""
    if not text:
        raise typer.BadParameter("expected a path, got an empty one")
    return Path(text)


Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Directory that `train` wrote.", parser=_path)
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="The data set's files; the digits need none.", parser=_path
    ),
]
TimeSteps = Annotated[
    int | None, typer.Option("--time-steps", metavar="T", help="Time steps of the spiking network.")
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Images a step.")]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", metavar="R", help="The highest; by default the recipe's."),
]
Devices = Annotated[
    int, typer.Option("--devices", metavar="N", help="Processes: GPUs, or all on the CPU.")
]
Nodes = Annotated[
    int, typer.Option("--nodes", metavar="N", help="Machines with so many each; see docs/scaling.")
]
Strategy = Annotated[
    str, typer.Option("--strategy", metavar="S", help="auto, or ddp: a copy of it a process.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="P", help="32-true, bf16-mixed or 16-mixed.  [default: 32-true]"
    ),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", metavar="N", help="Passes over the training images.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", help="Seed of everything random.")]
Json = Annotated[
    bool, typer.Option("--json", help="End standard output with the result as one JSON object.")
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: what follows the program's name; None for the process's own.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _each_once()
        try:
            with _standard_output():
                app(arguments, prog_name="spikestrap")
        except SpikestrapError as error:
            _fail(error)
        except BrokenPipeError:
            sys.exit(1)  # who read it has enough
        except OSError as error:
            why = error.strerror or error
            _fail(f"{error.filename}: {why}" if error.filename else why)


def _fail(message: object) -> NoReturn:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    sys.exit(1)


@contextmanager
def _standard_output() -> Iterator[None]:
    """It takes names that its encoding has no letters for, and what it refuses is an error here.

    Python would find out as it leaves, after the exit code was settled.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            with suppress(OSError):  # what is left in it would fail again
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise SpikestrapError(
                f"standard output: cannot be written: {error.strerror or error}"
            ) from error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"spikestrap {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command(
    epilog=_examples(
        "spikestrap train",
        "spikestrap train digits-cnn --epochs 10 --seed 1 --out runs/try",
        "spikestrap train mnist-mlp --data DIR --time-steps 4",
        "spikestrap train mnist-mlp-loihi --data DIR --json > result.json",
    )
)
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="What to train; see `spikestrap recipes`."),
    ] = None,
    data: Data = None,
    time_steps: TimeSteps = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Passes over the training images. Of fewer than the recipe's, as large a share "
            "trains as an SNN; of more, as many.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop after N validations without a better SNN accuracy."),
    ] = None,
    chip: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="loihi: train on what the chip will hold; or none. A .net file also needs neurons "
            "that reset to zero, as in digits-mlp-loihi and mnist-mlp-loihi.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Seed of everything random.  [default: 0]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run directory.  [default: runs/<recipe>-T<T>-s<seed>]",
            parser=_path,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was cut off, as if it was not.",
            parser=_path,
        ),
    ] = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    precision: Precision = None,
    logger: Annotated[
        str | None, typer.Option(metavar="L", help="tensorboard or csv: log into <run>/logs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe; with nothing given, on scikit-learn's bundled handwritten digits."""
    from . import train as training
    from .processes import is_first

    on = training.Hardware(devices, nodes, strategy, precision)
    what = {
        "recipe": recipe,
        "--time-steps": time_steps,
        "--epochs": epochs,
        "--batch-size": batch_size,
        "--learning-rate": learning_rate,
        "--patience": patience,
        "--chip": chip,
        "--seed": seed,
        "--out": out,
    }
    if resume is not None:
        for name, value in what.items():
            if value is not None:
                raise SpikestrapError(f"--resume: takes {name} from the run, got {value} as well")
    with (
        _stopped("; spikestrap train --resume RUN goes on from its last checkpoint, if any"),
        _progress() as on_progress,
    ):
        if resume is not None:
            result = training.resume(
                resume, data=data, hardware=on, logger=logger, on_progress=on_progress
            )
        else:
            result = training.train(
                recipe or "digits-mlp",
                data=data,
                time_steps=time_steps,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                patience=patience,
                precision=_of_chip(chip),
                seed=seed or 0,
                out=out,
                hardware=on,
                logger=logger,
                on_progress=on_progress,
            )
    if is_first():
        result["report"] = _report_on(Path(result["out"]), data)
    _show(result, as_json, title=f"{result['recipe']}, T = {result['time_steps']}")


def _report_on(run: Path, data: Path | None) -> str | None:
    """Writes the report of a run that is safe already: whatever fails here is only told."""
    from .report import write_report

    try:
        return str(write_report(run, data=data)["file"])
    except Exception as error:
        print(f"warning: no report was written: {_one_line(error)}", file=sys.stderr)
        return None


@app.command(
    epilog=_examples(
        "spikestrap evaluate runs/digits-mlp-T8-s0",
        "spikestrap evaluate runs/digits-mlp-T8-s0 --time-steps 2",
        "spikestrap evaluate network.net --data DIR",
    )
)
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE",
            help="Directory that `train` wrote, .net or .nir file.",
            parser=_path,
        ),
    ],
    data: Data = None,
    time_steps: TimeSteps = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run, a .net or a .nir file on test images, at its own T or another.

    A .net file runs in the integers of the chip, a .nir file in floating point.
    """
    from .train import Hardware, evaluate_file, evaluate_run

    on = Hardware(devices, nodes, strategy, precision)
    if run.is_dir() or not run.suffix:
        result = evaluate_run(run, data=data, time_steps=time_steps, hardware=on)
        _show(result, as_json, title=f"{result['recipe']}, T = {result['time_steps']}")
    else:
        if on != Hardware():
            raise SpikestrapError(
                f"{run}: a file runs in one process: expected no --devices, --nodes, --strategy or "
                "--precision"
            )
        result = evaluate_file(run, data=data, time_steps=time_steps)
        _show(result, as_json, title=f"{run.name}, T = {result['time_steps']}")


@app.command(
    epilog=_examples(
        "spikestrap compare --epochs 20",
        "spikestrap compare mnist-mlp-t4 --data DIR --time-steps 4 --budget 120",
    )
)
def compare(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="What to train; see `spikestrap recipes`.")
    ] = "digits-mlp",
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="ann, bootstrap, hybrid or direct; may be repeated."),
    ] = None,
    data: Data = None,
    time_steps: TimeSteps = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Train each for about so long, not for N epochs."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="[default: runs/compare-<recipe>-T<T>-s<seed>]", parser=_path
        ),
    ] = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Train a recipe's network as ReLU ANN, by bootstrap, hybrid and direct training."""
    from .processes import is_first
    from .train import Hardware
    from .train import compare as compare_recipe
    from .train.compare import METHODS
    from .train.compare_report import COLUMNS, rows

    on = Hardware(devices, nodes, strategy, precision)
    with _stopped(), _progress() as on_progress:
        result = compare_recipe(
            recipe,
            methods=method or METHODS,
            data=data,
            time_steps=time_steps,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            budget=budget,
            seed=seed,
            out=out,
            hardware=on,
            on_progress=lambda method, step: on_progress(step, f"{method}  "),
        )
    if not is_first():
        return
    if as_json:
        print(json.dumps(result))
        return
    table = Table(title=f"{result['recipe']}, T = {result['time_steps']}", title_justify="left")
    for column in COLUMNS:
        is_name = column == "method"
        table.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    for row in rows(result):
        table.add_row(*row)
    Console().print(table)
    print(f"table and plot: {result['out']}")


@app.command(
    epilog=_examples(
        "spikestrap export runs/digits-mlp-loihi-T8-s0",
        "spikestrap export runs/mnist-mlp-loihi-T16-s0 --out mnist.net",
    )
)
def export(
    run: Run,
    kind: Annotated[
        str,
        typer.Option("--format", metavar="F", help="net (Lava), nir, or onnx (the ANN)."),
    ] = "net",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="[default: RUN/network.<format>]", parser=_path),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="reset or v_init, may be repeated: goes into a .nir file's metadata, which other "
            "tools do not read.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's network as a file for other tools."""
    from .train import export_run

    result = export_run(run, kind, out, allow or ())
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{result['file']}: {result['bytes']:,} bytes, T = {result['time_steps']}")


@app.command(
    epilog=_examples(
        "spikestrap report runs/digits-mlp-T8-s0",
        "spikestrap report runs/mnist-mlp-T4-s0 --data DIR --out report.html",
    )
)
def report(
    run: Run,
    data: Data = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate/--no-evaluate", help="Show also what needs the test images."),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: RUN/report.html]", parser=_path)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report: one HTML page that needs nothing else."""
    from .report import write_report

    result = write_report(run, data=data, evaluate=evaluate, out=out)
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{result['file']}: {result['bytes']:,} bytes")


@app.command(epilog=_examples("spikestrap recipes", "spikestrap recipes --json"))
def recipes(as_json: Json = False) -> None:
    """List what can be trained."""
    from .train import RECIPES

    entries = [
        {
            "name": entry.name,
            "summary": entry.summary,
            "data": entry.data,
            "time_steps": entry.time_steps,
            "epochs": entry.options.epochs,
            "batch_size": entry.options.batch_size,
        }
        for entry in RECIPES.values()
    ]
    if as_json:
        print(json.dumps({"recipes": entries}))
        return
    table = Table("recipe", "T", "epochs", "summary", box=None)
    for entry in RECIPES.values():
        table.add_row(entry.name, str(entry.time_steps), str(entry.options.epochs), entry.summary)
    Console().print(table)


def _of_chip(chip: str | None) -> str | None:
    """The precision of the network that a chip means; None for the recipe's own."""
    known = {None: None, "loihi": "loihi", "none": "float"}
    if chip not in known:
        raise SpikestrapError(f"--chip: expected loihi or none, got {chip!r}")
    return known[chip]


def _show(result: Mapping[str, Any], as_json: bool, title: str) -> None:
    from .processes import is_first

    if not is_first():
        return
    if as_json:
        print(json.dumps(result))
        return
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    rows = {
        "SNN test accuracy": f"{result['snn_accuracy']:.2f} %",
        "ANN test accuracy": _or_dash(result.get("ann_accuracy"), " %"),
        "gap": _or_dash(result.get("gap"), " points"),
        "event rate": f"{result['event_rate']:.3f} spikes a neuron and step",
        "seconds": f"{result['seconds']['total']:.1f}",
    }
    if "cost" in result:
        cost = result["cost"]
        rows["synaptic operations"] = f"{cost['synaptic_operations']:,.0f} an image"
        rows["multiplications of the ANN"] = f"{cost['ann_macs']:,.0f} an image"
    where = next(key for key in ("out", "run", "file") if key in result)
    rows[where if where == "file" else "run"] = result[where]
    if result.get("report") is not None:
        rows["report"] = result["report"]
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _or_dash(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f}{unit}"


@contextmanager
def _stopped(hint: str = "") -> Iterator[None]:
    """What is stopped by Ctrl-C or SIGTERM has failed, and says so."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        raise SpikestrapError(f"stopped before its end{hint}") from stop


@contextmanager
def _progress() -> Iterator[Callable[..., None]]:
    """Show a training on standard error: a live bar on a terminal, else one line an epoch.

    Gives what to call with each step and, where there are several trainings, a label.
    """
    from .processes import is_first

    if not is_first():
        yield lambda step, label="": None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_epoch
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("getting ready", total=None)
        accuracy = ""

        def on_progress(step: Step, label: str = "") -> None:
            nonlocal accuracy
            if step.finished is not None:
                accuracy = _accuracies(step.finished) or accuracy
            bar.update(
                task,
                description=f"{label}epoch {step.epoch + 1}/{step.epochs}  {step.mode:<6}  "
                f"loss {step.loss:.4f}{accuracy}",
                completed=step.epoch * step.steps + step.step + 1,
                total=step.epochs * step.steps,
            )

        yield on_progress


def _print_epoch(step: Step, label: str = "") -> None:
    if step.finished is not None:
        line = (
            f"{label}epoch {step.epoch + 1}/{step.epochs}  loss {step.finished.loss:.4f}"
            f"{_accuracies(step.finished)}  {step.finished.seconds:.1f} s"
        )
        print(line, file=sys.stderr, flush=True)


def _accuracies(epoch: Epoch) -> str:
    """The validation accuracies of an epoch, if it has any."""
    pairs = (("SNN", epoch.snn_accuracy), ("ANN", epoch.ann_accuracy))
    return "".join(f"  {name} {value:.2f} %" for name, value in pairs if value is not None)


def _each_once() -> Callable[..., None]:
    """What shows a warning, once: a report reads the data again, and finds the same."""
    told: set[str] = set()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        line = _one_line(message)
        if line not in told:
            told.add(line)
            print(f"warning: {line}", file=sys.stderr)

    return show


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
