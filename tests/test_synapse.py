import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikestrap import SpikestrapError
from spikestrap.synapse import ElementWise, Pooling, Synapse, linear
from spikestrap.synapse import convolution as made


def convolution(**options):
    return Synapse(nn.Conv2d(2, 4, 3, padding=1), 3, 2, 4, **options)


SYNAPSES = {
    "linear": (lambda **o: Synapse(nn.Linear(6, 4), 1, 6, 4, **o), (6,)),
    "conv": (convolution, (2, 5, 5)),
    "transposed": (lambda **o: Synapse(nn.ConvTranspose2d(2, 4, 3), 3, 2, 4, **o), (2, 5, 5)),
}
every = pytest.mark.parametrize(("make", "features"), SYNAPSES.values(), ids=list(SYNAPSES))


@every
@pytest.mark.parametrize("weight_norm", [False, True])
def test_applies_its_layer_at_every_step(make, features, weight_norm):
    synapse = make(weight_norm=weight_norm)
    x = torch.randn(5, 3, *features)
    z = synapse(x)
    for t in range(5):
        torch.testing.assert_close(z[t], synapse(x[t]))
        torch.testing.assert_close(z[t], synapse.layer(x[t]))


@every
def test_weight_scale_multiplies_the_initial_weight(make, features):
    torch.manual_seed(1)
    plain = make().weight.detach().clone()
    torch.manual_seed(1)
    scaled = make(weight_scale=3.0)
    torch.testing.assert_close(scaled.weight, 3 * plain)
    torch.manual_seed(1)
    torch.testing.assert_close(make(weight_scale=3.0, weight_norm=True).weight, 3 * plain)


@every
def test_weight_norm_starts_at_the_same_weight_and_keeps_its_axes(make, features):
    torch.manual_seed(1)
    plain = make()
    torch.manual_seed(1)
    normed = make(weight_norm=True)
    torch.testing.assert_close(normed.weight, plain.weight)
    # Its length a slice of axis 0, its direction the whole: w = g v / |v|.
    named = dict(normed.named_parameters())
    length = named["layer.parametrizations.weight.original0"]
    direction = named["layer.parametrizations.weight.original1"]
    with torch.no_grad():
        length.mul_(2)
        direction.mul_(7)
    torch.testing.assert_close(normed.weight, 2 * plain.weight)


@every
def test_weight_norm_has_its_gradients(make, features):
    synapse = make(weight_norm=True)
    x = torch.randn(3, *features)
    target = torch.randn_like(synapse(x))
    (synapse(x) * target).sum().backward()
    named = dict(synapse.named_parameters())
    g = named["layer.parametrizations.weight.original0"]
    v = named["layer.parametrizations.weight.original1"]
    # The same by hand, from the gradient of a plain weight.
    plain = copy.deepcopy(synapse)
    nn.utils.parametrize.remove_parametrizations(plain.layer, "weight")
    (plain(x) * target).sum().backward()
    by_weight = plain.layer.weight.grad
    axes = list(range(1, v.ndim))
    norm = v.pow(2).sum(axes, keepdim=True).sqrt()
    along = (by_weight * v / norm).sum(axes, keepdim=True)
    torch.testing.assert_close(g.grad, along, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        v.grad, g / norm * (by_weight - along * v / norm), rtol=1e-4, atol=1e-5
    )


@every
@pytest.mark.parametrize("weight_norm", [False, True])
def test_copies_and_state_dicts(make, features, weight_norm):
    synapse, fresh = make(weight_norm=weight_norm), make(weight_norm=weight_norm)
    x = torch.randn(3, *features)
    z = synapse(x)
    fresh.load_state_dict(synapse.state_dict())
    twin = copy.deepcopy(synapse)
    assert torch.equal(fresh(x), z)
    assert torch.equal(twin(x), z)
    # A copy learns on its own.
    twin(x).sum().backward()
    assert all(p.grad is None for p in synapse.parameters())
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(2)
    assert torch.equal(synapse(x), z)


