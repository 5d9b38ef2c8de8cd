"""Bootstrap training in a loop of one's own: the handwritten digits, T = 4.

python examples/plain_loop.py [EPOCHS]
"""

import sys

import torch
import torch.nn.functional as F

import spikestrap as ss
from spikestrap.train import digits

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
torch.manual_seed(0)
data = digits()
neuron = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5)
net = ss.Network(
    ss.block.Flatten(),
    ss.block.cuba.Dense(neuron, 64, 128, weight_norm=True),
    ss.block.cuba.Dense(neuron, 128, 128, weight_norm=True),
    ss.block.cuba.Affine(neuron, 128, 10),
    time_steps=4,
)
scheduler = ss.Scheduler(num_sample_iter=5, sample_period=5)
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)

for epoch in range(epochs):
    order = torch.randperm(len(data.train)).split(64)
    for i, batch in enumerate(order):
        # The scheduler says what each layer does: sample, fit, or train on its curve.
        logits = net(data.train.x[batch], scheduler.mode(epoch, i, train=True))
        loss = F.cross_entropy(logits, data.train.y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

net.eval()
with torch.no_grad():
    for mode in (ss.Mode.SNN, ss.Mode.ANN):
        right = net(data.test.x, mode).argmax(1) == data.test.y
        print(f"{mode.name} test accuracy: {100 * right.float().mean():.1f} %")
