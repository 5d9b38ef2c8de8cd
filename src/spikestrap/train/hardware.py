"""On what a training runs."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..counts import whole_number
from ..errors import SpikestrapError
from .extras import require

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp")


@dataclass(frozen=True)
class Hardware:
    """On what a training runs; its numbers depend on it in rounding only.

    But for what layers draw, as dropout does, and for torch's own batch norms: both are each
    process's own.

    Attributes:
        devices: processes on this machine, each with a GPU of its own, or all on the CPU.
        nodes: machines with so many each, started there by the same command, as Lightning wants.
        strategy: "auto", or "ddp", one copy of the network a process; for more than one process
            both are the same.
        precision: Lightning's "32-true", "bf16-mixed" or "16-mixed" (with a loss scaler; on GPUs);
            None for that which a training that goes on began with, and else for "32-true".
            Neuron states, statistics and curves are float32 in all of them.

    Raises:
        SpikestrapError: one of them is none of these.
    """

    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            object.__setattr__(self, name, whole_number(f"--{name}", getattr(self, name), 1))
        if self.strategy not in STRATEGIES:
            more = "; docs/scaling.md has sharded training" if "fsdp" in str(self.strategy) else ""
            raise SpikestrapError(
                f"--strategy: expected one of {', '.join(STRATEGIES)}, got {self.strategy!r}{more}"
            )
        if self.precision not in (None, *PRECISIONS):
            hint = "; the chip's numbers are --chip loihi" if self.precision == "loihi" else ""
            known = ", ".join(PRECISIONS)
            raise SpikestrapError(
                f"--precision: expected one of {known}, got {self.precision!r}{hint}"
            )

    @property
    def training_precision(self) -> str:
        """`precision`, or what None stands for where nothing goes on."""
        return self.precision or PRECISIONS[0]

    def going_on(self, precision: str | None) -> Hardware:
        """The same, in the precision that a training began with; None where that is not known.

        Raises:
            SpikestrapError: another one was asked for.
        """
        if precision is not None and self.precision not in (None, precision):
            raise SpikestrapError(
                f"--precision: expected {precision}, in which the training began, or none, "
                f"got {self.precision!r}"
            )
        return replace(self, precision=precision or self.precision)

    def check(self, device: torch.device) -> None:
        """SpikestrapError where the device, on which the network is, or the job cannot do it."""
        if self.precision == "16-mixed" and device.type == "cpu":
            raise SpikestrapError("--precision: 16-mixed needs a GPU; on a CPU take bf16-mixed")
        self.environment()

    def environment(self) -> Any:
        """Lightning's environment in a Slurm job; None elsewhere, where it finds out itself.

        In such a job Lightning would take every task for one of its processes, and at SIGUSR1
        write a checkpoint of its own and have the job start again.

        Raises:
            SpikestrapError: the job has other tasks than there should be processes.
        """
        known = require("lightning.fabric.plugins.environments", "training")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is an srun, which one process does without
            if known.TorchElasticEnvironment.detect() or not known.SLURMEnvironment.detect():
                return None
        tasks, processes = int(os.environ["SLURM_NTASKS"]), self.devices * self.nodes
        if 1 in (tasks, processes):
            return known.LightningEnvironment()  # this process is alone, or starts the others
        got = f"got {self.devices} devices on {self.nodes} nodes"
        if tasks != processes:
            raise SpikestrapError(
                f"--devices: expected a process a task of the Slurm job, {tasks}, {got}"
            )
        try:
            slurm = known.SLURMEnvironment(auto_requeue=False)
            slurm.validate_settings(self.devices, self.nodes)
        except (RuntimeError, ValueError) as error:
            raise SpikestrapError(
                f"--devices: expected as many as the Slurm job has, {got}: {error}"
            ) from error
        # By which `processes.is_first` goes while they are not connected.
        os.environ.setdefault("RANK", str(slurm.global_rank()))
        return slurm

    def trainer_options(self, device: torch.device, unused: bool) -> dict[str, Any]:
        """For `lightning.pytorch.Trainer`.

        device: where the network is. unused: whether it has parameters that some modes do not
        use, as those of neurons, which DDP must then look for.
        """
        from lightning.pytorch.strategies import DDPStrategy

        self.check(device)
        several = self.devices * self.nodes > 1 or self.strategy == "ddp"
        return {
            "accelerator": "gpu" if device.type == "cuda" else device.type,
            "devices": self.devices,
            "num_nodes": self.nodes,
            "strategy": DDPStrategy(find_unused_parameters=unused) if several else "auto",
            "precision": self.training_precision,
        }