@pytest.mark.parametrize(
    ("synapse", "shape", "features"),
    [
        (linear(6, 4, False, 1.0, False), (3, 5), r"\(N, C\) with C = 6"),
        (linear(6, 4, False, 1.0, False), (2, 3, 5), r"\(N, C\) with C = 6"),
        (linear(6, 4, False, 1.0, False), (6,), r"\(N, C\) with C = 6"),
        (linear(6, 4, False, 1.0, False), (3, 6, 2, 2), r"\(N, C\) with C = 6"),
        (convolution(), (3, 3, 5, 5), r"\(N, C, H, W\) with C = 2"),
        (convolution(), (4, 3, 3, 5, 5), r"\(N, C, H, W\) with C = 2"),
        (convolution(), (3, 2), r"\(N, C, H, W\) with C = 2"),
        (convolution(), (3, 2, 5), r"\(N, C, H, W\) with C = 2"),
    ],
)
def test_refuses_other_shapes(synapse, shape, features):
    with pytest.raises(SpikestrapError, match=features) as caught:
        synapse(torch.randn(shape))
    assert str(shape) in str(caught.value)


class TestPooling:
    @pytest.mark.parametrize("size", [2, (2, 3)])
    @pytest.mark.parametrize("stride", [None, 1])
    @pytest.mark.parametrize("padding", [0, 1])
    @pytest.mark.parametrize("weight", [1.0, 0.3])
    def test_sum_is_a_convolution_with_ones(self, size, stride, padding, weight):
        x = torch.randn(4, 3, 2, 6, 6)
        height, width = (size, size) if isinstance(size, int) else size
        ones = torch.full((2, 1, height, width), weight)
        expected = F.conv2d(x.flatten(0, 1), ones, None, stride or size, padding, groups=2)
        expected = expected.unflatten(0, (4, 3))
        for kind, factor in (("sum", 1), ("average", height * width)):
            z = Pooling(size, stride, padding, kind, weight)(x)
            torch.testing.assert_close(z, expected / factor, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(Pooling(size, stride, padding, kind, weight)(x[0]), z[0])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("settings", [(2, None, 0), ((2, 4), 1, 1), (3, 2, 1)])
    @pytest.mark.parametrize(("kind", "weight"), [("average", 1.0), ("sum", 1.0), ("sum", 0.5)])
    def test_is_the_sum_times_its_factor_to_the_bit(self, dtype, settings, kind, weight):
        pooling = Pooling(*settings, kind, weight)
        x = torch.randn(3, 2, 4, 9, 8, dtype=dtype, requires_grad=True)
        y, expected = pooling(x), pooling.sums(x) * pooling.factor
        grad = torch.randn_like(y)
        assert torch.equal(y, expected)
        assert torch.equal(*(torch.autograd.grad(r, x, grad)[0] for r in (y, expected)))

    @pytest.mark.parametrize("kind", ["max", None])
    def test_refuses_what_does_not_commute(self, kind):
        with pytest.raises(SpikestrapError, match="kind must be sum or average, got"):
            Pooling(2, None, 0, kind, 1.0)

    @pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2)])
    def test_refuses_what_is_no_image(self, shape):
        with pytest.raises(SpikestrapError, match="expected images") as caught:
            Pooling(2, None, 0, "sum", 1.0)(torch.randn(shape))
        assert str(shape) in str(caught.value)


def test_element_wise():
    synapse = ElementWise(2.0, -0.5)
    x = torch.randn(4, 3, 5)
    torch.testing.assert_close(synapse(x), 2 * x - 0.5)
    synapse(x).sum().backward()
    torch.testing.assert_close(synapse.weight.grad, x.sum())
    assert synapse.bias.grad == 60


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [1, 3, (2, 4)])
@pytest.mark.parametrize("padding", [0, 1, (0, 2), "same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_kernel_larger_than_the_image_is_refused_where_torch_refuses_it(
    kernel, padding, dilation
):
    size = (2, 3, kernel, 1, padding, dilation, 1)
    options = {"bias": False, "weight_scale": 1.0, "weight_norm": False}
    synapse, refused = made(nn.Conv2d, *size, **options), 0
    for height in range(1, 5):
        x = torch.rand(4, 5, 2, height, 3)
        try:
            expected = synapse.layer(x.flatten(0, 1))
        except RuntimeError:
            refused += 1
            for run in (synapse, lambda y: synapse.run(y, synapse.weight, None)):
                with pytest.raises(SpikestrapError, match=r"a kernel that spans .* is larger"):
                    run(x)
        else:
            assert torch.equal(synapse(x).flatten(0, 1), expected)
    assert refused or kernel == 1 or padding not in (0, "valid")
