"""The same small CNN for digits in each library, in the library's own ways, and how it runs."""

import norse.torch as norse
import sinabs
import sinabs.layers as sl
import snntorch as snn
import torch
from sinabs.activation import SingleSpike
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

BETA, THRESHOLD = 0.95, 0.5


class SNNTorch(nn.Module):
    """One step a call; the neurons keep their state."""

    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 8, 3, padding=1), self.leaky()
        self.conv2, self.lif2 = nn.Conv2d(8, 16, 3, padding=1), self.leaky()
        self.fc1, self.lif3 = nn.Linear(64, 64), self.leaky()
        self.fc2 = nn.Linear(64, 10)

    def leaky(self):
        return snn.Leaky(beta=BETA, threshold=THRESHOLD, init_hidden=True)

    def forward(self, x):
        x = nn.functional.avg_pool2d(self.lif1(self.conv1(x)), 2)
        x = nn.functional.avg_pool2d(self.lif2(self.conv2(x)), 2)
        return self.fc2(self.lif3(self.fc1(x.flatten(1))))

    def run(self, x, time_steps):
        for lif in (self.lif1, self.lif2, self.lif3):
            lif.reset_mem()
        return torch.stack([self(x) for _ in range(time_steps)]).mean(0)


class SNNTorchLoop(SNNTorch):
    """The style of snnTorch's tutorials: the forward loops and passes the membranes on."""

    def __init__(self, num_steps=4):
        super().__init__()
        self.num_steps = num_steps

    def leaky(self):
        return snn.Leaky(beta=BETA, threshold=THRESHOLD)

    def forward(self, x):
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        outputs, membranes = [], []
        for _ in range(self.num_steps):
            spk1, mem1 = self.lif1(self.conv1(x), mem1)
            spk2, mem2 = self.lif2(self.conv2(nn.functional.avg_pool2d(spk1, 2)), mem2)
            spk2 = nn.functional.avg_pool2d(spk2, 2)
            spk3, mem3 = self.lif3(self.fc1(spk2.flatten(1)), mem3)
            outputs.append(self.fc2(spk3))
            membranes.append(mem3)
        return torch.stack(outputs, dim=0), torch.stack(membranes, dim=0)

    def run(self, x, time_steps):
        assert time_steps == self.num_steps
        return self(x)[0].mean(0)


class SpikingJelly(nn.Sequential):
    """step_mode "m" or "s", with batch norm."""

    def __init__(self, step_mode="m"):
        super().__init__(
            layer.Conv2d(1, 8, 3, padding=1, bias=False),
            layer.BatchNorm2d(8),
            self.node(),
            layer.AvgPool2d(2),
            layer.Conv2d(8, 16, 3, padding=1, bias=False),
            layer.BatchNorm2d(16),
            self.node(),
            layer.AvgPool2d(2),
            layer.Flatten(),
            layer.Linear(64, 64),
            self.node(),
            layer.Linear(64, 10),
        )
        functional.set_step_mode(self, step_mode)

    def node(self):
        return neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=THRESHOLD, v_reset=None)

    def run(self, x, time_steps):
        functional.reset_net(self)
        if self[0].step_mode == "m":
            return self(x.unsqueeze(0).repeat(time_steps, 1, 1, 1, 1)).mean(0)
        return sum(self(x) for _ in range(time_steps)) / time_steps


class Norse(norse.SequentialState):
    """Cells, one step a call, the state passed on."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            self.cell(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            self.cell(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 64),
            self.cell(),
            nn.Linear(64, 10),
        )

    def cell(self):
        # In steps of 1 ms, a membrane that forgets within 4 of them.
        p = norse.LIFBoxParameters(
            tau_mem_inv=torch.tensor(250.0),
            v_th=torch.tensor(THRESHOLD / 4),
            alpha=torch.tensor(5.0),
        )
        return norse.LIFBoxCell(p)

    def run(self, x, time_steps):
        state, total = None, 0
        for _ in range(time_steps):
            output, state = self(x, state)
            total = total + output
        return total / time_steps


class Sinabs(nn.Sequential):
    """Time folded into the batch."""

    def __init__(self, time_steps=4):
        self.time_steps = time_steps
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            self.iaf(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            self.iaf(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 64),
            self.iaf(),
            nn.Linear(64, 10),
        )

    def iaf(self):
        return sl.IAFSqueeze(
            num_timesteps=self.time_steps,
            spike_fn=SingleSpike,
            spike_threshold=torch.tensor(THRESHOLD),
        )

    def run(self, x, time_steps):
        sinabs.utils.reset_states(self)
        output = self(x.repeat_interleave(time_steps, 0))
        return output.unflatten(0, (-1, time_steps)).mean(1)


MODELS = {
    "snntorch": SNNTorch,
    "snntorch loop": SNNTorchLoop,
    "spikingjelly m": SpikingJelly,
    "spikingjelly s": lambda: SpikingJelly("s"),
    "norse": Norse,
    "sinabs": Sinabs,
}
