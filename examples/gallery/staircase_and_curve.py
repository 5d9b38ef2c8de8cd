"""What T steps can say: the rates k/T are a staircase, the curve through them and its slope."""

import torch
from common import figure, options, save

import spikestrap as ss

TIME_STEPS = (2, 4, 16)


def main() -> None:
    chosen = options(__doc__)
    neuron = ss.neuron.IF(threshold=1.0, reset="subtract", v_init=0.5)
    samples = 500 if chosen.quick else 20_000
    made, rows = figure(len(TIME_STEPS), 2, sharex=True, sharey="row")
    for column, steps in enumerate(TIME_STEPS):
        # Inputs as a layer sees them: a mean that stays, and noise from step to step.
        mean = 2 * torch.rand(samples, 1) - 0.5
        z = mean + 0.15 * torch.randn(steps, samples, 1)
        rate = neuron(z).mean(0)
        sampler, smooth = ss.ann_sampler.AnnSampler(), ss.ann_sampler.AnnSampler(rounding=False)
        for each in (sampler, smooth):
            each.append(neuron(z), z)
            each.fit()
        grid = torch.linspace(-0.5, 1.5, 1000)[:, None].requires_grad_()
        stairs = sampler(grid)
        (slope,) = torch.autograd.grad(stairs.sum(), grid)

        values, slopes = rows[:, column]
        values.plot(z.mean(0)[:500], rate[:500], ".", color="0.6", markersize=3, label="SNN")
        x = grid.detach()
        values.plot(x, smooth(x), label="fitted curve")
        values.plot(x, stairs.detach(), label="rounded to k/T")
        values.set_title(f"T = {steps}")
        slopes.plot(x, slope, "C3", label="slope, backward")
        slopes.set_xlabel("mean input / threshold")
        print(f"T = {steps:>2}: the pairs lie {sampler.residual.item():.3f} from the curve")
    rows[0, 0].set_ylabel("rate")
    rows[1, 0].set_ylabel("slope")
    for axes in rows[:, 0]:
        axes.legend(fontsize="small")
    save(made, chosen.out, __file__)


if __name__ == "__main__":
    main()
