"""How few steps are enough: accuracy as SNN and as ANN, trained anew for each T, two neurons."""

import torch
from common import accuracies, data, figure, mlp, options, save

import spikestrap as ss
from spikestrap.train import Options, fit

NEURONS = {
    "no leak, subtract, v_init 0.5": {"voltage_decay": 0.0, "reset": "subtract", "v_init": 0.5},
    "leak 0.03, reset to zero": {"voltage_decay": 0.03, "reset": "zero"},
}
TIME_STEPS = (1, 2, 4, 8, 16)


def main() -> None:
    chosen = options(__doc__)
    splits = data(chosen.quick)
    time_steps = (2, 4) if chosen.quick else TIME_STEPS
    training = Options(epochs=2 if chosen.quick else 20, learning_rate=4e-3, validate_every=5)
    made, ((accuracy, gap),) = figure(2)
    for colour, (name, parameters) in enumerate(NEURONS.items()):
        spiking, on_rates = [], []
        for steps in time_steps:
            torch.manual_seed(0)
            net = mlp(ss.block.cuba, {"threshold": 1.0, **parameters}, steps)
            fit(net, splits, training)
            snn, ann = accuracies(net, splits)
            spiking.append(snn)
            on_rates.append(ann)
            print(f"{name}, T = {steps:>2}: SNN {snn:.1f} %, ANN {ann:.1f} %")
        accuracy.plot(time_steps, spiking, f"C{colour}o-", label=name)
        gap.plot(
            time_steps,
            [ann - snn for snn, ann in zip(spiking, on_rates, strict=True)],
            f"C{colour}o-",
        )
    gap.axhline(0, color="0.7", linewidth=1)
    for axes, label in ((accuracy, "SNN test accuracy (%)"), (gap, "ANN minus SNN (points)")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(time_steps, [str(steps) for steps in time_steps])
        axes.set(xlabel="time steps T", ylabel=label)
    accuracy.set_ylim(min(accuracy.get_ylim()[0], 95), None)  # else noise fills the picture
    accuracy.legend(fontsize="small", loc="lower right")
    save(made, chosen.out, __file__)


if __name__ == "__main__":
    main()
