import copy
import io
import warnings
from types import SimpleNamespace
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import snntorch
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from spikingjelly.activation_based import layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikestrap as ss
from spikestrap.train import BootstrapCallback, BootstrapModule, Options
from spikestrap.train.callback import classified

NEURON = {"threshold": 1.0, "voltage_decay": 0.0, "reset": "subtract", "v_init": 0.5}
SCHEDULER = ss.Scheduler(num_sample_iter=2, sample_period=2)
cuba = ss.block.cuba


def network(**own):
    torch.manual_seed(0)
    return ss.Network(
        cuba.Dense({**NEURON, **own}, 6, 16, weight_norm=True),
        cuba.Dense(NEURON, 16, 8, weight_norm=True),
        cuba.Affine(None, 8, 2),
        time_steps=4,
    )


def loader(n=64, batch=8):
    x = torch.rand(n, 6, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x.sum(1) > 3).long()), batch)


class Plain(pl.LightningModule):
    """As one writes it for any network; notes the modes."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or network()
        self.modes = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.modes.append(str(self.bootstrap_mode))
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        self.modes.append(f"validation {self.bootstrap_mode}")

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02)


def trained(module, callback=None, train=None, more=(), **options):
    callback = callback or BootstrapCallback(SCHEDULER)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = pl.Trainer(
            **{
                "accelerator": "cpu",
                "max_epochs": 2,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "callbacks": [callback, *more],
                **options,
            }
        )
        trainer.fit(module, train or loader(), loader(32, 16))
    return trainer


def samplers(module):
    return [unit.sampler for _, unit in ss.unit.units_of(module)]


def test_a_module_that_knows_nothing_of_it_trains_by_bootstrap():
    module = Plain()
    trainer = trained(module)
    sampled = ["SAMPLE", "SAMPLE", "FIT", *5 * ["ANN"]]
    validated = 2 * ["validation SNN"]
    assert module.modes == [*sampled, *validated, *8 * ["ANN"], *validated]
    assert [int(s.fitted) for s in samplers(module)] == [1, 1]
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {
        "snn_accuracy", "ann_accuracy", "gap", "event_rate",
        "event_rate/net.blocks.0.unit", "event_rate/net.blocks.1.unit",
    }  # fmt: skip
    assert logged["gap"] == pytest.approx(logged["ann_accuracy"] - logged["snn_accuracy"])
    x, y = loader(32).dataset.tensors
    net = module.net.eval()
    for mode in ("snn", "ann"):
        right = net(x, ss.Mode(mode)).argmax(1) == y
        assert logged[f"{mode}_accuracy"] == pytest.approx(100 * float(right.float().mean()))
    assert net(x).argmax(1).equal(net(x, ss.Mode.SNN).argmax(1))  # hooks are gone


def test_it_is_the_hand_written_loop_to_the_bit():
    module, net = Plain(), network()
    trained(module)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    for epoch in range(2):
        for i, (x, y) in enumerate(loader()):
            mode = SCHEDULER.mode(epoch, i)
            loss = F.cross_entropy(net(x, mode), y)
            if mode.base_mode is ss.Mode.SAMPLE:
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, value in net.state_dict().items():
        assert value.equal(module.net.state_dict()[name]), name


def test_what_a_short_loader_leaves_pending_is_fitted_and_can_be_trained_with():
    module = Plain()
    trained(module, train=loader(16))  # two batches: the schedule's FIT never comes
    assert [int(s.fitted) for s in samplers(module)] == [1, 1]
    assert not any(b.is_inference() for b in module.buffers())  # validation is in inference mode
    assert module.modes[-3] == "ANN"


@pytest.mark.parametrize("make", [Plain, lambda: BootstrapModule(network(), Options())])
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (4, 1)])
def test_what_is_sampled_makes_no_step(make, accumulate, steps):
    """Eight batches, the first two sampled: of two steps of four batches the first is left out."""
    module = make()
    before = copy.deepcopy(module.state_dict())
    samples = BootstrapCallback(ss.Scheduler(num_sample_iter=8, sample_period=2))
    with pytest.warns(ss.SpikestrapWarning, match="nothing trains as an ANN") as warned:
        trained(module, samples, max_epochs=1, accumulate_grad_batches=accumulate)
    assert warned[0].filename == __file__
    for name, parameter in module.named_parameters():
        assert parameter.equal(before[name]), name
    trainer = trained(module, max_epochs=1, accumulate_grad_batches=accumulate)
    (optimizer,) = trainer.optimizers
    assert {int(state["step"]) for state in optimizer.state.values()} == {steps}


@pytest.mark.parametrize("make", [Plain, lambda: BootstrapModule(network(), Options())])
def test_once_all_units_have_crossed_over_every_batch_makes_a_step(make):
    """Of eight batches two sample in each epoch, as long as a unit is left to sample."""
    module, modes = make(), []

    class Notes(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *batch):
            modes.append(str(pl_module.bootstrap_mode))

    scheduler = ss.Scheduler(num_sample_iter=2, sample_period=1, crossover_epochs=[1, 2])
    trainer = trained(module, BootstrapCallback(scheduler), more=[Notes()], max_epochs=4)
    assert modes[8:10] == 2 * ["SAMPLE, SNN below unit 1"]
    assert modes[16:] == 16 * ["SNN"]
    assert [int(s.fitted) for s in samplers(module)] == [1, 2]
    (optimizer,) = trainer.optimizers
    assert {int(state["step"]) for state in optimizer.state.values()} == {6 + 6 + 8 + 8}


@pytest.mark.parametrize(("batches", "accumulate"), [(1, 1), (2, 1), (3, 4), (4, 4)])
def test_a_schedule_without_a_step_as_an_ann_is_warned_of(batches, accumulate):
    def start(batches, epochs=4, **schedule):
        trainer = SimpleNamespace(
            num_training_batches=batches,
            accumulate_grad_batches=accumulate,
            max_epochs=epochs,
            gradient_clip_val=None,
        )
        schedule = {"num_sample_iter": 2, "sample_period": 1, **schedule}
        callback, module = BootstrapCallback(ss.Scheduler(**schedule)), Plain()
        callback.setup(trainer, module, "fit")
        callback.on_train_start(trainer, module)

    for schedule in (
        {},
        {"epochs": 1, "sample_period": 5},
        {"snn_from": 3},
        {"snn_from": 1, "sample_period": 5},
        {"epochs": -1},  # stopped by max_steps
        {"crossover_epochs": [0]},  # what has crossed over waits for the rest
        {"crossover_epochs": [0, 1]},  # until then
    ):
        with pytest.warns(ss.SpikestrapWarning, match=rf"num_sample_iter=2 .*it has {batches};"):
            start(batches, **schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(batches + 3)
        start(batches, sample_period=2)
        start(batches, snn_from=0)
        start(batches, crossover_epochs=[0, 0])
        start(float("inf"))
        start(batches, epochs=-1, sample_period=2)


def lif_nodes():
    """A SpikingJelly model, called once a step, and its neurons by the callback's names."""
    nodes = [neuron.LIFNode(tau=2.0), neuron.IFNode()]
    model = nn.Sequential(
        layer.Linear(6, 16), nodes[0], layer.Linear(16, 8), nodes[1], layer.Linear(8, 2)
    )
    return model, dict(zip(("net.units.0", "net.units.1"), nodes, strict=True))


