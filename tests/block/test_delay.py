import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import seeds

import spikestrap as ss
from spikestrap import Mode, SpikestrapError
from spikestrap.block import Delay, lif


@given(seeds, st.lists(st.integers(0, 9), min_size=3, max_size=3), st.sampled_from([(), (2, 4)]))
def test_moves_each_channel_by_its_own_steps(seed, steps, image):
    x = torch.rand((6, 2, 3, *image), generator=torch.Generator().manual_seed(seed))
    y = Delay(3, 9, initial=torch.tensor(steps), learnable=False)(x)
    for c, step in enumerate(steps):
        for t in range(6):
            expected = x[t - step, :, c] if t >= step else torch.zeros_like(x[0, :, c])
            assert torch.equal(y[t, :, c], expected)


def test_runs_whole_steps():
    x = torch.rand(6, 2, 4)
    given_delays = Delay(4, 3, initial=torch.tensor([0.4, 0.6, 1.4, 2.9]))(x)
    whole = Delay(4, 3, initial=torch.tensor([0.0, 1.0, 1.0, 3.0]), learnable=False)(x)
    assert torch.equal(given_delays, whole)


def test_gradients():
    x = torch.rand(6, 2, 1, dtype=torch.float64).requires_grad_()
    weight = torch.rand(6, 2, 1, dtype=torch.float64)
    outs = [(Delay(1, 4, initial=d, learnable=False)(x) * weight).sum() for d in (1.0, 2.0, 3.0)]
    delay = Delay(1, 4, initial=2.0)
    (delay(x) * weight).sum().backward()
    # The input's goes back as it came, the delay's is the central difference.
    expected = torch.cat([weight[2:], torch.zeros(2, 2, 1, dtype=torch.float64)])
    torch.testing.assert_close(x.grad, expected)
    assert delay.delay.grad.item() == pytest.approx((outs[2] - outs[0]).item() / 2, rel=1e-5)


def test_rounds_down_and_learns_by_the_next_step_as_lava_dl_does():
    real = torch.tensor([0.0, 0.9, 1.5, 3.0])
    x, weight = torch.rand(6, 2, 4), torch.rand(6, 2, 4)
    delay = Delay(4, 3, initial=real, rounding="down")
    y = delay(x)
    now, late = (Delay(4, 4, initial=real.floor() + more, learnable=False)(x) for more in (0, 1))
    assert torch.equal(y, now)
    (weight * y).sum().backward()
    torch.testing.assert_close(delay.delay.grad, (weight * (late - now)).sum((0, 1)))
    with pytest.raises(SpikestrapError, match="rounding must be nearest or down, got 'up'"):
        Delay(4, 3, rounding="up")


def test_learns_a_delay():
    torch.manual_seed(0)
    # Bursts, so that a step more or less shows which way to go.
    x = torch.nn.functional.conv1d(torch.rand(50, 1, 40), torch.ones(1, 1, 5) / 5)
    x = x.permute(2, 0, 1).contiguous()
    target = Delay(1, 6, initial=3.0, learnable=False)(x)
    delay = Delay(1, 6, initial=1.0)
    optimizer = torch.optim.Adam(delay.parameters(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        ((delay(x) - target) ** 2).mean().backward()
        optimizer.step()
    assert torch.equal(delay(x), target)


def test_stays_in_its_bounds():
    delay, x = Delay(1, 2), torch.rand(6, 2, 1)
    for outside, inside in ((-3.0, 0.0), (9.0, 2.0)):
        with torch.no_grad():
            delay.delay.fill_(outside)
        assert torch.equal(delay(x), Delay(1, 2, initial=inside)(x))


@pytest.mark.parametrize("mode", Mode)
def test_takes_spikes_in_every_mode_and_no_rates(mode):
    delay = Delay(3, 2, initial=1.0)
    assert delay(torch.ones(4, 2, 3), mode=mode).sum() == 3 * 2 * 3
    with pytest.raises(SpikestrapError, match=r"expected spikes \(T, N, 3\).*below the crossover"):
        delay(torch.ones(2, 3), mode=mode)
    with pytest.raises(SpikestrapError, match=r"expected spikes \(T, N, 3\).*\(4, 2, 5\)"):
        delay(torch.ones(4, 2, 5), mode=mode)


def test_stands_below_the_crossover():
    neuron = {"threshold": 0.3, "voltage_decay": 0.1}
    net = ss.Network(
        lif.Dense(neuron, 6, 5),
        Delay(5, 2, initial=1.0),
        lif.Dense(neuron, 5, 4),
        lif.Affine(neuron, 4, 3),
        time_steps=4,
    )
    x = torch.rand(8, 6)
    for mode in (Mode.SAMPLE, Mode.FIT, Mode.ANN):
        assert net(x, ss.LayerMode(mode, crossover=1)).shape == (8, 3)
    # All as an ANN would need rates delayed: it says so, and which block.
    net(x, Mode.SAMPLE)
    with pytest.raises(SpikestrapError, match=r"block 1 \(Delay\).*below the crossover"):
        net(x, Mode.ANN)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delay(0, 2), "channels must be a whole number >= 1, got 0"),
        (lambda: Delay(3, 0), "max_delay must be a whole number >= 1, got 0"),
        (lambda: Delay(3, 1.5), "max_delay must be a whole number >= 1, got 1.5"),
        (lambda: Delay(3, 2, initial=3.0), r"delay must be in \[0, 2\], got 3"),
        (lambda: Delay(3, 2, initial=torch.zeros(4)), r"a tensor \(3,\), got shape \(4,\)"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(SpikestrapError, match=message):
        make()


@pytest.mark.parametrize("padding", [0.0, 1.0])
def test_its_gradient_does_not_hear_padding(padding):
    delay = Delay(1, max_delay=2, initial=1.0)
    x = torch.tensor([0.0, 1.0, 1.0, padding]).view(4, 1, 1)
    with ss.ragged(torch.tensor([3])):
        delay(x)[:3].sum().backward()
    padded = delay.delay.grad.clone()
    delay.zero_grad()
    delay(x[:3]).sum().backward()
    assert torch.equal(padded, delay.delay.grad)
