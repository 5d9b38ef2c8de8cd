"""Files that other tools read and write, told apart by their ending.

`.net`: Lava's netx (HDF5), for Loihi. `.nir`: the Neuromorphic Intermediate Representation.
`.onnx`: the network as an ANN, written only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import fixed
from ..errors import SpikestrapError
from ..network import Network

READ = (".net", ".nir")
WRITTEN = (*READ, ".onnx")


def save(
    net: Network | fixed.Network,
    path: str | Path,
    *,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> None:
    """Writes a network to a file, whole or not at all; the network stays as it is.

    path: ends in `.net` for Lava (net of precision="loihi", or a `fixed.Network`), in `.nir`
    for NIR, in `.onnx` for ONNX (its ANN, with fitted curves; needs the extra `onnx`).
    input_shape: (C,) or (C, H, W) of one input, where the network does not tell. options: those
    of `exchange.nir.write`. Raises SpikestrapError: the format cannot hold the network, with the
    reason; or the file cannot be written.

    >>> import tempfile, spikestrap as ss
    >>> neuron = dict(threshold=1.0)
    >>> net = ss.Network(ss.block.cuba.Input(neuron), ss.block.cuba.Affine(neuron, 2, 3),
    ...     time_steps=4, precision="loihi")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(net, f"{folder}/network.net")
    ...     load(f"{folder}/network.net").layers[1].weight.shape
    (3, 2)
    """
    path = Path(path)
    kind = _format(path, WRITTEN)
    if not isinstance(net, Network | fixed.Network):
        raise SpikestrapError(
            f"save: expected a Network, or a fixed.Network for .net, got {type(net).__name__}"
        )
    if kind == ".net":
        from . import netx

        _check_options(kind, options)
        chip = net if isinstance(net, fixed.Network) else fixed.from_network(net, input_shape)
        netx.write(chip, path)
        return
    if isinstance(net, fixed.Network):
        raise SpikestrapError(f"expected a spikestrap.Network for {kind}, got a fixed.Network")
    if kind == ".onnx":
        from . import onnx

        _check_options(kind, options)
        onnx.write(net, path, input_shape=input_shape)
        return
    from . import nir

    _check_options(kind, options, nir.write)
    nir.write(net, path, input_shape=input_shape, **options)


def load(path: str | Path, **options: Any) -> Network | fixed.Network:
    """The network in a file: a `fixed.Network` from `.net`, a `Network` from `.nir`.

    options: those of `exchange.nir.read`. Raises SpikestrapError: the file is damaged, or holds
    what cannot be run.
    """
    path = Path(path)
    if _format(path, READ) == ".net":
        from . import netx

        _check_options(".net", options)
        return netx.read(path)
    from .nir import read

    _check_options(".nir", options, read)
    return read(path, **options)


def _format(path: Path, known: tuple[str, ...]) -> str:
    if path.suffix not in known:
        raise SpikestrapError(
            f"{path}: expected a name that ends in {' or '.join(known)}, got {path.suffix!r}"
        )
    return path.suffix


def _check_options(
    kind: str, options: dict[str, Any], function: Callable[..., Any] | None = None
) -> None:
    """Raises for an option that is not among the function's keywords."""
    known = [] if function is None else _keywords(function)
    for option in sorted(options):
        if option not in known:
            hint = f"; expected {', '.join(known)}" if known else ""
            raise SpikestrapError(f"a {kind} file takes no option {option!r}{hint}")


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