def leakies():
    """A snnTorch model, called once a step."""
    nodes = [snntorch.Leaky(beta=0.5, init_hidden=True), snntorch.Leaky(beta=1.0, init_hidden=True)]
    model = nn.Sequential(nn.Linear(6, 16), nodes[0], nn.Linear(16, 8), nodes[1], nn.Linear(8, 2))
    return model, dict(zip(("net.units.0", "net.units.1"), nodes, strict=True))


@pytest.mark.parametrize("make", [lif_nodes, leakies])
def test_a_model_of_another_library_with_its_event_rates(make):
    model, nodes = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # so that it spikes
    module = Plain(ss.bootstrap(model, time_steps=4))
    trainer = trained(module)
    assert module.modes[:4] == ["SAMPLE", "SAMPLE", "FIT", "ANN"]
    assert [int(s.fitted) for s in samplers(module)] == [1, 1]
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    # Counted at the neurons themselves, in the model as the user has it.
    spikes = {name: [] for name in nodes}
    handles = [
        node.register_forward_hook(lambda _, args, out, name=name: spikes[name].append(out))
        for name, node in nodes.items()
    ]
    x, y = loader(32).dataset.tensors
    net = module.net.eval()
    with torch.no_grad():
        right = net(x, ss.Mode.SNN).argmax(1) == y
    for handle in handles:
        handle.remove()
    assert logged["snn_accuracy"] == pytest.approx(100 * float(right.float().mean()))
    everything = []
    for name, given in spikes.items():
        counted = torch.stack(given)
        assert counted.shape[:2] == (4, 32)
        assert 0 < counted.mean() < 1
        assert logged[f"event_rate/{name}"] == pytest.approx(counted.mean().item())
        everything.append(counted.flatten())
    assert logged["event_rate"] == pytest.approx(torch.cat(everything).mean().item())
    assert 0 <= logged["ann_accuracy"] <= 100


