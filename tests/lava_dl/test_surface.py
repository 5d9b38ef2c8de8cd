"""The HDF5 export, block by block."""

import h5py
import numpy as np
import torch
from tests.lava_dl.cases import MEAN_ONLY, NEURON, content

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer
from spikestrap.lava_dl import to_network

cuba = bootstrap.block.cuba


class Images(torch.nn.Module):
    """A network as tutorials write one, of every block that exports."""

    def __init__(self, **shift):
        super().__init__()
        neuron = {**NEURON, "threshold": 0.5}
        self.blocks = torch.nn.ModuleList(
            [
                cuba.Input(neuron, weight=1, bias=0, **shift),
                cuba.Conv(neuron, 1, 4, 3, padding=1, weight_scale=3, weight_norm=True, **shift),
                cuba.Pool(neuron, 2, **shift),
                cuba.Flatten(),
                cuba.Dense({**neuron, "norm": MEAN_ONLY}, 64, 20, weight_scale=3, **shift),
                cuba.Affine(neuron, 20, 10),
            ]
        )

    def forward(self, x, mode):
        x = slayer.utils.time.replicate(x, 1 if mode.base_mode is bootstrap.Mode.ANN else 8)
        for block, m in zip(self.blocks, mode):  # noqa: B905
            x = block(x, mode=m)
        return x

    def export_hdf5(self, filename):
        with h5py.File(filename, "w") as h:
            h["simulation/Ts"], h["simulation/tSample"] = 1, 8
            layer = h.create_group("layer")
            for i, b in enumerate(self.blocks):
                b.export_hdf5(layer.create_group(f"{i}"))


def test_export_loads_back_with_equal_logits_and_is_the_file_that_save_writes(tmp_path):
    net, scheduler = Images(), bootstrap.routine.Scheduler(2, 1)
    x = 2 * torch.rand(40, 1, 8, 8) - 1
    for i in range(4):
        net(x, scheduler.mode(0, i, net.training))
    torch.save(net.state_dict(), tmp_path / "network.pt")
    net = Images()  # a fresh one exports without having run: the shapes are in the checkpoint
    net.load_state_dict(torch.load(tmp_path / "network.pt"))
    net.eval().export_hdf5(tmp_path / "script.net")
    logits = net(x, scheduler.mode(0, 0, False)).mean(-1)
    chip = ss.load(tmp_path / "script.net")
    assert torch.allclose(torch.from_numpy(chip.run((x + 1) / 2).logits).float(), logits)
    assert len(set(logits.argmax(1).tolist())) > 1

    whole = to_network(net.blocks, time_steps=8)
    assert torch.allclose(whole((x + 1) / 2), logits)
    ss.save(whole, tmp_path / "saved.net", input_shape=(1, 8, 8))
    script, saved = content(tmp_path / "script.net"), content(tmp_path / "saved.net")
    assert script.keys() == saved.keys()
    for name in script:
        np.testing.assert_array_equal(script[name], saved[name])


def test_delay_shift_is_the_files_pipeline(tmp_path):
    net = Images(delay_shift=True).eval()
    x = 2 * torch.rand(40, 1, 8, 8) - 1
    logits = net(x, bootstrap.routine.Scheduler().mode(0, 0, False)).mean(-1)
    net.export_hdf5(tmp_path / "network.net")
    with h5py.File(tmp_path / "network.net", "a") as file:
        file["simulation/pipelined"] = 1
    found = ss.load(tmp_path / "network.net").run((x + 1) / 2).logits
    assert torch.allclose(torch.from_numpy(found).float(), logits)
