"""State dicts that lava-dl saved load into the blocks here as their own do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import block as blocks


def rename_lava_dl(layer: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Replaces lava-dl's tensors of one block in `state` by those of `layer` with their values.

    layer: with a block of spikestrap as `layer.block`. What lava-dl saves none of, thresholds and
    transfer curves, stays as `layer` has it. Does nothing for a state dict of spikestrap's own.
    Raises SpikestrapError where the tensors are not those of such a block.
    """
    from ..exchange import lava_dl

    own = layer.state_dict(prefix=prefix, keep_vars=True)
    inner = getattr(layer, "block", None)
    theirs = [key for key in state if key.startswith(prefix) and key not in own]
    if any(key in state for key in own):
        return
    values: dict[int, Tensor] = {}
    if isinstance(inner, blocks.Block | blocks.Affine):
        if not theirs:
            return
        tensors = {key.removeprefix(prefix): state.pop(key) for key in theirs}
        tensors.pop("mask", None)  # the script's own holds
        membrane = getattr(layer, "membrane", None)
        updates = [] if membrane is None else lava_dl.decay_updates(membrane, tensors)
        updates += lava_dl.block_updates(inner, tensors)
        values = {id(target): value for target, value in updates}
    for key, target in own.items():
        state[key] = values.get(id(target), target.detach())