def test_without_units_it_says_so():
    with pytest.raises(ss.SpikestrapError, match="Plain has no spikestrap units"):
        trained(Plain(nn.Linear(6, 2)))


class Fails(Plain):
    fails = True

    def training_step(self, batch, batch_idx):
        if self.fails and batch_idx == 5:
            raise RuntimeError("as a user's code may")
        return super().training_step(batch, batch_idx)


def test_after_a_training_that_failed_the_next_one_samples():
    module = Fails()
    with pytest.raises(RuntimeError, match="as a user's code may"):
        trained(module)
    net, x = module.net, torch.rand(5, 6)
    assert str(module.bootstrap_mode) == "SNN"
    assert torch.equal(net(x), net(x, ss.Mode.SNN))
    assert not torch.equal(net(x), net(x, ss.Mode.ANN))
    module.fails, module.modes = False, []
    trained(module)
    assert module.modes[:4] == ["SAMPLE", "SAMPLE", "FIT", "ANN"]
    assert [int(s.fitted) for s in samplers(module)] == [2, 2]


def test_copies_made_while_it_trains_have_no_mode_of_it():
    class Copies(Plain):
        def on_train_epoch_end(self):
            file = io.BytesIO()
            torch.save(self.net, file)
            file.seek(0)
            self.copies = [copy.deepcopy(self.net), torch.load(file, weights_only=False)]

    # Without weight norm, with which torch pickles no module.
    module = Copies(ss.Network(cuba.Dense(NEURON, 6, 8), cuba.Affine(None, 8, 2), time_steps=4))
    trained(module)
    x = torch.rand(5, 6)
    for net in module.copies:
        assert torch.equal(net(x), module.net(x, ss.Mode.SNN))


def test_hooks_behind_a_validation_batch_see_the_snn():
    class Looks(Plain):
        def on_validation_batch_end(self, outputs, batch, batch_idx, dataloader_idx=0):
            assert torch.equal(self(batch[0]), self.net(batch[0], ss.Mode.SNN))
            self.modes.append(f"behind {self.bootstrap_mode}")

    module = Looks()
    trained(module, num_sanity_val_steps=2)  # at first there is no curve
    assert module.modes[:4] == ["validation SNN", "behind SNN"] * 2
    assert set(module.modes[4:]) >= {"ANN", "behind SNN"}
    assert "behind ANN" not in module.modes


def test_as_snn_only_and_a_measure_of_ones_own():
    asked = []

    def measure(module, batch):
        asked.append(str(module.bootstrap_mode))
        return torch.full((len(batch[1]),), 0.25)

    callback = BootstrapCallback(SCHEDULER, as_ann=False, measure=measure)
    trainer = trained(Plain(), callback, max_epochs=1)
    assert asked == ["SNN", "SNN"]
    assert callback.measured == {"snn_accuracy": 25.0}
    assert float(trainer.callback_metrics["snn_accuracy"]) == 25


