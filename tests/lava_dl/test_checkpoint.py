"""What lava-dl saved."""

import h5py
import numpy as np
import torch
from tests.lava_dl.cases import content
from tests.shared import GOLDEN, needs_golden

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
from spikestrap.exchange.lava_dl import load_state_dict
from spikestrap.lava_dl import to_network

cuba = bootstrap.block.cuba


@needs_golden
def test_export_of_lava_dls_weights_is_lava_dls_export(tmp_path):
    neuron = {"threshold": 1.25, "current_decay": 1, "voltage_decay": 0.03}
    dense = {"weight_norm": True, "weight_scale": 2}
    layers = [
        cuba.Input(neuron, weight=1, bias=0),
        cuba.Dense(neuron, 784, 512, **dense),
        cuba.Dense(neuron, 512, 512, **dense),
        cuba.Affine(neuron, 512, 10, **dense),
    ]
    net = to_network(layers, time_steps=16)
    load_state_dict(net, GOLDEN / "bootstrap_mnist.pt")
    layers[0](torch.zeros(1, 784, 1), mode=ss.Mode.SNN)
    with h5py.File(tmp_path / "network.net", "w") as file:
        for i, layer in enumerate(layers):
            layer.export_hdf5(file.create_group(f"layer/{i}"))
    ours, theirs = content(tmp_path / "network.net"), content(GOLDEN / "bootstrap_mnist.net")
    script = torch.nn.Module()
    script.blocks = torch.nn.ModuleList(layers)
    before = {name: t.clone() for name, t in script.state_dict().items()}
    for parameter in script.parameters():
        torch.nn.init.ones_(parameter)
    script.load_state_dict(torch.load(GOLDEN / "bootstrap_mnist.pt", map_location="cpu"))
    after = script.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    for name in ("weight", "neuron/iDecay", "neuron/vDecay", "neuron/vThMant", "type", "shape"):
        for i in range(3):
            a, b = ours[f"layer/{i}/{name}"], theirs[f"layer/{i}/{name}"]
            np.testing.assert_array_equal(a.ravel(), b.ravel(), err_msg=f"{i} {name}")
    # lava-dl's export of the last layer is one step stale: it differs by at most 10.
    assert np.abs(ours["layer/3/weight"] - theirs["layer/3/weight"]).max() <= 10
