"""Run as an SNN and sample, fit, run as an ANN: the method by hand, on an untrained network.

The neuron is Loihi's: a current that decays over several steps feeds a leaky membrane. Nobody
has a formula for its rate at T = 8; the curve is measured.
"""

import torch
from common import data, figure, mlp, options, save

import spikestrap as ss

NEURON = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.05}


def main() -> None:
    chosen = options(__doc__)
    images = data(chosen.quick).train.x
    net = mlp(ss.block.cuba, NEURON, time_steps=8)
    with torch.no_grad():
        for batch in images[:-128].split(128):
            net(batch, ss.Mode.SAMPLE)  # spikes, and records (mean input, rate)
        net(images[:1], ss.Mode.FIT)  # fits a curve to each layer's pairs
        spiking, on_rates = net(images[-128:], ss.Mode.SNN), net(images[-128:], ss.Mode.ANN)

    made, ((first, second, both),) = figure(3)
    layers = ss.unit.units_of(net)
    for number, axes, (_, unit) in zip((1, 2), (first, second), layers, strict=True):
        unit.sampler.plot(axes)
        axes.set_title(f"layer {number}: residual {unit.sampler.residual.item():.3f}")
        print(f"layer {number}: the pairs lie {unit.sampler.residual.item():.3f} from the curve")
    both.plot(spiking.flatten(), on_rates.flatten(), ".", markersize=2, alpha=0.4)
    both.set(xlabel="SNN", ylabel="ANN", title="logits, images not sampled")
    correlation = torch.corrcoef(torch.stack([spiking.flatten(), on_rates.flatten()]))[0, 1]
    print(f"logits of SNN and ANN: correlation {correlation:.4f}")
    save(made, chosen.out, __file__)


if __name__ == "__main__":
    main()
