import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.plain import Rule, simulate
from torch.nn import functional as F

from spikestrap.kernel import inference

RESETS = ("zero", "subtract", "none")


def fired(z, rule, channels=None, chip=None, current=True):
    """Bytes and totals of the kernels; parameters as scalars or, of so many channels, arrays."""

    def made(value):
        value = np.float32(value)
        return value if channels is None else np.full(channels, value)

    params = (made(rule.current_decay) if current else None,)
    params += (made(rule.voltage_decay), made(rule.threshold))
    memory = np.empty(inference.WIDTH, np.float32) if current else None
    arguments = (z, params, made(rule.v_init), RESETS.index(rule.reset), chip, memory)
    spikes, totals = np.full(z.shape, 7, np.uint8), np.full(z.shape[1], 7, np.float32)
    inference.fire(*arguments, spikes)
    inference.fire_totals(*arguments, len(z), totals)
    np.testing.assert_array_equal(totals, spikes.sum(0))
    return spikes


@given(
    st.sampled_from(RESETS),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([None, 3]),
    st.booleans(),
    st.integers(0, 99),
)
def test_spikes_are_those_worked_out_one_by_one(reset, decay, channels, current, seed):
    # Quarters and eighths: exact in float32 for a few steps.
    z = np.random.default_rng(seed).integers(-4, 12, (5, 9)).astype(np.float32) / 8
    rule = Rule(0.75, decay if current else 1.0, 0.5, 0.25, reset)
    expected = np.array([simulate(column, rule)[0] for column in z.T]).T
    np.testing.assert_array_equal(fired(z, rule, channels, current=current), expected)


def test_channels_go_round_across_blocks():
    neurons, channels = 2 * inference.WIDTH + 10, 7
    thresholds = np.arange(1, channels + 1, dtype=np.float32)
    z = np.full((1, neurons), 3.5, np.float32)  # held
    zeros = np.zeros(channels, np.float32)
    spikes = np.empty((2, neurons), np.uint8)
    inference.fire(z, (None, zeros, thresholds), zeros, 0, None, None, spikes)
    first = thresholds < 3.5
    second = first | (thresholds < 7.0)  # reset to zero and up again, or twice the input
    which = np.arange(neurons) % channels
    np.testing.assert_array_equal(spikes, np.stack([first, second])[:, which])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 9), (3, 8, 64), (2, 129, 33)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_rows_are_added_as_a_product_would(share, shape, with_bias):
    rows, inputs, outputs = shape
    spikes = (torch.rand(rows, inputs) < share).to(torch.uint8)
    weight = torch.randint(-64, 64, (inputs, outputs)) / 64  # exact in any order
    bias = torch.randint(-64, 64, (outputs,)) / 64 if with_bias else None
    out = np.full((rows, outputs), np.nan, np.float32)
    inference.add_rows(spikes.numpy(), weight.numpy(), None if bias is None else bias.numpy(), out)
    expected = spikes.float() @ weight + (0 if bias is None else bias)
    np.testing.assert_array_equal(out, expected.numpy())


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(4, 9), st.integers(4, 9)),
    st.sampled_from([1, 3, 8, 16]),
)
def test_windows_are_summed_as_torch_does(window, stride, size, channels):
    images = (torch.rand(2, channels, *size) < 0.5).float()
    expected = F.avg_pool2d(images, window, stride, divisor_override=1) * 0.3
    expected = expected.permute(0, 2, 3, 1).flatten(2)
    spikes = images.permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()
    spikes, words = spikes.reshape(2, size[0], -1), channels
    if channels % 8 == 0:
        spikes, words = spikes.view(np.uint64), channels // 8
    out = np.full(expected.shape, np.nan, np.float32)
    inference.pool(spikes, words, window, stride, np.float32(0.3), out)
    np.testing.assert_array_equal(out, expected.numpy())
