import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from spikestrap.kernel import inference
from spikestrap.kernel.rows import packed


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 9), (3, 8, 64), (130, 129, 33)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_rows_are_added_as_a_product_would(share, shape, with_bias):
    rows, inputs, outputs = shape
    spikes = (torch.rand(rows, inputs) < share).to(torch.uint8)
    weight = torch.randint(-64, 64, (inputs, outputs)) / 64  # exact in any order
    bias = torch.randint(-64, 64, (outputs,)) / 64 * with_bias
    table = packed(weight)
    start = F.pad(bias, (0, 16 * len(table) - outputs))
    out = np.full((rows, 16 * len(table)), np.nan, np.float32)
    inference.add_rows(spikes.numpy(), table.numpy(), start.numpy(), out)
    expected = spikes.float() @ weight + bias
    np.testing.assert_array_equal(out[:, :outputs], expected.numpy())


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
