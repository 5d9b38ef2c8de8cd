"""How loss and accuracy of training, validation and test went, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SpikestrapError
from ..files import read_file, write_file

_MAX_BYTES = 10**8


class LearningStat:
    """Sums of one epoch, and the loss and accuracy of those before.

    A script adds to `loss_sum`, `num_samples`, and, if it classifies, to `correct_samples`;
    `update` closes the epoch, `reset` opens the next. `best_loss` and `best_accuracy` tell
    whether the last one closed was the best so far; `min_loss`, `max_accuracy`, `loss_log`,
    `accuracy_log` (None for an epoch without samples, or without any classified).

    >>> stat = LearningStat()
    >>> stat.num_samples, stat.loss_sum, stat.correct_samples = 10, 5.0, 8
    >>> stat.loss, stat.accuracy
    (0.5, 0.8)
    >>> stat.update(); stat.reset()
    >>> stat.best_accuracy, stat.max_accuracy, stat.loss
    (True, 0.8, None)
    """

    def __init__(
        self,
        loss_str: str = "loss",
        loss_unit: str = "",
        accuracy_str: str = "accuracy",
        accuracy_unit: str = "",
    ) -> None:
        self.loss_str, self.loss_unit = loss_str, loss_unit
        self.accuracy_str, self.accuracy_unit = accuracy_str, accuracy_unit
        self.loss_log: list[float | None] = []
        self.accuracy_log: list[float | None] = []
        self.min_loss: float | None = None
        self.max_accuracy: float | None = None
        self.best_loss = self.best_accuracy = False
        self.reset()

    def reset(self) -> None:
        """Sets the sums to zero."""
        self.loss_sum: float = 0
        self.num_samples: int = 0
        self._correct: float | None = None

    @property
    def correct_samples(self) -> float:
        """How many of this epoch's samples were right, as the script counts."""
        return 0 if self._correct is None else self._correct

    @correct_samples.setter
    def correct_samples(self, count: float) -> None:
        self._correct = count

    @property
    def loss(self) -> float | None:
        """Mean loss of this epoch's samples; None without any."""
        return self.loss_sum / self.num_samples if self.num_samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of this epoch's samples that were right; None without any, or if none counted."""
        if self._correct is None or not self.num_samples:
            return None
        return self._correct / self.num_samples

    @property
    def valid_loss_log(self) -> bool:
        """Whether any epoch had samples."""
        return any(loss is not None for loss in self.loss_log)

    @property
    def valid_accuracy_log(self) -> bool:
        """Whether any epoch had samples that were classified."""
        return any(accuracy is not None for accuracy in self.accuracy_log)

    def update(self) -> None:
        """Logs this epoch. One without samples is never the best."""
        self._log(self.loss, self.accuracy)

    def _log(self, loss: float | None, accuracy: float | None) -> None:
        self.loss_log.append(loss)
        self.accuracy_log.append(accuracy)
        best = math.inf if self.min_loss is None else self.min_loss
        self.best_loss = loss is not None and loss < best
        if self.best_loss:
            self.min_loss = loss
        most = -math.inf if self.max_accuracy is None else self.max_accuracy
        self.best_accuracy = accuracy is not None and accuracy > most
        if self.best_accuracy:
            self.max_accuracy = accuracy

    def __str__(self) -> str:
        """One line; empty without samples.

        >>> stat = LearningStat()
        >>> stat.num_samples, stat.loss_sum, stat.correct_samples = 10, 5.0, 8
        >>> print(stat)
        loss =     0.50000                        accuracy = 0.80000
        """
        if self.loss is None:
            return ""
        least, most = self.min_loss, self.max_accuracy
        texts: tuple[str, ...] = (
            f"{self.loss_str} = {self.loss:11.5f}",
            " " * 20 if least is None else f" (min = {least:11.5f})",
            f" {self.loss_unit}".rstrip(),
        )
        if self.accuracy is None:
            return "".join(texts).rstrip()
        texts += (
            f"    {self.accuracy_str} = {self.accuracy:7.5f}",
            "" if most is None else f" (max = {most:7.5f})",
            f" {self.accuracy_unit}".rstrip(),
        )
        return "".join(texts)


