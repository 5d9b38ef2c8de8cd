"""NIR, the neuromorphic intermediate representation, both ways.

Pedersen et al., Nature Communications 15, 8122 (2024). `docs/nir.md` says what is written, how
time is made discrete, and what each library that reads NIR makes of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import nir
import numpy as np

from ...errors import SpikestrapError, at
from ...files import write_file
from ...network import Network
from ..hdf5 import read_tree
from ..hdf5_worker import Tree, parse
from ..writing import plainly
from .check import check
from .dynamics import short, text
from .export import export
from .importer import DEFAULT_DT, build, input_shape

__all__ = ["from_graph", "input_shape", "read", "read_graph", "to_graph", "write"]

_MAX_BYTES = 2**30
_TYPES = {
    cls.__name__
    for cls in map(nir.ir.__dict__.get, nir.ir.__all__)
    if isinstance(cls, type) and issubclass(cls, nir.NIRNode)
} - {"NIRNode", "NIRGraph"}


def to_graph(
    net: Network,
    *,
    input_shape: Sequence[int] | None = None,
    dt: float = DEFAULT_DT,
    allow: Collection[str] = (),
) -> nir.NIRGraph:
    """The network in evaluation as a NIR graph, norms and weight norms folded into the weights.

    input_shape: one input, (C,) or (C, H, W), where the first block does not say it.
    dt: seconds a step; spikes do not depend on it, but readers must take the same. The default
        is the one that snnTorch and SpikingJelly assume.
    allow: what may go into the metadata for want of a NIR word: "reset", "v_init". Other tools
        do not read it and will fire otherwise.

    Raises SpikestrapError, with the block and the reason, for what has no NIR node.

    >>> import spikestrap as ss
    >>> neuron = dict(threshold=1.0, voltage_decay=0.1)
    >>> net = ss.Network(
    ...     ss.block.lif.Dense(neuron, 64, 32),
    ...     ss.block.lif.Affine(neuron, 32, 10),
    ...     time_steps=8,
    ... )
    >>> list(to_graph(net).nodes)
    ['input', 'block0_linear', 'block0_lif', 'block1_affine', 'output']
    """
    return export(net, input_shape, dt, allow).graph


def from_graph(
    graph: nir.NIRGraph, *, dt: float | None = None, time_steps: int | None = None
) -> Network:
    """A chain of NIR nodes as a network that can be trained; its curves are not fitted yet.

    dt: seconds a step; None takes the graph's metadata, or 1e-4.
    time_steps: T of static inputs; None takes the metadata, or inputs (T, N, ...) if it is silent.

    Raises SpikestrapError, with the node and the reason, for what is no block.

    >>> import numpy as np
    >>> lif = nir.LIF(*(np.full(32, p) for p in (1e-3, 10.0, 0.0, 1.0)))
    >>> graph = nir.NIRGraph.from_list(nir.Linear(np.ones((32, 64))), lif)
    >>> from_graph(graph, time_steps=8).blocks[0].unit.neuron.voltage_decay.item()
    0.100000...
    """
    return build(graph, dt, time_steps)


@plainly()
def write(
    net: Network,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    dt: float = DEFAULT_DT,
    allow: Collection[str] = (),
) -> None:
    """Writes the network as a .nir file; the arguments are those of `to_graph`.

    The file is read again and run by an interpreter of NIR's equations beside the network; if
    any neuron fires otherwise, SpikestrapError is raised and no file is left.

    >>> import tempfile, torch, spikestrap as ss
    >>> block = ss.block.Dense(ss.neuron.LIF(threshold=1.0, voltage_decay=0.1), 64, 10)
    >>> net = ss.Network(block, time_steps=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(net, f"{folder}/net.nir")
    ...     again = read(f"{folder}/net.nir")
    >>> x = torch.rand(5, 64)
    >>> torch.equal(net(x), again(x))
    True
    """
    made = export(net, input_shape, dt, allow)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "network.nir"
        nir.write(part, made.graph)
        # Our own file a moment ago, so it needs no process of its own.
        check(net, _graph(parse(str(part), sys.maxsize)), *made[1:], dt)
        write_file(Path(path), part.read_bytes())


def read(
    path: str | os.PathLike[str],
    *,
    dt: float | None = None,
    time_steps: int | None = None,
    max_bytes: int = _MAX_BYTES,
) -> Network:
    """Reads a .nir file, whoever wrote it, as a network; see `from_graph`.

    max_bytes bounds what is read; the file's declarations are checked before. Raises
    SpikestrapError for a file that is damaged, too large, or holds no chain of blocks.
    """
    graph = read_graph(path, max_bytes=max_bytes)
    with at(path):
        return build(graph, dt, time_steps)


def read_graph(path: str | os.PathLike[str], *, max_bytes: int = _MAX_BYTES) -> nir.NIRGraph:
    """Reads the graph in a .nir file, whoever wrote it; `read` makes a network of it.

    max_bytes and SpikestrapError: see `read`. That its nodes fit together is not checked yet.
    """
    path = Path(path)
    with at(path):
        if not path.is_file():
            raise SpikestrapError("no such file")
        return _graph(read_tree(path, max_bytes))


def _graph(file: Tree) -> nir.NIRGraph:
    """The graph in a file. nir's own reader would believe what the file declares."""
    tree = file.get("node")
    if not isinstance(tree, dict) or text(tree, "type") != "NIRGraph":
        raise SpikestrapError("NIR: expected a NIRGraph under 'node', found none")
    nodes, edges, metadata = tree.get("nodes"), tree.get("edges"), tree.get("metadata", {})
    if not isinstance(nodes, dict) or not isinstance(metadata, dict):
        raise SpikestrapError("NIR: the graph has no nodes")
    if edges is None or np.size(edges) == 0:
        edges = np.empty((0, 2), object)
    if not isinstance(edges, np.ndarray) or edges.dtype != object or edges.shape[1:] != (2,):
        raise SpikestrapError("NIR: expected edges of two names each")
    made = {name: _node(name, node) for name, node in nodes.items()}
    pairs = [(str(a), str(b)) for a, b in edges]
    return nir.NIRGraph(nodes=made, edges=pairs, metadata=metadata, type_check=False)


def _node(name: str, node: Tree) -> nir.NIRNode:
    kind = node.get("type") if isinstance(node, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise SpikestrapError(
            f"NIR: node {name!r} has the type {short(kind)}; "
            f"expected one of {', '.join(sorted(_TYPES))}"
        )
    metadata = node.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SpikestrapError(f"NIR: node {name!r} has metadata that is no group")
    try:
        # A number where nir expects an array is one for all neurons.
        values = {k: np.asarray(v) if isinstance(v, float) else v for k, v in node.items()}
        with np.errstate(all="ignore"):
            return nir.dict2NIRNode({**values, "metadata": metadata})
    # nir asserts, indexes and multiplies what it is given: a wrong file can raise anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SpikestrapError(f"NIR: node {name!r} ({kind}) is malformed: {reason}") from None
