"""Neurons and resets side by side at T = 4: accuracy, the curve's own error, spikes spent."""

import torch
from common import accuracies, data, figure, mlp, options, save

import spikestrap as ss
from spikestrap.train import EventRate, Options, fit

SUBTRACT = {"reset": "subtract", "v_init": 0.5}
NEURONS = {
    "IF, subtract": (ss.block.integrate_fire, SUBTRACT),
    "IF, zero": (ss.block.integrate_fire, {}),
    "LIF, subtract": (ss.block.lif, {"voltage_decay": 0.2, **SUBTRACT}),
    "LIF, zero": (ss.block.lif, {"voltage_decay": 0.2}),
    "CUBA, subtract": (ss.block.cuba, {"current_decay": 0.6, "voltage_decay": 0.1, **SUBTRACT}),
    "CUBA, zero": (ss.block.cuba, {"current_decay": 0.6, "voltage_decay": 0.1}),
}


def main() -> None:
    chosen = options(__doc__)
    splits = data(chosen.quick)
    training = Options(epochs=2 if chosen.quick else 20, learning_rate=4e-3, validate_every=5)
    names = list(NEURONS)[:2] if chosen.quick else list(NEURONS)
    rows = []
    for name in names:
        blocks, parameters = NEURONS[name]
        torch.manual_seed(0)
        net = mlp(blocks, {"threshold": 1.0, **parameters}, time_steps=4)
        fit(net, splits, training)
        with EventRate(net) as rate:
            snn, ann = accuracies(net, splits)
        gaps = [layer.curve_gap for layer in ss.diagnose(net, [splits.test.x])]
        rows.append((snn, ann, sum(gaps) / len(gaps), rate.value))
        print(f"{name}: SNN {snn:.1f} %, ANN {ann:.1f} %, curve gap {rows[-1][2]:.3f}")

    snn, ann, gap, rate = zip(*rows, strict=True)
    made, ((accuracy, error, events),) = figure(3, sharey=True)
    accuracy.plot(snn, names, "o", label="SNN")
    accuracy.plot(ann, names, "o", fillstyle="none", label="ANN")
    accuracy.legend(fontsize="small", loc="upper left")
    accuracy.set(xlabel="test accuracy (%)", xlim=(min(*snn, *ann, 95) - 0.5, 100))
    error.barh(names, gap, color="C1")
    error.set(xlabel="mean |curve - rate|")
    events.barh(names, rate, color="C2")
    events.set(xlabel="spikes a neuron and step")
    save(made, chosen.out, __file__)


if __name__ == "__main__":
    main()
