"""A LIF layer alone, forward and backward: ours, the other libraries, and the memory's limit.

T = 16 steps of 2**19 neurons in float32. Forward and backward must at least read z and write
the spikes, then read z and the spikes' gradient and write z's: five tensors. A copy between
two of them moves two, so the limit is 2.5 copies. Where the membrane is stored instead of
recomputed, six must move: 3 copies, the laxer limit, given as `over_six_tensor_copy`. Inputs,
and what is copied, are three tensors in turns, so that none is in a cache when it is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import snntorch
import torch
from common import (
    ALPHA,
    LEAK,
    LIF,
    THRESHOLD,
    arguments,
    check_spikes,
    in_turns,
    ratio,
    report,
    rotating,
)
from networks import spikingjelly_neuron
from norse.torch.functional.lif_box import (
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    lif_box_feed_forward_step,
)
from norse.torch.module.snn import SNN
from snntorch.surrogate import atan
from spikingjelly.activation_based import functional
from torch import Tensor

import spikestrap as ss

Layer = Callable[[Tensor], Tensor]

# A membrane that meets the threshold exactly fires in SpikingJelly and not in ours, and
# Norse rounds in another order: a few in millions, and a few spikes after each.
ALLOWED = 1e-5


def spikestrap_layer() -> Layer:
    layer: Layer = ss.neuron.LIF(**LIF)
    return layer


def spikingjelly_layer() -> Layer:
    """On a CPU it runs in torch only: up to 0.0.0.0.14 as its backend "torch", differentiated by
    autograd; 2.0.0 has no backends by name and a backward pass written by hand.
    """
    node = spikingjelly_neuron()

    def run(z: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(z)
        return spikes

    return run


def snntorch_layer() -> Layer:
    leaky = snntorch.Leaky(
        beta=1 - LEAK, threshold=THRESHOLD, reset_mechanism="zero", spike_grad=atan(ALPHA)
    )

    def run(z: Tensor) -> Tensor:
        membrane = leaky.reset_mem()
        spikes = []
        for current in z:
            spike, membrane = leaky(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def norse_layer() -> Layer:
    """Norse multiplies its input by the leak, so it gets z / leak. It has no arctan."""
    step = 0.001
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(LEAK / step), v_th=torch.tensor(THRESHOLD), method="super"
    )
    layer = SNN(
        lif_box_feed_forward_step,
        lambda z: LIFBoxFeedForwardState(v=torch.zeros_like(z[0])),
        parameters,
        dt=step,
    )
    return lambda z: layer(z)[0]


def forward_backward(layer: Layer, z: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    spikes = layer(z)
    return spikes, torch.autograd.grad(spikes, z, grad)[0]


def check(layers: dict[str, Layer], inputs: dict[str, Tensor], grad: Tensor) -> float:
    """Exits unless the others agree with ours; our share of spikes."""
    expected, expected_grad = forward_backward(layers["spikestrap"], inputs["spikestrap"], grad)
    for name, layer in layers.items():
        spikes, z_grad = forward_backward(layer, inputs[name], grad)
        check_spikes(name, spikes, expected, ALLOWED)
        if name in ("spikingjelly", "snntorch"):
            same = (spikes == expected).all(0)
            close = torch.isclose(z_grad, expected_grad, rtol=1e-4, atol=1e-5) | ~same
            if not close.all():
                sys.exit(f"{name}: gradients differ from ours")
    return expected.mean().item()


def main() -> None:
    options = arguments(__doc__)
    shape = (4, 8, 128) if options.quick else (16, 512, 1024)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator)
    grad = torch.randn(shape, generator=generator)
    layers = {
        "spikestrap": spikestrap_layer(),
        "spikingjelly": spikingjelly_layer(),
        "snntorch": snntorch_layer(),
        "norse": norse_layer(),
    }
    inputs = dict.fromkeys(layers, z) | {"norse": z / LEAK}
    activity = check(layers, inputs, grad)

    grads = rotating(grad)
    zs = dict.fromkeys(layers, rotating(z)) | {"norse": rotating(inputs["norse"])}

    def contender(name: str) -> Callable[[], object]:
        return lambda: forward_backward(layers[name], next(zs[name]), next(grads))

    contenders = {name: contender(name) for name in layers}
    copies = rotating(torch.zeros_like(z))
    contenders["copy"] = lambda: next(copies).copy_(next(zs["spikestrap"]))

    seconds = in_turns(contenders, options.rounds)
    ours = seconds["spikestrap"]
    ratios = {
        "speedup_over_spikingjelly": ratio(seconds["spikingjelly"], ours),
        "speedup_over_snntorch": ratio(seconds["snntorch"], ours),
        "speedup_over_norse": ratio(seconds["norse"], ours),
        "over_copy_limit": ratio(ours, seconds["copy"], 5 / 2),
        "over_six_tensor_copy": ratio(ours, seconds["copy"], 6 / 2),
    }
    peers = ("spikingjelly", "snntorch", "norse")
    report(options, ratios, seconds, peers, shape=shape, activity=activity)


if __name__ == "__main__":
    main()
