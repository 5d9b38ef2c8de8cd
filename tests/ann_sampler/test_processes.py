"""Sampled by several processes, fitted to what all of them saw."""

from tests.processes import run_in

DATA = """
from spikestrap.ann_sampler import AnnSampler
from spikestrap.ann_sampler.histogram import add_pairs
lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)
names = ("origin", "width", "values", "slopes", "residual", "levels", "fitted", "idle_slopes")

def draw(n, seed):
    z = 3 * torch.rand(8, n, 6, generator=torch.Generator().manual_seed(seed)) - 1
    return lif(z), z
"""


def test_shares_make_the_whole():
    run_in(
        3,
        DATA
        + """
# Round 0 is uneven, in round 1 rank 1 gets empty batches, in round 2 rank 2 never samples.
rounds = [(31, [0, 17, 25, 31]), (40, [0, 20, 20, 40]), (50, [0, 20, 50, 50])]
for memory in (0.0, 0.5):
    sampler = AnnSampler(memory=memory)
    sums = torch.zeros_like(sampler.statistics.pairs)
    for number, (n, cuts) in enumerate(rounds):
        a, z = draw(n, number)
        part = slice(cuts[rank], cuts[rank + 1])
        if number != 2 or rank != 2:
            sampler.append(a[:, part], z[:, part])
            assert sampler.pending
        sampler.fit()
        assert not sampler.pending and sampler.count == 0 and sampler.fitted == number + 1
        with torch.no_grad():
            sums *= memory
            add_pairs(sums, z.mean(0), a.mean(0), sampler.statistics.fine)
        torch.testing.assert_close(sampler.statistics.pairs, sums)
        assert all(same(getattr(sampler, name)) for name in names)
        assert same(sampler.statistics.pairs)
        before = sampler.values.clone()
        sampler.fit()  # again, to the same
        assert torch.equal(sampler.values, before) and same(sampler.statistics.pairs)
        sampler.fitted -= 1  # not to count it
""",
    )


def test_sequences_of_other_lengths_go_together():
    run_in(
        3,
        DATA
        + """
# Rank 2 never samples; the longest sequence is rank 1's, which ends before its tensor does.
for memory in (0.0, 0.5):
    sampler = AnnSampler(memory=memory)
    sums = torch.zeros_like(sampler.statistics.pairs)
    for number in range(2):
        parts = [(*draw(9, number), torch.full((9,), 3)), (*draw(5, 7), torch.full((5,), 6))]
        if rank < 2:
            a, z, lengths = parts[rank]
            with ss.ragged(lengths):
                sampler.append(a, z)
        sampler.fit()
        with torch.no_grad():
            sums *= memory
            for a, z, lengths in parts:
                steps = int(lengths[0])
                add_pairs(sums, z[:steps].mean(0), a[:steps].mean(0), sampler.statistics.fine)
        torch.testing.assert_close(sampler.statistics.pairs, sums)
        assert sampler.time_steps == 6
        assert all(same(getattr(sampler, name)) for name in names)
""",
    )


def test_nothing_anywhere_and_other_time_steps_are_errors_everywhere():
    run_in(
        2,
        DATA
        + """
sampler = AnnSampler()
for _ in range(2):
    try:
        sampler.fit()
    except ss.NotFittedError as error:
        assert "no samples" in str(error)
    else:
        raise AssertionError
    sampler.append(torch.zeros(4, 0, 6), torch.zeros(4, 0, 6))
sampler = AnnSampler()
sampler.append(*(x[: 4 + rank] for x in draw(9, 0)))
try:
    sampler.fit()
except ss.SpikestrapError as error:
    assert "samples of one T in all processes, got T = 4 to 5" in str(error)
else:
    raise AssertionError
""",
    )


def test_a_plain_loop_under_ddp_is_one_process_on_the_whole():
    errors = run_in(
        2,
        """
import copy
from torch.nn.parallel import DistributedDataParallel
neuron = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5)
net = ss.Network(
    ss.block.cuba.Dense(dict(neuron, norm="batch"), 20, 16, weight_norm=True),
    ss.block.cuba.Dense(dict(neuron, norm="mean_only"), 16, 16),
    ss.block.cuba.Affine(neuron, 16, 3),
    time_steps=4,
)
ss.norm.synchronize(net)
whole = copy.deepcopy(net)
ddp = DistributedDataParallel(net)  # broadcasts buffers before each forward
scheduler = ss.Scheduler(num_sample_iter=3, sample_period=2)
x, y = torch.rand(64, 20), torch.randint(3, (64,))
group = dist.group.WORLD

def train(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        for i in range(6):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x, scheduler.mode(epoch, i)), y)
            loss.backward()
            optimizer.step()

train(ddp, x[rank::2], y[rank::2])
for name, tensor in net.state_dict().items():
    assert same(tensor.double()), name
# The same in one process: it does not know of the others.
processes.count, processes.rank = lambda: 1, lambda: 0
train(whole, x, y)
for name, tensor in net.state_dict().items():
    if not name.endswith("statistics"):
        torch.testing.assert_close(tensor, whole.state_dict()[name], atol=2e-5, rtol=1e-4)
""",
    )
    assert not any("Warning" in text for text in errors)


def test_sharded_parameters():
    """FSDP2 shards parameters; curves and statistics stay whole in every process."""
    run_in(
        2,
        """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
neuron = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5)
net = ss.Network(
    ss.block.cuba.Dense(neuron, 20, 16),
    ss.block.cuba.Dense(neuron, 16, 16),
    ss.block.cuba.Affine(neuron, 16, 3),
    time_steps=4,
)
mesh = init_device_mesh("cpu", (2,))
for block in net.blocks:
    fully_shard(block, mesh=mesh)
fully_shard(net, mesh=mesh)
x, y = torch.rand(64, 20)[rank::2], torch.randint(3, (64,))[rank::2]
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for mode in (ss.Mode.SAMPLE, ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x, mode), y).backward()
    optimizer.step()
for _, unit in ss.unit.units_of(net):
    assert unit.sampler.fitted == 1
    assert all(same(b) for b in (unit.sampler.statistics.pairs, unit.sampler.values))
""",
    )
