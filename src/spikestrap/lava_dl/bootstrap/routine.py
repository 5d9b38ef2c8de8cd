"""lava.lib.dl.bootstrap.routine: modes and their schedule."""

from __future__ import annotations

from collections.abc import Iterable

from ... import routine
from ...routine import Mode, mode
from ..stats import LearningStat

__all__ = ["LayerMode", "Mode", "Scheduler", "mode"]


class LayerMode(routine.LayerMode):
    """`spikestrap.LayerMode` with lava-dl's order of arguments and text.

    >>> print(LayerMode(crossover=1, base_mode=Mode.ANN))
    Mode: ANN, SNN below unit 1
    """

    def __init__(self, crossover: int, base_mode: Mode) -> None:
        super().__init__(base_mode, crossover)

    def __str__(self) -> str:
        return f"Mode: {super().__str__()}"


class Scheduler:
    """`spikestrap.Scheduler` and, as lava-dl's, a record of how the SNN did.

    The modes depend on epoch and iteration alone; validation (train=False) is SNN at every
    epoch.

    >>> scheduler = Scheduler(num_sample_iter=2, sample_period=5)
    >>> [scheduler.mode(0, i, True).base_mode.name for i in range(4)]
    ['SAMPLE', 'SAMPLE', 'FIT', 'ANN']
    """

    def __init__(
        self,
        num_sample_iter: int = 10,
        sample_period: int = 10,
        crossover_epochs: Iterable[int] | None = None,
    ) -> None:
        self.schedule = routine.Scheduler(num_sample_iter, sample_period, crossover_epochs)
        self.snn_stat = LearningStat()

    def mode(self, epoch: int, iteration: int, train: bool = True) -> LayerMode:
        """The modes at this iteration of this epoch, both counted from 0."""
        modes = self.schedule.mode(epoch, iteration, train)
        return LayerMode(modes.crossover, modes.base_mode)

    def sync_snn_stat(self, stat: LearningStat) -> None:
        """Takes over what `stat` has summed up in this epoch."""
        for name in ("num_samples", "loss_sum", "correct_samples"):
            setattr(self.snn_stat, name, getattr(stat, name))

    def update_snn_stat(self) -> None:
        """Closes the epoch of `snn_stat`."""
        self.snn_stat.update()
        self.snn_stat.reset()
