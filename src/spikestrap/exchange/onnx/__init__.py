"""The network as an ANN in ONNX: inputs to logits, the curves as table look-ups.

What is written is ANN mode: no time, no spikes, every unit its fitted transfer curve. It runs
wherever ONNX does. Needs the package `onnx`, the extra of that name.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import SpikestrapError
from ...files import write_file
from ...network import Network, refuse_own_forward
from .. import writing
from .check import check
from .nodes import Graph, build

__all__ = ["write"]

_MAX_BYTES = 2**31 - 1  # protobuf's own limit


@writing.plainly()
def write(
    net: Network, path: str | os.PathLike[str], *, input_shape: Sequence[int] | None = None
) -> None:
    """Writes the network in ANN mode, evaluation, as an ONNX file: `input` to `logits`.

    Both are float32 with a free batch axis: (N, C) or (N, C, H, W) to (N, out). Rates are
    rounded to k / T where the curve rounds; at precision="loihi" weights are the chip's.
    input_shape: one input, where the first block does not say it. Samples that no fit has used
    are fitted for the file, as in ANN mode; the network stays as it is.

    The file is run by onnx's reference beside the network, block by block, before it is
    written; if they differ, SpikestrapError is raised and no file is left. So it is without the
    package onnx, for blocks that are not the package's, and, as NotFittedError, before any fit.

    >>> import tempfile, torch, spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.1)
    >>> dense, readout = ss.block.lif.Dense(neuron, 64, 32), ss.block.lif.Affine(neuron, 32, 10)
    >>> net = ss.Network(dense, readout, time_steps=8)
    >>> _ = net(4 * torch.rand(16, 64), ss.Mode.SAMPLE)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(net, f"{folder}/net.onnx")
    ...     Path(f"{folder}/net.onnx").is_file()
    True
    """
    onnx = _package()
    if not isinstance(net, Network):
        raise SpikestrapError(f"ONNX: expected a Network, got {type(net).__name__}")
    refuse_own_forward(net, "ONNX")
    model = copy.deepcopy(net).cpu().float().eval()
    shape = writing.input_shape(model, input_shape, "ONNX")
    graph = Graph(onnx)
    ends = build(model, shape, graph)
    made = graph.model(shape, ends[-1])
    size = made.ByteSize()
    if size > _MAX_BYTES:
        raise SpikestrapError(f"ONNX: a file holds at most {_MAX_BYTES} bytes; got {size}")
    content = made.SerializeToString()
    check(onnx, content, model, shape, ends)
    write_file(Path(path), content)


def _package() -> Any:
    try:
        import onnx
        import onnx.reference
    except ImportError as error:
        raise SpikestrapError(
            f"ONNX files need the package onnx ({error}): pip install 'spikestrap[onnx]'"
        ) from None
    return onnx
