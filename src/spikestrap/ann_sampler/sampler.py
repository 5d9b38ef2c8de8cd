"""The transfer curve of a layer: sampled, fitted, and run as an activation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import processes
from ..choices import check_choice
from ..compiling import disable
from ..counts import finite_number, whole_number
from ..errors import NotFittedError, SpikestrapError, at
from ..kernel.curve import curve
from ..kernel.memory import batched, transformed, values_hidden
from ..timeaxis import longest, time_mean
from . import fit as fitting
from .beyond import Respond, pairs_beyond
from .doubts import warn_if_constant, warn_if_falling
from .idle import CHANNELS, slopes_of_idle, wake
from .plot import plot_curve
from .statistics import Statistics

SLOPES = ("smooth", "fit", "rescaled")
SCOPES = ("layer", "channel")
# How much pairs beyond the sampled inputs count, against the sampled ones: these must dominate
# where the slope's ramp goes by the middle half of the inputs, or half of them would not learn.
_BEYOND = 0.1
_OFF_THE_GRID = 1e-5  # far more than the mean of spikes of 0 and 1 is


class AnnSampler(nn.Module):
    """Samples (mean input, rate) of a spiking layer, fits a curve, and is that curve.

    slope: the backward pass's derivative, a choice apart from the curve. On digits (MLP,
        reset by subtraction, validation accuracy of the SNN at T = 2, 4, 16):
        "smooth" (default), that of the curve without its steps: 97.0, 97.5, 97.8 %;
        "fit", the curve's own slope: 87.4, 95.3, 98.0 %;
        "rescaled", lava-dl's, that in units of its mean: 87.2, 94.8, 97.8 %.
        docs/results.md has the spread and the command. With "smooth", channels (axis 1 of rates)
        that were silent, or saturated, in all that was sampled have a small slope at every input.
    rounding: round the curve's output to the rates k / T that T steps can give, straight
        through in the backward pass. Keeps the ANN from using rates that do not exist.
    per: one curve for the "layer", or one a "channel" (axis 1 of rates), `channels` of them; the
        statistics of each take 25 kB.
    memory: share of the old statistics that stays when sampling starts again after a fit.
    cells: resolution of the curve, 4 to 250; up to 64 are fastest.

    Statistics and curve have a fixed size and are saved, loaded, moved and copied with the
    module. The curve is in buffers; the statistics are not, since each process of a
    `torch.distributed` training has its own, which `DistributedDataParallel` must not overwrite.
    They are sums: a fit adds them up over all processes, so that all get the same curve, to the
    bit. So all of them must sample and fit together, with however many samples, also none.
    Raises SpikestrapError for settings out of range.

    >>> import spikestrap as ss
    >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)
    >>> z = 3 * torch.rand(16, 256, 10, generator=torch.Generator().manual_seed(0)) - 1
    >>> sampler = AnnSampler()
    >>> sampler.append(lif(z), z)
    >>> sampler.fit()
    >>> rates = sampler(torch.tensor([[-1.0, 0.5, 1.0]]))      # mean inputs to rates
    >>> bool(rates[0, 0] == 0), bool(0.2 < rates[0, 1] < 0.5)
    (True, True)
    """

    levels: Tensor
    fitted: Tensor
    origin: Tensor
    width: Tensor
    values: Tensor
    slopes: Tensor
    idle_slopes: Tensor
    residual: Tensor

    def __init__(
        self,
        *,
        slope: str = "smooth",
        rounding: bool = True,
        per: str = "layer",
        channels: int | None = None,
        memory: float = 0.0,
        cells: int = 64,
    ) -> None:
        super().__init__()
        check_choice("AnnSampler: slope", slope, SLOPES)
        memory = finite_number("AnnSampler: memory", memory, 0.0, 1.0)
        cells = whole_number("AnnSampler: cells", cells, 4, 250)
        self.slope, self.rounding, self.memory = slope, rounding, memory
        # For messages; whoever holds it may say: where it is in a network, the class of its
        # neurons, and whether these can be told where their membranes start.
        self.name: str | None = None
        self.kind: str | None = None
        self.has_v_init = False
        self.features: tuple[int, ...] = ()  # of what was sampled last
        self._fits = 0  # when last looked at
        self._ragged = False  # whether what is pending is of different lengths
        self._begin(per, channels, cells)

    @torch.inference_mode(False)  # what is made in inference mode cannot be written to later
    def _begin(
        self, per: str, channels: int | None, cells: int, device: torch.device | None = None
    ) -> None:
        """Room for so many curves, of which nothing is known."""
        check_choice("AnnSampler: per", per, SCOPES)
        if per == "channel" and (channels is None or channels < 1):
            raise SpikestrapError(
                f'AnnSampler: per="channel" needs channels, the number of them; got {channels!r}'
            )
        self.per = per
        self.channels = channels if per == "channel" and channels else 1
        # Channels share the memory that one layer's bins may take.
        self.statistics = Statistics(self.channels, fine=5 if per == "layer" else 3)
        # Time steps of the sampled spikes; fits so far.
        for name in ("levels", "fitted"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64, device=device))
        zeros = partial(torch.zeros, dtype=torch.float32, device=device)
        self.register_buffer("origin", zeros(self.channels))
        self.register_buffer("width", zeros(self.channels) + 1)
        self.register_buffer("values", zeros(self.channels, cells + 1))
        self.register_buffer("slopes", zeros(self.channels, cells + 2))
        self.register_buffer("idle_slopes", zeros(CHANNELS))
        self.register_buffer("residual", zeros(self.channels))
        self.count = 0  # pairs sampled since the last fit
        self._pending = False
        self._recall()

    def begin(self, per: str, channels: int | None = None) -> None:
        """Forgets samples and curves, and starts afresh with another number of them.

        Raises SpikestrapError as the constructor does.

        >>> sampler = AnnSampler()
        >>> sampler.begin("channel", 6)
        >>> sampler.append(torch.ones(4, 20, 6), torch.rand(1, 20, 6))
        >>> sampler.channels
        6
        """
        self._begin(per, channels, self.values.shape[1] - 1, self.values.device)

    @property
    def pending(self) -> bool:
        """Whether there are samples that no fit has used, here or in another process.

        Nor those from before a newer curve that came from outside, as an averaged copy gets it.
        """
        if self._pending:
            self._follow()
        return self._pending

    @property
    def time_steps(self) -> int:
        """T of the sampled spikes; 0 before any."""
        self._follow()
        return self._time_steps

    def _recall(self) -> None:
        """Notes what the forward pass asks at every call: no transfer from the device there.

        A truth, as a compiled graph holds for one value of each; the count of fits is for here.
        """
        fits = int(self.fitted)
        if fits > self._fits:
            self.count, self._pending = 0, False
        self._fits, self._is_fitted = fits, fits > 0
        self._time_steps = int(self.levels)
        self._any_idle = bool(self.idle_slopes.any())
        self._seen = self._versions()

    def _follow(self) -> None:
        """Recalls where a buffer was written from outside: a broadcast, an averaged copy."""
        if torch.compiler.is_compiling() or batched(self.levels) or batched(self.fitted):
            return
        if self._seen != self._versions():
            self._recall()

    def _versions(self) -> list[tuple[int, int]]:
        # torch counts the writes to a tensor, but for those made in inference mode; and another
        # may stand in its place, as `torch.func.functional_call` has it.
        buffers = self.levels, self.fitted
        return [(id(b), -1 if b.is_inference() else b._version) for b in buffers]

    @disable
    @torch.no_grad()
    def append(self, a: Tensor, z: Tensor) -> None:
        """Records spikes a (T, N, ...) and their inputs z (T, N, ...), or (1, N, ...) held.

        Both are averaged over time; each entry gives one pair. Other T than before starts
        afresh; sequences of different lengths (see `spikestrap.ragged`) go together, and T is
        that of the longest. Raises SpikestrapError for shapes that do not match, NaN, inf, rates
        outside [0, 1] and, where the curve is rounded to them, others than k / T.
        """
        if a.ndim < 2 or z.shape[1:] != a.shape[1:] or z.shape[0] not in (1, a.shape[0]):
            raise SpikestrapError(
                "AnnSampler: expected spikes a (T, N, ...) and inputs z of the same shape, or "
                f"(1, N, ...); got a {tuple(a.shape)}, z {tuple(z.shape)}"
            )
        end = longest()
        steps = a.shape[0] if end is None else min(end, a.shape[0])
        self.append_means(time_mean(a.float()), time_mean(z.float()), steps)

    @disable
    @torch.no_grad()
    def append_means(self, rate: Tensor, mean: Tensor, time_steps: int) -> None:
        """Records rates and mean inputs (N, ...) over so many steps, as `append` makes them.

        >>> z = torch.linspace(-1, 1, 20).view(2, 1, 10); a = (z > 0).float()
        >>> one, other = AnnSampler(), AnnSampler()
        >>> one.append(a, z); other.append_means(a.mean(0), z.mean(0), time_steps=2)
        >>> torch.equal(one.statistics.pairs, other.statistics.pairs)
        True
        """
        steps = whole_number("AnnSampler: time_steps", time_steps, 1)
        rate, mean = rate.float(), mean.float()
        if rate.ndim < 1 or rate.shape != mean.shape:
            raise SpikestrapError(
                "AnnSampler: expected rates (N, ...) and mean inputs of the same shape; got "
                f"{tuple(rate.shape)} and {tuple(mean.shape)}"
            )
        if self.channels > 1 and (rate.ndim < 2 or rate.shape[1] != self.channels):
            raise SpikestrapError(
                f"AnnSampler: expected (T, N, {self.channels}, ...), one curve a channel; "
                f'got {(steps, *rate.shape)}; per="layer" has one for all'
            )
        if values_hidden():
            raise SpikestrapError(
                "AnnSampler: expected samples outside torch.func's transforms, which keep no "
                "statistics: run Mode.SAMPLE and Mode.FIT before them"
            )
        self.features = tuple(rate.shape[1:])
        self._ragged = longest() is not None
        if rate.numel() == 0:
            if processes.count() > 1:  # others may have samples, and all fit together
                self._resume(steps)
                self._pending = True
            return
        if not bool(torch.isfinite(mean).all()):
            raise SpikestrapError(
                "AnnSampler: the sampled inputs hold NaN or inf; expected finite numbers "
                "(a diverged training, a bad weight, or bad data before this layer)"
            )
        least, most = rate.min().item(), rate.max().item()
        if not (least >= 0 and most <= 1):
            raise SpikestrapError(
                f"AnnSampler: rates must be in [0, 1], got {least:g} to {most:g}: "
                "a transfer curve needs a neuron that fires 0 or 1"
            )
        # Seen in the rates, a T-th of what the spikes are; other lengths have other grids.
        if self.rounding and not self._ragged:
            counts = steps * rate
            off = counts.sub_(counts.round()).abs_().max().item() / steps
            if off > _OFF_THE_GRID:
                raise SpikestrapError(
                    f"AnnSampler: expected rates k / T, T = {steps}, as the curve is rounded to, "
                    f"got one {off:g} off: have the neuron fire 0 or 1, or set rounding=False"
                )
        self._resume(steps)
        self.statistics.add(mean, rate)
        self.count += rate.numel()
        self._pending = True

    @torch.no_grad()
    def merge(self, other: AnnSampler) -> None:
        """Adds the statistics of another sampler of the same form, as if sampled here.

        >>> z = torch.linspace(-1, 1, 20).view(2, 1, 10); a = (z > 0).float()
        >>> whole, left, right = AnnSampler(), AnnSampler(), AnnSampler()
        >>> whole.append(a, z)
        >>> left.append(a[..., :5], z[..., :5]); right.append(a[..., 5:], z[..., 5:])
        >>> left.merge(right); torch.allclose(left.statistics.pairs, whole.statistics.pairs)
        True
        """
        forms = [tuple(sampler.statistics.pairs.shape) for sampler in (self, other)]
        if forms[0] != forms[1] or (
            self.time_steps and other.time_steps and self.time_steps != other.time_steps
        ):
            raise SpikestrapError(
                "AnnSampler: only statistics of the same form and T can be merged; got "
                f"{forms[1]}, T = {other._time_steps}, into {forms[0]}, T = {self._time_steps}"
            )
        if not other.statistics.pairs.any():
            return
        self._resume(other._time_steps)
        self.statistics.merge(other.statistics)
        # All of it is new here, also what the other one fitted: it counts until a fit here.
        self.count += max(1, other.statistics.total)
        self._pending = True

    def _resume(self, time_steps: int) -> None:
        """Before new samples: forgets what is of another T, or fades what was fitted."""
        if not self.pending:
            # After a fit every process holds the sums of all: each keeps its share of them.
            self.statistics.fade(self.memory / processes.count())
        if self._ragged and (self.pending or self.memory):
            time_steps = max(time_steps, self.time_steps)
        elif self.time_steps != time_steps:
            self.clear()
        if self.time_steps != time_steps:
            self.levels.fill_(time_steps)
            self._recall()

    def clear(self) -> None:
        """Forgets what was sampled; the curve stays."""
        self.statistics.clear()
        self.count = 0
        self._pending = False

    def _gather(self) -> None:
        """Adds up what all processes sampled since the last fit; each then holds the sums."""
        if processes.count() == 1:
            return
        steps = self.time_steps if self.pending else 0
        # The largest and the smallest T of those that sampled; lengths may differ.
        anything = torch.iinfo(torch.int64).max
        ends = torch.tensor([steps, -(anything if self._ragged else steps or anything)])
        most, least = processes.largest(ends.to(self.levels.device)).tolist()
        if most == 0:
            return  # nothing new anywhere: all hold the same sums already
        if -least not in (most, anything):
            raise SpikestrapError(
                "AnnSampler: expected samples of one T in all processes, got "
                f"T = {-least} to {most}"
            )
        self._ragged = -least == anything
        self._resume(most)  # for one without samples, or with shorter ones
        count = torch.tensor(self.count, device=self.levels.device)
        self.statistics.add_up(self.levels.device)
        self.count = int(processes.add_up(count))
        self._pending = True

    @disable
    @torch.inference_mode(False)  # what is made in inference mode cannot be trained with
    @torch.no_grad()
    def fit(self, respond: Respond | None = None) -> None:
        """Fits the curve to what was sampled. The statistics stay until sampling resumes.

        respond: the neuron's rates (N, ...) for inputs (N, ...) that are held for so many steps,
            ``respond(z, time_steps)``. Asked only where the layer never spiked or always did: then
            the curve is fitted also to what the neuron does at stronger inputs, and is not flat;
            its slope is the smooth one, as the others are 0 wherever anything was sampled.
        With several processes all must call it: they fit what all of them sampled.
        Warns where a layer never spikes or always does, and where its rates fall as the mean
        input rises. Raises NotFittedError where nothing was sampled.
        """
        self._gather()
        if not self._time_steps or not bool(self.statistics.pairs[:, 0].any()):
            raise NotFittedError(
                "nothing to fit: no samples; run some batches in Mode.SAMPLE first"
            )
        sums = self.statistics.pairs.cpu().numpy()
        silent = np.flatnonzero(sums[:, 0].sum(-1) == 0)
        beyond = self._beyond(sums, respond)

        def seen(sums: np.ndarray, channel: int) -> np.ndarray:
            # A channel of which nothing was seen behaves like the layer.
            of: np.ndarray = sums.sum(0) if channel in silent else sums[channel]
            return of

        fits = [
            fitting.fit_curve(
                seen(sums if beyond is None else sums + beyond, channel),
                self.values.shape[1] - 1,
                self._time_steps,
            )
            for channel in range(self.channels)
        ]
        if beyond is not None:
            fits = [
                fit._replace(residual=fitting.residual(fit, seen(sums, channel)))
                for channel, fit in enumerate(fits)
            ]
        # New tensors, not the old ones written over: a graph may still need those.
        self.origin = self._tensor([fit.origin for fit in fits])
        self.width = self._tensor([fit.width for fit in fits])
        self.values = self._tensor([fit.values for fit in fits])
        # Other slopes are 0 where the curve is flat: with pairs beyond, wherever it was sampled.
        smooth = beyond is not None or self.slope == "smooth"
        self.slopes = self._tensor([self._slopes(fit, smooth) for fit in fits])
        self.residual = self._tensor([fit.residual for fit in fits])
        self.idle_slopes = self._tensor(self._idle_slopes(fits, smooth))
        self.count, self._pending = 0, False
        self.fitted += 1
        self._recall()
        if processes.rank() == 0:
            layer = self._layer()
            warn_if_constant(sums.sum(0), layer, self._time_steps, self.has_v_init)
            warn_if_falling(sums, layer, self.per)

    def _tensor(self, rows: Any) -> Tensor:
        """On the device, and the same in all processes, also where their CPUs round otherwise."""
        tensor = torch.from_numpy(np.array(rows, np.float32)).to(self.values.device)
        return processes.copy_of_first(tensor)

    def _beyond(self, sums: np.ndarray, respond: Respond | None) -> np.ndarray | None:
        """Where all rates are 0, or all 1, sums of pairs that are not; each channel's count alike.

        None where they are not needed, or not to be had.
        """
        count, z, a, _ = sums.sum(0)
        if respond is None or 0 < a.sum() < count.sum() or 0 in self.features or values_hidden():
            return None
        largest = float(np.abs(z[count > 0] / count[count > 0]).max())
        pairs = pairs_beyond(
            respond,
            self._time_steps,
            self.features or (self.channels,),
            largest,
            channels=self.channels,
            device=self.levels.device,
        )
        if pairs is None:
            return None
        statistics = Statistics(self.channels, self.statistics.fine)
        statistics.add(*pairs)
        beyond: np.ndarray = statistics.pairs.cpu().numpy()
        share = _BEYOND * sums[:, 0].sum(-1) / beyond[:, 0].sum(-1)
        return beyond * share[:, None, None]

    def _slopes(self, fit: fitting.Fit, smooth: bool) -> fitting.Array:
        if fitting.is_constant(fit):
            return fitting.escape_slopes(fit)
        if smooth:
            return fitting.smooth_slopes(fit)
        return fitting.fit_slopes(fit) if self.slope == "fit" else fitting.rescaled_slopes(fit)

    def _idle_slopes(self, fits: list[fitting.Fit], smooth: bool) -> fitting.Array:
        if not smooth:
            return np.zeros(CHANNELS)
        slopes = np.array([fitting.idle_slope(fit) for fit in fits])
        return slopes_of_idle(self.statistics.changes.cpu().numpy(), slopes)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves with its module, but keeps its precision when that is cast."""

        def move(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.statistics.replace(move)
        return super()._apply(move, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """What was sampled as well, though it is in no buffers."""
        self._follow()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self.statistics.state().items():
            destination[prefix + name] = tensor
        destination[prefix + "count"] = torch.tensor(self.count)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        missing, _, errors = lists
        # States of before know of no idle channels, or have two slopes a cell.
        state_dict.setdefault(prefix + "changes", torch.zeros_like(self.statistics.changes))
        if prefix + "slopes" in state_dict:
            state_dict.setdefault(prefix + "idle_slopes", torch.zeros_like(self.idle_slopes))
            if state_dict[prefix + "slopes"].ndim == 3:
                state_dict[prefix + "slopes"] = state_dict[prefix + "slopes"].amin(1)
        own = {}
        expected = {**self.statistics.state(), "count": torch.tensor(self.count)}
        for name, like in expected.items():
            tensor = state_dict.pop(prefix + name, None)
            if tensor is not None and tensor.shape == like.shape:
                own[name] = tensor
            elif tensor is not None:
                shape, got = tuple(like.shape), tuple(tensor.shape)
                errors.append(f"{prefix}{name}: expected {shape}, got {got}")
            elif strict:
                missing.append(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
        self._recall()
        if len(own) == len(expected):
            with torch.inference_mode(False):  # whatever was loaded, and in whatever mode
                self.statistics.load(own)
            self.count = int(own["count"])
            self._pending = self.count > 0
        elif self._is_fitted and prefix + "fitted" in state_dict:  # a curve alone, newer than they
            self.count, self._pending = 0, False

    def _layer(self) -> str:
        if self.name:
            return f"layer {self.name!r}"
        size = " x ".join(map(str, self.features))
        return " ".join(filter(None, ("a layer of", size, self.kind, "neurons")))

    def forward(self, z: Tensor) -> Tensor:
        """Rates (N, ...) for mean inputs z (N, ...), in z's dtype.

        Raises NotFittedError before any fit.
        """
        self._follow()
        if not self._is_fitted:
            raise NotFittedError(
                "ANN mode before any fit: run some batches in Mode.SAMPLE, then one in Mode.FIT"
            )
        if self.channels > 1 and (z.ndim < 2 or z.shape[1] != self.channels):
            raise SpikestrapError(
                f"AnnSampler: expected mean inputs (N, {self.channels}, ...), one curve a "
                f"channel; got {tuple(z.shape)}"
            )
        levels: int | Tensor = self._time_steps
        if not self.rounding:
            levels = 0
        elif batched(self.levels):  # networks side by side
            levels = self.levels
        inputs = z.float()
        rates = curve(inputs, self.origin, self.width, self.values, self.slopes, levels)
        if self._may_be_idle() and (
            transformed() or (inputs.requires_grad and rates.requires_grad)
        ):
            rates = wake(rates, inputs, self.idle_slopes)
        return rates.to(z.dtype)

    def _may_be_idle(self) -> bool:
        """Whether a channel is; also where asking would compile anew, and of many networks."""
        return torch.compiler.is_compiling() or batched(self.idle_slopes) or self._any_idle

    def plot(self, ax: Any = None, channel: int = 0) -> Any:
        """Draws the sampled bins and the curve; returns the matplotlib axes."""
        return plot_curve(
            self.statistics.pairs[channel].cpu().numpy(),
            float(self.origin[channel]),
            float(self.width[channel]),
            self.values[channel].cpu().numpy(),
            self._is_fitted,
            ax,
        )

    def extra_repr(self) -> str:
        return f"slope={self.slope!r}, rounding={self.rounding}, per={self.per!r}"


def sampler_of(settings: Mapping[str, Any] | None, where: str, **defaults: Any) -> AnnSampler:
    """A sampler with a user's settings, and the defaults where they say nothing.

    >>> sampler_of({"cells": 32}, "Dense", rounding=False)
    AnnSampler(slope='smooth', rounding=False, per='layer')
    >>> sampler_of({"cell": 32}, "Dense")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: Dense: sampler: AnnSampler.__init__() got an unexpected \
keyword argument 'cell'
    """
    with at(f"{where}: sampler"):
        if not isinstance(settings, Mapping | None):
            raise SpikestrapError(
                f"expected a dict of settings of AnnSampler, got {settings!r:.80}"
            )
        try:
            return AnnSampler(**{**defaults, **(settings or {})})
        except TypeError as error:
            raise SpikestrapError(str(error)) from None
