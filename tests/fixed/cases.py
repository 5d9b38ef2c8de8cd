"""Random small networks, as integer layers and as networks of precision="loihi"."""

import numpy as np
import torch

from spikestrap import Network, block, fixed


def random_neuron(draw, channels=None, exportable=False):
    """Integer parameters; decays also 0 and 1, thresholds also beyond what a sum reaches."""
    size = None if channels is None or exportable or draw.random() < 0.5 else channels
    decays = [0, 1, 40, 1024, 4095] if exportable else [0, 1, 40, 1024, 4095, 4096]
    return fixed.Neuron(
        threshold=draw.integers(1, 200, size),
        current_decay=draw.choice([d + exportable for d in decays], size),
        voltage_decay=draw.choice(decays, size),
        v_init=np.array(0) if exportable else draw.integers(-3000, 3000, size),
        reset="zero" if exportable else str(draw.choice(fixed.RESETS)),
    )


def random_layers(seed, exportable=False):
    """A `fixed.Network` with an input, one or two layers and perhaps a readout."""
    draw = np.random.default_rng(seed)

    def weight(*shape):
        return 2 * draw.integers(-60, 61, shape)

    def maybe(value):
        return value if draw.random() < 0.5 else None

    images = draw.random() < 0.5
    shape = tuple(int(n) for n in draw.integers(1, 4, 3) + [0, 2, 2]) if images else (5,)
    neuron = random_neuron(draw, shape[0], exportable)
    delay = None if exportable else maybe(draw.integers(0, 3, shape[0]))
    weight_in, bias_in = int(draw.integers(-90, 200)), int(draw.integers(-50, 120))
    layers = [fixed.Input(shape, None, delay)]
    if draw.random() < 0.7:
        layers = [fixed.Input(shape, neuron, delay, weight=weight_in, bias=bias_in)]
    if images:
        groups = int(draw.choice([g for g in (1, shape[0]) if shape[0] % g == 0]))
        channels = 2 * groups
        made = fixed.Conv(
            (channels, 1, 1),
            random_neuron(draw, channels, exportable),
            None,
            weight(channels, shape[0] // groups, *draw.integers(1, 3, 2)),
            maybe(draw.integers(-60, 60, channels)),
            stride=tuple(draw.integers(1, 3, 2)),
            padding=tuple(draw.integers(0, 2, 2)),
            dilation=tuple(draw.integers(1, 3, 2)),
            groups=groups,
        )
        shape = made.output_shape(shape)
        layers.append(
            fixed.Conv(
                shape, made.neuron, None if exportable else maybe(draw.integers(0, 3, channels)),
                made.weight, made.bias,
                made.stride, made.padding, made.dilation, groups,
            )
        )  # fmt: skip
        layers.append(fixed.Flatten((int(np.prod(shape)),)))
        shape = layers[-1].shape
    hidden = int(draw.integers(1, 6))
    delay = maybe(draw.integers(0, 3, hidden))
    free = delay is None or not exportable
    bias = maybe(draw.integers(-60, 60, hidden)) if free else None
    recurrent = maybe(weight(hidden, hidden)) if free else None
    layers.append(
        fixed.Dense(
            (hidden,),
            random_neuron(draw, hidden, exportable),
            delay,
            weight(hidden, shape[0]),
            bias,
            recurrent,
        )
    )
    if draw.random() < 0.5:
        bias = maybe(draw.integers(-60, 60, 3))
        layers.append(fixed.Dense((3,), None, None, weight(3, hidden), bias))
    return fixed.Network(layers, pipelined=draw.random() < 0.5)


def random_network(seed):
    """A trained-like `Network` of precision="loihi", the shape of one input, and T."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    time_steps = int(draw.integers(1, 7))
    shift = bool(draw.random() < 0.3)
    reset = str(draw.choice(["zero", "zero", "subtract", "none"]))

    def neuron(filters=False, **more):
        return {
            "threshold": float(draw.uniform(0.1, 1.5)),
            "current_decay": float(draw.choice([0.0, 0.3, 1.0])) if filters else 1.0,
            "voltage_decay": float(draw.choice([0.0, 0.03, 0.5, 1.0])),
            "reset": reset,
            "v_init": 0.0 if reset == "zero" else float(draw.uniform(-0.5, 0.5)),
            **more,
        }

    def options(norm=True):
        """A layer with a bias, a norm, both, or neither and then perhaps a slow current."""
        bias = bool(draw.random() < 0.5)
        kind = draw.choice([None, "batch", "mean_only"]) if norm else None
        return {
            "neuron": neuron(filters=not bias and kind is None, norm=kind),
            "bias": bias,
            "weight_scale": 3.0,
            "weight_norm": bool(draw.random() < 0.5),
            "delay_shift": shift,
        }

    def maybe_delay(channels):
        if draw.random() < 0.7:
            return []
        initial = torch.from_numpy(draw.uniform(0, 3, channels))
        return [block.Delay(channels, 3, initial=initial, learnable=bool(draw.random() < 0.5))]

    blocks = [block.cuba.Input(neuron(), 2.0, 0.1, delay_shift=shift)]
    if draw.random() < 0.5:
        shape = (2, 6, 6)
        blocks += maybe_delay(2)
        pad = int(draw.integers(0, 2))
        blocks.append(
            block.cuba.Conv(
                in_features=2, out_features=4, kernel_size=3, padding=pad,
                groups=int(draw.choice([1, 2])), **options(),
            )
        )  # fmt: skip
        blocks += maybe_delay(4)
        side = 4 + 2 * pad
        if draw.random() < 0.5:
            blocks.append(block.AvgPool(2, weight=float(draw.choice([1.0, 1.5]))))
        else:
            blocks.append(block.cuba.Pool(neuron(filters=True), 2, weight=0.4, delay_shift=shift))
        side //= 2
        if draw.random() < 0.5:
            blocks += [block.Dropout(0.3), block.AvgPool(2 if side == 2 else 3)]
            side = 1
        blocks.append(block.Flatten())
        features = 4 * side**2
    else:
        shape, features = (6,), 6
        blocks += maybe_delay(6)
    if draw.random() < 0.5:
        blocks.append(block.cuba.Dense(in_neurons=features, out_neurons=5, **options()))
    else:
        delay = int(draw.integers(0, 3))
        blocks.append(
            block.cuba.Recurrent(in_neurons=features, out_neurons=5, delay=delay, **options())
        )
        if delay:
            torch.nn.init.uniform_(blocks[-1].delay.delay, 0, delay)
    blocks += maybe_delay(5)
    blocks.append(block.cuba.Affine(None, 5, 3, bias=bool(draw.random() < 0.5)))
    bits = int(draw.choice([4, 6, 8]))
    net = Network(*blocks, time_steps=time_steps, precision="loihi", bits=bits)
    net(torch.rand(4, *shape))  # moves the norms' running statistics
    return net.eval(), shape, time_steps