def test_labels_in_a_column_are_those_in_a_row():
    logits, y = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), torch.tensor([2, 1])
    for labels in (y, y[:, None], y.byte(), y[:, None].int()):
        assert classified(lambda x: logits, (None, labels)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("logits", "y", "got"),
    [
        ((4, 1), torch.zeros(4, dtype=torch.long), r"float32 \(4, 1\) and torch.int64 \(4,\)"),
        ((4, 2), torch.zeros(4, 2), r"float32 \(4, 2\) and torch.float32 \(4, 2\)"),
        ((4, 2), torch.zeros(4), r"and torch.float32 \(4,\)"),
        ((4, 2), torch.zeros(4, 2, dtype=torch.long), r"and torch.int64 \(4, 2\)"),
        ((4, 2), torch.zeros(1, dtype=torch.long), r"and torch.int64 \(1,\)"),
        ((4, 2, 4), torch.zeros(4, dtype=torch.long), r"\(4, 2, 4\) and torch.int64 \(4,\)"),
        ((4, 2), [0, 1, 0, 1], "and a list"),
    ],
)
def test_what_is_no_classification_asks_for_a_measure(logits, y, got):
    match = rf"expected logits \(N, K > 1\) and whole-number labels \(N,\), got .*{got}; give mea"
    with pytest.raises(ss.SpikestrapError, match=match):
        classified(lambda x: torch.zeros(logits), (None, y))


@pytest.mark.parametrize("scores", [torch.ones(8, 8), torch.tensor(1.0), 1.0])
def test_scores_are_one_a_sample(scores):
    callback = BootstrapCallback(SCHEDULER, measure=lambda module, batch: scores)
    with pytest.raises(ss.SpikestrapError, match=r"measure: expected a score of each sample"):
        trained(Plain(), callback)


def test_test_measures_as_validation_does():
    module, callback = Plain(), BootstrapCallback(SCHEDULER)
    trainer = trained(module, callback)
    expected = dict(callback.measured)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        (result,) = trainer.test(module, loader(32, 16), verbose=False)
    assert result == pytest.approx(expected)


def test_it_measures_in_the_trainers_precision():
    dtypes = []

    def measure(module, batch):
        x, y = batch
        dtypes.append(module.net.blocks[0].synapse(x).dtype)
        return module(x).argmax(1) == y

    trainer = trained(
        Plain(), BootstrapCallback(SCHEDULER, measure=measure), precision="bf16-mixed"
    )
    assert dtypes == 8 * [torch.bfloat16]
    dtypes.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.test(trainer.lightning_module, loader(32, 16), verbose=False)
    assert dtypes == 4 * [torch.bfloat16]


def test_logs_and_draws(tmp_path):
    class Drawing(CSVLogger):
        figures: ClassVar[list] = []

        @property
        def experiment(self):
            made = super().experiment
            made.add_figure = lambda *what: self.figures.append(what)
            return made

    logger = Drawing(str(tmp_path), name="", version="")
    trained(Plain(), max_epochs=3, logger=logger, log_every_n_steps=1)
    assert [(name, step) for name, _, step in logger.figures] == [("curves", 8), ("curves", 24)]
    assert len(logger.figures[0][1].axes) >= 2
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert {"snn_accuracy", "ann_accuracy", "gap", "event_rate"} <= set(header.split(","))


