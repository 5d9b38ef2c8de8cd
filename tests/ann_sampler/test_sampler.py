import copy
import io
import itertools
import pickle
import warnings

import matplotlib as mpl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.neuron.cases import GRADED, ZOO, draw_parameters

from spikestrap import NotFittedError, SpikestrapError, SpikestrapWarning, ragged
from spikestrap.ann_sampler import SLOPES, AnnSampler
from spikestrap.kernel import use_backend
from spikestrap.neuron import IF, LIF

T = 4
slopes = pytest.mark.parametrize("slope", SLOPES)
inputs = st.one_of(
    st.floats(-3, 3, width=32), st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-40, 7e7])
)


def draw(shape=(T, 50, 6), seed=0):
    """Spikes and inputs of a neuron whose rate covers everything from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.rand(shape, generator=generator) - 1
    return LIF(1.0, 0.1)(z), z


def sampled(seed=0, **settings):
    sampler = AnnSampler(**settings)
    sampler.append(*draw(seed=seed))
    return sampler


def fitted(seed=0, **settings):
    sampler = sampled(seed, **settings)
    sampler.fit()
    return sampler


def quiet(sampler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpikestrapWarning)
        sampler.fit()


PROBE = torch.linspace(-2, 3, 600).view(100, 6)


class TestSampling:
    def test_takes_time_means(self):
        a, z = draw()
        sampler = AnnSampler()
        sampler.append(a, z)
        sums = sampler.statistics.pairs.sum(-1)[0]
        rate, mean = a.mean(0).double(), z.mean(0).double()
        expected = torch.stack([torch.tensor(300.0), mean.sum(), rate.sum(), (rate**2).sum()])
        torch.testing.assert_close(sums, expected.double())
        assert sampler.count == 300
        assert sampler.pending
        assert sampler.time_steps == T

    @pytest.mark.parametrize("per", ["layer", "channel"])
    def test_takes_means_as_well(self, per):
        a, z = draw()
        one, other = (AnnSampler(per=per, channels=6) for _ in range(2))
        one.append(a, z)
        other.append_means(a.mean(0), z.mean(0), T)
        assert torch.equal(one.statistics.pairs, other.statistics.pairs)
        assert (other.count, other.time_steps, other.pending) == (300, T, True)

    @pytest.mark.parametrize(
        ("rate", "mean", "time_steps", "message"),
        [
            ((50, 6), (50, 5), T, r"same shape; got \(50, 6\) and \(50, 5\)"),
            ((), (), T, r"rates \(N, \.\.\.\)"),
            ((50, 5), (50, 5), 4, r"\(T, N, 6, \.\.\.\).*got \(4, 50, 5\)"),
            ((50, 6), (50, 6), 0, "time_steps must be a whole number >= 1, got 0"),
        ],
    )
    def test_refuses_means_that_do_not_match(self, rate, mean, time_steps, message):
        sampler = AnnSampler(per="channel", channels=6)
        with pytest.raises(SpikestrapError, match=message):
            sampler.append_means(torch.zeros(rate), torch.zeros(mean), time_steps)

    def test_takes_a_held_input(self):
        z = 3 * torch.rand(1, 50, 6) - 1
        a = LIF(1.0, 0.1)(z, time_steps=T)
        one, other = AnnSampler(), AnnSampler()
        one.append(a, z)
        other.append(a, z.expand(T, 50, 6))
        torch.testing.assert_close(one.statistics.pairs, other.statistics.pairs)

    @pytest.mark.parametrize("shape", [(T, 8), (T, 2, 3), (T, 2, 3, 5, 5), (1, 2, 3)])
    def test_takes_any_shape(self, shape):
        a, z = draw(shape)
        sampler = AnnSampler()
        sampler.append(a, z)
        assert sampler.count == z[0].numel()

    def test_takes_half_precision(self):
        a, z = draw()
        one, other = AnnSampler(), AnnSampler()
        one.append(a.bfloat16(), z.bfloat16())
        other.append(a, z.bfloat16().float())
        assert torch.equal(one.statistics.pairs, other.statistics.pairs)

    def test_keeps_no_graph(self):
        a, z = draw()
        sampler = AnnSampler()
        sampler.append(a, z.requires_grad_())
        sampler.fit()
        assert not any(buffer.requires_grad for buffer in sampler.buffers())

    def test_nothing_is_no_sample(self):
        sampler = AnnSampler()
        sampler.append(torch.zeros(T, 0, 6), torch.zeros(T, 0, 6))
        assert not sampler.pending

    def test_memory_is_bounded(self):
        sampler = AnnSampler()
        size = {name: buffer.shape for name, buffer in sampler.named_buffers()}
        for k in range(30):
            a, z = draw(seed=k)
            sampler.append(a, z * 10.0**k)
            assert {name: buffer.shape for name, buffer in sampler.named_buffers()} == size
        assert sampler.count == 30 * 300
        assert sum(b.numel() * b.element_size() for b in sampler.buffers()) < 2**18

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("into", ["z", "a"])
    def test_refuses_what_is_not_finite(self, bad, into):
        a, z = draw()
        (z if into == "z" else a)[2, 3, 1] = bad
        sampler = AnnSampler()
        with pytest.raises(SpikestrapError, match=r"NaN or inf|rates must be in \[0, 1\]"):
            sampler.append(a, z)
        assert not sampler.pending
        assert (sampler.statistics.pairs == 0).all()

    @pytest.mark.parametrize("factor", [-1.0, 1.5])
    def test_refuses_rates_that_are_none(self, factor):
        a, z = draw()
        with pytest.raises(SpikestrapError, match=r"rates must be in \[0, 1\], got"):
            AnnSampler().append(factor * a, z)

    @pytest.mark.parametrize("time_steps", [1, 3, 8])
    def test_refuses_spikes_of_another_height_where_it_rounds(self, time_steps):
        a, z = draw((time_steps, 50, 6))
        with pytest.raises(SpikestrapError, match=rf"T = {time_steps}, .*got one .*rounding=False"):
            AnnSampler().append(0.5 * a, z)
        sampler = AnnSampler(rounding=False)
        sampler.append(0.5 * a, z)
        sampler.fit()
        assert (sampler(z.mean(0)) - 0.5 * a.mean(0)).abs().mean() < 0.05

    @pytest.mark.parametrize("time_steps", [3, 7, 64, 1000])
    def test_takes_every_number_of_spikes(self, time_steps):
        a = torch.ones(time_steps, time_steps + 1, 1).tril(-1)
        AnnSampler().append(a, a)

    @pytest.mark.parametrize(
        ("a", "z"),
        [((4, 8, 3), (4, 8, 2)), ((4, 8, 3), (2, 8, 3)), ((4, 8, 3), (8, 3)), ((4,), (4,))],
    )
    def test_refuses_shapes_that_do_not_match(self, a, z):
        with pytest.raises(SpikestrapError, match="same shape") as caught:
            AnnSampler().append(torch.zeros(a), torch.zeros(z))
        assert str(a) in str(caught.value)
        assert str(z) in str(caught.value)

    def test_other_time_steps_start_afresh(self):
        sampler = sampled()
        a, z = draw((2 * T, 20, 6))
        sampler.append(a, z)
        alone = AnnSampler()
        alone.append(a, z)
        assert torch.equal(sampler.statistics.pairs, alone.statistics.pairs)
        assert sampler.count == alone.count
        assert sampler.time_steps == 2 * T

    @pytest.mark.parametrize("memory", [0.0, 0.5])
    def test_sequences_of_other_lengths_go_together(self, memory):
        """As if each had been sampled alone; T is that of the longest that is remembered."""
        sampler, expected = AnnSampler(memory=memory), 0
        for number, lengths in enumerate(([3, 7], [5, 2])):
            a, z = draw((8, 2, 6), number)
            with ragged(torch.tensor(lengths)):
                sampler.append(a, z)
            for n, length in enumerate(lengths):
                alone = AnnSampler()
                alone.append(a[:length, n : n + 1], z[:length, n : n + 1])
                expected += alone.statistics.pairs
            torch.testing.assert_close(sampler.statistics.pairs, expected)
            assert sampler.time_steps == 7
        sampler.fit()
        with ragged(torch.tensor([4, 4])):
            sampler.append(a, z)
        assert sampler.time_steps == (7 if memory else 4)
        sampler.append(a, z)  # of one length: afresh
        assert (sampler.time_steps, sampler.count) == (8, 12)

    @pytest.mark.parametrize("memory", [0.0, 0.25, 1.0])
    def test_memory_is_what_stays_after_a_fit(self, memory):
        old, new = sampled(0), sampled(1)
        sampler = sampled(0, memory=memory)
        sampler.fit()
        # Until sampling resumes they stay.
        torch.testing.assert_close(sampler.statistics.pairs, old.statistics.pairs)
        sampler.append(*draw(seed=1))
        torch.testing.assert_close(
            sampler.statistics.pairs, memory * old.statistics.pairs + new.statistics.pairs
        )
        # Only once: the next batch belongs to the same sampling.
        sampler.append(*draw(seed=2))
        expected = (
            memory * old.statistics.pairs + new.statistics.pairs + sampled(2).statistics.pairs
        )
        torch.testing.assert_close(sampler.statistics.pairs, expected)

    def test_clear_forgets_samples_and_keeps_the_curve(self):
        sampler = fitted()
        rates = sampler(PROBE)
        sampler.append(*draw(seed=1))
        sampler.clear()
        assert not sampler.pending
        assert (sampler.statistics.pairs == 0).all()
        assert torch.equal(sampler(PROBE), rates)


class TestMerging:
    @given(st.integers(1, 49), st.sampled_from(["layer", "channel"]))
    def test_halves_make_the_whole(self, cut, per):
        a, z = draw()
        left, right, whole = (AnnSampler(per=per, channels=6) for _ in range(3))
        left.append(a[:, :cut], z[:, :cut])
        right.append(a[:, cut:], z[:, cut:])
        whole.append(a, z)
        left.merge(right)
        torch.testing.assert_close(left.statistics.pairs, whole.statistics.pairs)
        assert left.count == whole.count
        left.fit()
        whole.fit()
        torch.testing.assert_close(left.values, whole.values, atol=1e-4, rtol=0)
        torch.testing.assert_close(left.origin, whole.origin)

    def test_into_an_empty_one(self):
        sampler = AnnSampler()
        sampler.merge(sampled())
        assert sampler.pending
        assert sampler.time_steps == T
        sampler.fit()
        assert torch.equal(sampler(PROBE), fitted()(PROBE))

    @pytest.mark.parametrize("memory", [0.0, 0.5])
    def test_is_as_if_sampled_here(self, memory):
        # After a fit as well: what was fitted before is forgotten as sampling would.
        merged, own = fitted(0, memory=memory), fitted(0, memory=memory)
        merged.merge(sampled(1))
        own.append(*draw(seed=1))
        torch.testing.assert_close(merged.statistics.pairs, own.statistics.pairs)
        assert merged.count == own.count

    def test_what_another_has_fitted_is_pending_here_and_in_copies(self):
        whole, merged, loaded = sampled(), sampled(), AnnSampler()
        whole.append(*draw(seed=1))
        merged.fit()
        merged.merge(fitted(0))  # fitted samples are forgotten, as sampling would
        merged.merge(fitted(1))
        loaded.load_state_dict(merged.state_dict())
        whole.fit()
        for sampler in (merged, loaded):
            assert sampler.pending
            assert sampler.count == 2 * draw()[0][0].numel()
            sampler.fit()
            torch.testing.assert_close(sampler(PROBE), whole(PROBE))

    @pytest.mark.parametrize("memory", [0.0, 0.5])
    def test_with_an_empty_one_changes_nothing(self, memory):
        for make in (sampled, fitted):
            sampler, untouched = make(memory=memory), make(memory=memory)
            sampler.merge(AnnSampler(memory=memory))
            assert torch.equal(sampler.statistics.pairs, untouched.statistics.pairs)
            assert sampler.pending == untouched.pending
            sampler.fit()
            assert torch.equal(sampler(PROBE), fitted()(PROBE))

    def test_refuses_another_form_or_time(self):
        with pytest.raises(SpikestrapError, match="same form and T"):
            sampled().merge(sampled(per="channel", channels=6))
        other = AnnSampler()
        other.append(*draw((2 * T, 20, 6)))
        with pytest.raises(SpikestrapError, match=r"T = 8, into .* T = 4"):
            sampled().merge(other)


class TestFit:
    def test_without_samples_says_what_to_run(self):
        with pytest.raises(NotFittedError, match=r"Mode\.SAMPLE"):
            AnnSampler().fit()

    @given(
        arrays.arrays("float32", st.tuples(st.integers(1, 30), st.just(3)), elements=inputs),
        st.integers(0, 2**32 - 1),
        st.integers(1, 6),
        st.sampled_from(SLOPES),
        st.sampled_from([("layer", None), ("channel", 3)]),
        st.sampled_from([0.0, 0.5, 1.0, None]),
        st.booleans(),
    )
    def test_any_data_gives_a_curve(self, z, seed, time_steps, slope, scope, rate, rounding):
        z = torch.from_numpy(z)
        generator = torch.Generator().manual_seed(seed)
        threshold = torch.rand(z.shape, generator=generator) if rate is None else 1 - rate
        a = (torch.rand(time_steps, *z.shape, generator=generator) >= threshold).float()
        per, channels = scope
        sampler = AnnSampler(slope=slope, per=per, channels=channels, rounding=rounding)
        sampler.append(a, z.unsqueeze(0))
        quiet(sampler)
        assert all(torch.isfinite(buffer).all() for buffer in sampler.buffers())
        probe = torch.cat([torch.linspace(-4, 4, 100), z.flatten(), torch.tensor([-1e38, 1e38])])
        probe = probe.sort().values[:, None].repeat(1, 3).requires_grad_()
        rates = sampler(probe)
        assert ((rates >= 0) & (rates <= 1)).all()
        assert (rates.diff(dim=0) >= 0).all()
        rates.sum().backward()
        assert torch.isfinite(probe.grad).all()
        assert (probe.grad >= 0).all()

    @pytest.mark.parametrize("threshold", [1.0, 20.0])
    @pytest.mark.parametrize("time_steps", [1, 2, 4, 8])
    @pytest.mark.parametrize("per", ["layer", "channel"])
    def test_finds_the_curve_that_is_known(self, threshold, time_steps, per):
        """IF from half a threshold, reset by subtraction: inputs rounded to k / T."""
        neuron = IF(threshold, reset="subtract", v_init=threshold / 2)
        z = threshold * (2 * torch.rand(1, 5000, 4) - 0.5)
        sampler = AnnSampler(per=per, channels=4)
        sampler.append(neuron(z, time_steps=time_steps), z)
        sampler.fit()
        probe = torch.linspace(-0.5, 1.5, 1201).view(-1, 1).expand(-1, 4)
        known = (time_steps * probe).round().clamp(0, time_steps) / time_steps
        rates = sampler(threshold * probe)
        # Bins are an octave's 32nd or, a channel, 8th: next to a step the side may be wrong.
        wrong = rates != known
        assert wrong.float().mean() < (0.02 if per == "layer" else 0.08)
        assert (rates - known).abs().max() < 1.01 / time_steps
        assert sampler.residual.max() < (0.05 if per == "layer" else 0.1)

    def test_the_grid_moves_at_every_fit(self):
        sampler = fitted()
        low = sampler.origin.item()
        z = 100 + 300 * torch.rand(T, 50, 6)
        sampler.append(LIF(200.0, 0.1)(z), z)
        sampler.fit()
        assert sampler.origin.item() > low + 10
        exact = AnnSampler()
        exact.append(LIF(200.0, 0.1)(z), z)
        exact.fit()
        assert torch.equal(sampler(100 * PROBE), exact(100 * PROBE))

    def test_a_layer_that_saturates_low_stays_low(self):
        z = 4 * torch.rand(1, 500, 4) - 1
        a = torch.zeros(T, 500, 4)
        a[:2] = (z > 0.5).float()
        sampler = AnnSampler(rounding=False)
        sampler.append(a, z)
        sampler.fit()
        assert sampler(torch.tensor([[1.0, 5.0]])).tolist()[0] == pytest.approx(
            [0.5, 0.5], abs=0.01
        )

    @pytest.mark.parametrize("per", ["layer", "channel"])
    def test_a_silent_layer_warns_and_can_recover(self, per):
        sampler = AnnSampler(per=per, channels=3)
        z = torch.rand(T, 20, 3) - 2
        sampler.append(torch.zeros(T, 20, 3), z)
        with pytest.warns(
            SpikestrapWarning,
            match="a layer of 3 neurons never spiked in 60 samples of T = 4.*threshold",
        ):
            sampler.fit()
        probe = (torch.rand(5, 3) - 2).requires_grad_()
        rates = sampler(probe)
        assert (rates == 0).all()
        rates.sum().backward()
        assert (probe.grad > 0).all()

    def test_a_layer_that_always_spikes_warns_and_can_recover(self):
        sampler = AnnSampler()
        sampler.append(torch.ones(T, 20, 3), torch.rand(T, 20, 3) + 5)
        with pytest.warns(
            SpikestrapWarning, match="spiked at every one of T = 4 steps in 60 samples"
        ):
            sampler.fit()
        probe = (torch.rand(5, 3) + 5).requires_grad_()
        rates = sampler(probe)
        assert (rates == 1).all()
        rates.sum().backward()
        assert (probe.grad > 0).all()

    def test_a_layer_that_spikes_does_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted()

    @pytest.mark.parametrize("per", ["layer", "channel"])
    @pytest.mark.parametrize("time_steps", [1, 8, 64])
    def test_rates_that_fall_are_warned_of(self, per, time_steps):
        z = 2 * torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) - 0.5
        only_below = LIF(1.0, 0.1)(1 - z, time_steps=time_steps)
        band = (z > 0).float().expand(time_steps, -1, -1) * (z < 0.5)
        for a in (only_below, band):
            sampler = AnnSampler(per=per, channels=3)
            sampler.name = "hidden"
            sampler.append(a, z)
            with pytest.warns(
                SpikestrapWarning, match=r"layer 'hidden' spikes less where .* by 0\.[1-4].*negate"
            ) as warned:
                sampler.fit()
            assert ("per=" in str(warned[0].message)) == (per == "layer")

    @pytest.mark.parametrize("neuron_type", sorted(set(ZOO) - set(GRADED), key=str))
    @pytest.mark.parametrize("time_steps", [1, 4, 64])
    @pytest.mark.parametrize("samples", [4, 100])
    def test_rates_of_no_neuron_here_fall(self, neuron_type, time_steps, samples):
        """On inputs of any mean and variation, by pair or by neuron, with any parameters."""
        for seed, reset in itertools.product(range(2), ("zero", "subtract", "none")):
            torch.manual_seed(seed)
            neuron = neuron_type(**draw_parameters(neuron_type, seed), reset=reset)
            for n in (1, samples):
                means, spreads = torch.randn(1, n, 8), 2 * torch.rand(1, n, 8)
                z = means + spreads * torch.randn(time_steps, samples, 8)
                with use_backend("reference"):
                    a = neuron(z)
                for per in ("layer", "channel"):
                    sampler = AnnSampler(per=per, channels=8)
                    sampler.append(a, z)
                    with warnings.catch_warnings():
                        warnings.filterwarnings("error", "a layer .* spikes less")
                        warnings.filterwarnings("ignore", "a layer .* spiked", SpikestrapWarning)
                        sampler.fit()

    def test_a_fit_uses_up_the_samples(self):
        sampler = fitted()
        assert not sampler.pending
        assert sampler.fitted == 1
        before = sampler(PROBE)
        sampler.fit()  # the statistics are still there
        assert torch.equal(sampler(PROBE), before)


class TestActivation:
    def test_before_any_fit_says_what_to_run(self):
        for sampler in (AnnSampler(), sampled()):
            with pytest.raises(NotFittedError, match=r"Mode\.SAMPLE.*Mode\.FIT"):
                sampler(PROBE)

    @pytest.mark.parametrize("time_steps", [1, 2, 3, 7])
    def test_rounding_gives_rates_that_there_are(self, time_steps):
        for rounding in (True, False):
            sampler = AnnSampler(rounding=rounding)
            sampler.append(*draw((time_steps, 100, 6)))
            sampler.fit()
            counts = sampler(PROBE) * time_steps
            off = (counts - counts.round()).abs().max()
            assert (off < 1e-5) == rounding

    def test_rounding_leaves_the_gradient(self):
        grads = []
        for rounding in (True, False):
            probe = PROBE.clone().requires_grad_()
            fitted(rounding=rounding)(probe).sum().backward()
            grads.append(probe.grad)
        assert torch.equal(*grads)
        assert grads[0].max() > 0

    @slopes
    def test_slopes_are_those_of_their_kind(self, slope):
        sampler = fitted(slope=slope, rounding=False)
        origin, width = sampler.origin.item(), sampler.width.item()
        cells = sampler.values.shape[1] - 1
        centre = (origin + width * (torch.arange(cells) + 0.5)).view(-1, 1).requires_grad_()
        sampler(centre).sum().backward()
        secant = lambda half: (  # noqa: E731
            (sampler(centre + half) - sampler(centre - half)).detach() / (2 * half)
        )
        own = secant(width / 4)
        if slope == "fit":
            torch.testing.assert_close(centre.grad, own, atol=1e-3, rtol=1e-3)
        elif slope == "rescaled":
            mean = sampler.values[0, -1] / abs(origin + cells * width)
            torch.testing.assert_close(centre.grad, own / mean + 1e-5, atol=1e-3, rtol=1e-3)
        else:
            # Smoother than the curve, and the same in sum.
            assert centre.grad.diff(dim=0).abs().max() < own.diff(dim=0).abs().max()
            assert centre.grad.sum().item() == pytest.approx(own.sum().item(), rel=0.1)

    @pytest.mark.parametrize("threshold", [0.5, 1.0, 8.0])
    @pytest.mark.parametrize("time_steps", [1, 2, 3, 4, 8, 16, 64])
    def test_the_smooth_slope_of_a_staircase_is_that_of_a_ramp(self, time_steps, threshold):
        """By hand: rates rounded to k/T are a ramp up to the threshold; its secant over half."""
        z = threshold * (2 * torch.rand(4000, 5, generator=torch.Generator().manual_seed(1)) - 0.5)
        held = z.expand(time_steps, -1, -1)
        neuron = IF(threshold=threshold, reset="subtract", v_init=threshold / 2)
        sampler = AnnSampler()
        sampler.append(neuron(held), held)
        sampler.fit()
        probe = torch.linspace(-1, 2, 101).view(-1, 1).requires_grad_()
        sampler(threshold * probe).sum().backward()
        above, below = ((probe + side).detach().clamp(0, 1) for side in (0.25, -0.25))
        torch.testing.assert_close(probe.grad, 2 * (above - below), atol=0.05, rtol=0)

    def test_dtype_and_shape_are_kept(self):
        sampler = fitted()
        expected = sampler(PROBE)
        assert sampler(PROBE.double()).dtype is torch.float64
        half = sampler(PROBE.bfloat16())
        assert half.dtype is torch.bfloat16
        assert torch.equal(half.float(), sampler(PROBE.bfloat16().float()))
        images = PROBE.view(100, 1, 2, 3)
        assert torch.equal(sampler(images).view(100, 6), expected)
        assert torch.equal(sampler(PROBE.T.contiguous().T), expected)

    def test_autocast_leaves_it_alone(self):
        sampler = fitted()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(sampler(PROBE), fitted()(PROBE))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_runs_in_a_module_that_was_cast(self, dtype):
        # The curve is float32 whatever the weights are; or half precision is refused.
        sampler = fitted().to(dtype)
        try:
            rates = sampler(PROBE.to(dtype))
        except SpikestrapError:
            assert dtype is not torch.float64
            return
        assert rates.dtype is dtype
        expected = fitted()(PROBE.to(dtype).float())
        assert (rates.float() == expected).float().mean() > 0.95

    def test_samples_in_a_module_that_was_cast(self):
        # Statistics in bfloat16 would stop counting at 256.
        sampler = AnnSampler().to(torch.bfloat16)
        for _ in range(10):
            sampler.append(torch.ones(T, 50, 6), torch.ones(T, 50, 6))
        assert sampler.statistics.pairs[0, 0].double().sum().item() == 3000

    def test_used_twice_before_the_backward_pass(self):
        sampler = sampled()
        probe = PROBE.clone().requires_grad_()
        sampler.fit()
        first = sampler(probe)
        sampler.fit()
        (first + sampler(probe)).sum().backward()
        assert (probe.grad >= 0).all()


class TestChannels:
    def test_each_channel_has_its_own_curve(self):
        threshold = torch.tensor([0.5, 2.0, 8.0])
        z = 10 * torch.rand(1, 2000, 3)
        neuron = IF(threshold, reset="subtract", v_init=threshold / 2)
        sampler = AnnSampler(per="channel", channels=3)
        sampler.append(neuron(z, time_steps=2), z)
        sampler.fit()
        probe = torch.tensor([[0.3, 0.9, 3.0, 9.0]]).T.expand(4, 3)
        known = (2 * probe / threshold).round().clamp(0, 2) / 2
        assert torch.equal(sampler(probe), known)
        for k in range(3):
            images = probe.view(4, 3, 1, 1).expand(4, 3, 2, 2)
            assert torch.equal(sampler(images)[:, k, 1, 0], known[:, k])

    def test_is_one_sampler_a_channel(self):
        a, z = draw((T, 300, 3))
        together = AnnSampler(per="channel", channels=3, rounding=False)
        together.append(a, z)
        together.fit()
        for k in range(3):
            alone = AnnSampler(per="channel", channels=1, rounding=False)
            alone.append(a[:, :, k : k + 1], z[:, :, k : k + 1])
            alone.fit()
            probe = PROBE[:, :3]
            assert torch.equal(together(probe)[:, k], alone(probe)[:, k])

    def test_refuses_other_channels(self):
        sampler = fitted(per="channel", channels=6)
        with pytest.raises(SpikestrapError, match=r"\(T, N, 6, \.\.\.\).*got \(4, 2, 5\)"):
            sampler.append(torch.zeros(4, 2, 5), torch.zeros(4, 2, 5))
        with pytest.raises(SpikestrapError, match=r"\(N, 6, \.\.\.\).*got \(2, 5\)"):
            sampler(torch.zeros(2, 5))


class TestKeeping:
    CASES = pytest.mark.parametrize(
        "settings",
        [{}, {"per": "channel", "channels": 6}, {"slope": "fit", "cells": 12}],
        ids=["default", "channel", "coarse"],
    )

    @staticmethod
    def twins(sampler, settings):
        loaded = AnnSampler(**settings)
        file = io.BytesIO()
        torch.save(sampler.state_dict(), file)
        file.seek(0)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        assigned = AnnSampler(**settings)
        assigned.load_state_dict(copy.deepcopy(sampler.state_dict()), assign=True)
        return loaded, assigned, copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))

    @CASES
    def test_a_fitted_one(self, settings):
        sampler = fitted(**settings)
        for twin in self.twins(sampler, settings):
            assert torch.equal(twin(PROBE), sampler(PROBE))
            assert not twin.pending
            assert twin.time_steps == T
            # From here on it goes its own way.
            twin.append(*draw(seed=1))
            twin.fit()
            assert sampler.fitted == 1
            assert torch.equal(sampler(PROBE), fitted(**settings)(PROBE))

    @CASES
    def test_one_with_samples_pending(self, settings):
        sampler = sampled(**settings)
        for twin in self.twins(sampler, settings):
            assert twin.pending
            assert twin.count == sampler.count
            twin.fit()
            assert torch.equal(twin(PROBE), fitted(**settings)(PROBE))
        assert sampler.pending

    def test_loaded_in_inference_mode_samples_on(self):
        sampler, loaded = sampled(), AnnSampler()
        with torch.inference_mode():
            loaded.load_state_dict(sampler.state_dict())
        for each in (sampler, loaded):
            each.append(*draw(seed=1))
            each.fit()
        assert torch.equal(loaded(PROBE), sampler(PROBE))

    @pytest.mark.parametrize("how", ["buffers", "state dict"])
    def test_a_newer_curve_from_outside_goes_before_samples_that_are_older(self, how):
        newest, sampler = fitted(seed=1), sampled()
        if how == "buffers":  # as an averaged copy gets them
            for own, other in zip(sampler.buffers(), newest.buffers(), strict=True):
                own.copy_(other)
        else:
            curve = {name: buffer.clone() for name, buffer in newest.named_buffers()}
            sampler.load_state_dict(curve, strict=False)
        loaded = AnnSampler()
        loaded.load_state_dict(sampler.state_dict())
        for each in (loaded, sampler):
            assert not each.pending
            assert each.count == 0
            assert torch.equal(each(PROBE), newest(PROBE))
            each.append(*draw(seed=2))  # which starts afresh
            each.fit()
            assert torch.equal(each(PROBE), fitted(seed=2)(PROBE))

    def test_a_curve_alone_goes_before_samples_after_as_many_fits(self):
        sampler, other = fitted(), fitted(seed=1)
        sampler.append(*draw(seed=2))
        sampler.load_state_dict(dict(other.named_buffers()), strict=False)
        assert not sampler.pending
        assert torch.equal(sampler(PROBE), other(PROBE))

    def test_a_broadcast_of_the_same_curve_leaves_samples_pending(self):
        sampler = fitted()
        sampler.append(*draw(seed=1))
        for buffer in sampler.buffers():
            buffer.copy_(buffer.clone())
        assert sampler.pending

    def test_a_fresh_one_undoes_a_fit(self):
        sampler = fitted()
        sampler.load_state_dict(AnnSampler().state_dict())
        with pytest.raises(NotFittedError):
            sampler(PROBE)

    def test_a_state_from_when_gradients_of_either_sign_had_their_slopes_loads(self):
        sampler = fitted()
        before = sampler.state_dict()
        before["slopes"] = torch.stack([before["slopes"] + 0.01, before["slopes"]], 1)
        del before["changes"], before["idle_slopes"]
        other = AnnSampler()
        other.load_state_dict(before)
        assert torch.equal(other.slopes, sampler.slopes)

    def test_it_is_all_in_the_state_dict(self):
        assert set(AnnSampler().state_dict()) == {
            "statistics", "count", "levels", "fitted", "origin", "width", "values", "slopes",
            "residual", "changes", "idle_slopes",
        }  # fmt: skip


class TestBegin:
    @pytest.mark.parametrize("scope", [("layer", None), ("channel", 6), ("channel", 3)])
    @pytest.mark.parametrize("make", [AnnSampler, sampled, fitted])
    def test_is_as_new(self, make, scope):
        sampler, new = make(cells=16), AnnSampler(cells=16, per=scope[0], channels=scope[1])
        with torch.inference_mode():
            sampler.begin(*scope)
        assert not sampler.pending
        state = sampler.state_dict()
        assert state.keys() == new.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in new.state_dict().items())
        a, z = draw((T, 50, scope[1] or 6))
        for each in (sampler, new):
            each.append(a, z)
            each.fit()
        probe = PROBE[:, :1].expand(-1, scope[1] or 6)
        assert torch.equal(sampler(probe), new(probe))

    @pytest.mark.parametrize("inside", [True, False])
    def test_what_is_made_in_inference_mode_can_be_sampled_and_begun_anew(self, inside):
        with torch.inference_mode():
            sampler = AnnSampler()
        with torch.inference_mode(inside):
            sampler.append(*draw())
            sampler.begin("channel", 6)
            sampler.append(*draw())
        sampler.fit()
        assert torch.equal(sampler(PROBE), fitted(per="channel", channels=6)(PROBE))

    def test_refuses_channels_of_no_number(self):
        with pytest.raises(SpikestrapError, match=r"needs channels, .* got None"):
            AnnSampler().begin("channel")


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"slope": "steep"}, "slope must be one of smooth, fit, rescaled; got 'steep'"),
            ({"per": "pixel"}, "per must be one of layer, channel; got 'pixel'"),
            ({"per": "channel"}, 'per="channel" needs channels, .* got None'),
            ({"per": "channel", "channels": 0}, "needs channels, .* got 0"),
            ({"memory": 1.5}, "memory must be a finite number from 0 to 1, got 1.5"),
            ({"memory": -0.1}, "memory must be a finite number from 0 to 1, got -0.1"),
            ({"cells": 3}, "cells must be a whole number from 4 to 250, got 3"),
            ({"cells": 251}, "from 4 to 250, got 251"),
            ({"cells": 16.0}, "from 4 to 250, got 16.0"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(SpikestrapError, match=message):
            AnnSampler(**settings)


class TestPlot:
    @pytest.fixture(autouse=True)
    def _no_window(self):
        import matplotlib.pyplot as plt

        before = mpl.get_backend()
        plt.switch_backend("Agg")
        yield
        plt.close("all")
        plt.switch_backend(before)

    @pytest.mark.parametrize("per", ["layer", "channel"])
    def test_draws_on_the_axes_that_it_returns(self, per):
        import matplotlib.pyplot as plt

        sampler = fitted(per=per, channels=6, rounding=False)
        _, ax = plt.subplots()
        assert sampler.plot(ax, channel=0 if per == "layer" else 4) is ax
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert {"SNN", "curve"} <= set(labels)
        line = next(line for line in ax.get_lines() if line.get_label() == "curve")
        x, y = (torch.as_tensor(v, dtype=torch.float32) for v in line.get_data())
        expected = sampler(x[:, None].expand(-1, 6))[:, 0 if per == "layer" else 4]
        torch.testing.assert_close(y, expected)
        points = ax.collections[0].get_offsets()
        assert len(points) > 3
        assert ax.get_xlabel() == "mean input"
        ax.figure.canvas.draw()

    def test_makes_axes_where_none_are_given(self):
        ax = fitted().plot()
        assert ax.get_lines()

    def test_before_a_fit_there_are_only_samples(self):
        ax = sampled().plot()
        assert ax.collections
        assert not ax.get_lines()

    def test_of_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            AnnSampler().plot()