class LearningStats:
    """`training`, `validation` and `testing`, a `LearningStat` each.

    >>> stats = LearningStats()
    >>> stats.training.num_samples, stats.training.correct_samples = 4, 3
    >>> stats.update()
    >>> stats.training.accuracy_log, stats.testing.accuracy_log
    ([0.75], [None])
    """

    def __init__(
        self,
        loss_str: str = "loss",
        loss_unit: str = "",
        accuracy_str: str = "accuracy",
        accuracy_unit: str = "",
    ) -> None:
        texts = (loss_str, loss_unit, accuracy_str, accuracy_unit)
        self.training, self.validation, self.testing = (LearningStat(*texts) for _ in range(3))
        self.lines_printed = 0

    @property
    def _named(self) -> dict[str, LearningStat]:
        return {"Train": self.training, "Valid": self.validation, "Test": self.testing}

    def update(self) -> None:
        """Closes the epoch of all three and opens the next."""
        for stat in self._named.values():
            stat.update()
            stat.reset()

    def new_line(self) -> None:
        """The next `print` leaves what stands on the screen."""
        self.lines_printed = 0

    def __str__(self) -> str:
        return " | ".join(f"{name:5} {stat}" for name, stat in self._named.items() if str(stat))

    def print(
        self,
        epoch: int,
        iter: int | None = None,
        time_elapsed: float | None = None,
        header: Sequence[object] | None = None,
        dataloader: Any = None,
    ) -> None:
        """Prints the statistics over those that it printed before.

        iter: iteration, with dataloader as a share of it. time_elapsed: seconds. header: lines
        to print first.
        """
        where = f"Epoch {epoch:4d}"
        if iter is not None and dataloader is not None:
            done, total = iter * dataloader.batch_size, len(dataloader.dataset)
            where += f": {done:{len(str(total))}}/{total} ({100 * iter / len(dataloader):.0f}%)"
        elif iter is not None:
            where += f": i = {iter:5d}"
        if time_elapsed is not None:
            where += f", {1000 * time_elapsed:12.4f} ms elapsed"
        lines = [*map(str, header or ()), where, *str(self).split(" | ")]
        up = f"\033[{self.lines_printed}A" if self.lines_printed else ""
        print(up + "\n".join(f"\033[2K{line}" for line in lines))
        self.lines_printed = len(lines)

    def plot(
        self,
        figures: tuple[int, int] = (1, 2),
        figsize: tuple[float, float] | None = None,
        path: str | Path | None = None,
    ) -> None:
        """Draws loss and accuracy into these two figures of pyplot; path: a folder to save to."""
        import matplotlib.pyplot as plt

        for figure, (name, unit, logs) in zip(figures, self._logs(), strict=True):
            shown = plt.figure(figure)
            if figsize is not None:
                shown.set_size_inches(figsize)
            plt.cla()
            draw = plt.semilogy if name == self.training.loss_str else plt.plot
            lines = {label: log for label, log in logs.items() if any(v is not None for v in log)}
            for label, log in lines.items():
                draw([math.nan if value is None else value for value in log], label=label)
            plt.xlabel("Epoch")
            plt.ylabel(f"{name.capitalize()} {unit}".rstrip())
            if lines:
                plt.legend()
            if path is not None:
                plt.savefig(Path(path) / f"{name}.png")

    def save(self, path: str | Path = "") -> None:
        """Writes loss.txt and accuracy.txt, a column for each part, into the folder `path`."""
        for name, _, logs in self._logs():
            rows = zip(*logs.values(), strict=True)
            lines = ["#" + " ".join(f"{label:>12}" for label in logs)[1:]]
            lines += [" ".join(f"{_number(value):12.6f}" for value in row) for row in rows]
            write_file(Path(path) / f"{name}.txt", ("\n".join(lines) + "\n").encode())

    def load(self, path: str | Path = "") -> None:
        """Takes over the logs that `save` wrote into the folder `path`."""
        columns: dict[str, list[list[float | None]]] = {}
        for name in (self.training.loss_str, self.training.accuracy_str):
            for label, log in _read(Path(path) / f"{name}.txt", set(self._named)).items():
                columns.setdefault(label, []).append(log)
        one = self.training
        made = LearningStats(one.loss_str, one.loss_unit, one.accuracy_str, one.accuracy_unit)
        for label, pair in columns.items():
            if len(pair) != 2 or len(pair[0]) != len(pair[1]):
                raise SpikestrapError(f"{path}: expected as many losses as accuracies of {label}")
            for loss, accuracy in zip(*pair, strict=True):
                made._named[label]._log(loss, accuracy)
        length = max((len(stat.loss_log) for stat in made._named.values()), default=0)
        for stat in made._named.values():
            while len(stat.loss_log) < length:
                stat._log(None, None)
        self.__dict__.update(made.__dict__)

    def _logs(self) -> list[tuple[str, str, dict[str, list[float | None]]]]:
        """Name, unit, and for each part that had samples the log: of the loss, the accuracy."""
        used = {name: stat for name, stat in self._named.items() if stat.valid_loss_log}
        one = self.training
        return [
            (one.loss_str, one.loss_unit, {n: s.loss_log for n, s in used.items()}),
            (one.accuracy_str, one.accuracy_unit, {n: s.accuracy_log for n, s in used.items()}),
        ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _read(path: Path, known: set[str]) -> dict[str, list[float | None]]:
    content = read_file(path, _MAX_BYTES)
    try:
        head, *lines = content.decode().splitlines() or [""]
        rows = [[float(word) for word in line.split()] for line in lines]
    except ValueError as error:
        raise SpikestrapError(f"{path}: expected columns of numbers: {error}") from error
    labels = head.removeprefix("#").split()
    if not set(labels) <= known or any(len(row) != len(labels) for row in rows):
        raise SpikestrapError(f"{path}: expected a column of numbers for each of {sorted(known)}")
    columns = zip(*rows, strict=True) if rows else [()] * len(labels)
    return {
        label: [None if math.isnan(value) else value for value in column]
        for label, column in zip(labels, columns, strict=True)
    }