class TestTogetherWith:
    """What Lightning and torch offer, with the modes."""

    def test_accumulation(self):
        """Four batches of 8 are one of 32, where the loss is a mean."""
        options = Options(learning_rate=0.02)
        one, other = BootstrapModule(network(), options), BootstrapModule(network(), options)
        ann = ss.Scheduler(num_sample_iter=1, sample_period=9, snn_from=0)
        trained(one, BootstrapCallback(ann), accumulate_grad_batches=4)
        trained(other, BootstrapCallback(ann), train=loader(64, 32))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        module = Plain()
        trained(module, accumulate_grad_batches=4)
        assert module.modes[:4] == ["SAMPLE", "SAMPLE", "FIT", "ANN"]  # an iteration is a batch

    def test_clipping(self):
        norms = []

        class Watching(Plain):
            def on_before_optimizer_step(self, optimizer):
                pass

            def optimizer_step(self, epoch, batch_idx, optimizer, closure):
                super().optimizer_step(epoch, batch_idx, optimizer, closure)
                if self.modes[-1] != "SAMPLE":
                    gradients = [p.grad for p in self.parameters()]
                    norms.append(float(nn.utils.get_total_norm(gradients)))

        trained(Watching(), gradient_clip_val=1e-3)
        assert len(norms) == 14
        assert all(norm < 1.01e-3 for norm in norms)

    def test_clipping_by_value(self):
        largest = []

        class Watching(Plain):
            def optimizer_step(self, epoch, batch_idx, optimizer, closure):
                super().optimizer_step(epoch, batch_idx, optimizer, closure)
                gradients = [p.grad for p in self.parameters() if p.grad is not None]
                largest.append(max((float(g.abs().max()) for g in gradients), default=None))

        clip = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}
        trainer = trained(Watching(), **clip)
        assert largest == [None, None, *14 * [pytest.approx(1e-3)]]
        assert trainer.gradient_clip_val == 1e-3

    def test_manual_optimization(self):
        """What a module accumulates itself holds no gradient of a sampled batch."""

        class Manual(Plain):
            automatic_optimization = False

            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx) / 2
                self.manual_backward(loss)
                if batch_idx % 2 == 0:  # batch 2 steps, with what came of 1 and 2
                    self.optimizers().step()
                    self.optimizers().zero_grad()

        module, net = Manual(), network()
        trained(module, train=loader(24), max_epochs=1)  # two sampled, one that fits
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
        for i, (x, y) in enumerate(loader(24)):
            loss = F.cross_entropy(net(x, SCHEDULER.mode(0, i)), y) / 2
        loss.backward()
        optimizer.step()
        for name, value in net.state_dict().items():
            assert value.equal(module.net.state_dict()[name]), name

    def test_averaged_weights(self):
        """The average has the curves of the network, and runs in every mode."""
        kept = []

        class Average(WeightAveraging):
            def __init__(self):
                super().__init__(use_buffers=False, avg_fn=lambda old, new, n: 0.5 * (old + new))

            def on_train_end(self, trainer, pl_module):
                kept.append(self._average_model.module)
                super().on_train_end(trainer, pl_module)

        module = Plain()
        trained(module, more=[Average()])
        (average,) = kept
        x = torch.rand(5, 6)
        for mode in (ss.Mode.SNN, ss.Mode.ANN):
            assert average.net(x, mode).isfinite().all()

    def test_early_stopping(self):
        callback = BootstrapCallback(SCHEDULER, measure=lambda m, b: torch.zeros(len(b[1])))
        stopping = EarlyStopping("snn_accuracy", mode="max", patience=2)
        trainer = trained(Plain(), callback, more=[stopping], max_epochs=50)
        assert trainer.current_epoch == 3

    def test_half_precision_keeps_what_is_sampled_in_float32(self):
        module = Plain(network(learnable=("threshold",)))
        trainer = trained(module, precision="bf16-mixed")
        for sampler in samplers(module):
            assert sampler.statistics.pairs.dtype is torch.float64
            assert {b.dtype for b in sampler.buffers()} == {torch.float32, torch.int64}
            assert sampler.fitted == 1
        assert float(trainer.callback_metrics["snn_accuracy"]) > 30

    @pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
    def test_true_half_precision_leaves_neurons_and_curves_in_float32(self, precision):
        class Descending(Plain):
            def configure_optimizers(self):  # Adam's eps of 1e-8 is 0 in float16
                return torch.optim.SGD(self.parameters(), lr=0.1)

        module = Descending(network(learnable=("threshold",), norm="batch"))
        trainer = trained(module, precision=precision)
        net = module.net
        assert net.blocks[1].synapse.weight.dtype in (torch.float16, torch.bfloat16)
        kept = (net.blocks[0].norm, *(unit for _, unit in ss.unit.units_of(net)))
        for tensor in (t for m in kept for t in (*m.parameters(), *m.buffers())):
            assert tensor.dtype in (torch.float32, torch.int64)
        for sampler in samplers(module):
            assert sampler.statistics.pairs.dtype is torch.float64
            assert sampler.fitted == 1
        assert all(p.isfinite().all() for p in net.parameters())
        assert {"snn_accuracy", "ann_accuracy"} <= set(trainer.callback_metrics)
        assert torch.get_default_dtype() is torch.float32

    def test_compile(self, fresh_compiler):
        """The same training; that ANN and SNN mode are one graph, test_network checks."""
        plain, compiled = Plain(), Plain()
        compiled.net.compile(backend="aot_eager")
        for module in (plain, compiled):
            trained(module)
        for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert compiled.modes == plain.modes
