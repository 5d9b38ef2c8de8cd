"""Integer layers in plain Python, one number at a time: the judge of `spikestrap.fixed`.

Written from the chip's rules: integers without bounds, `//` and lists, nothing of numpy.
"""

from fractions import Fraction
from itertools import product

from spikestrap import fixed

LIMIT = 2**23


def decay(x, d):
    magnitude = abs(x) * (4096 - d) // 4096
    return magnitude if x >= 0 else -magnitude


def neuron_step(state, a, bias, rule):
    """One step of one neuron: its spike; state is [u, v]."""
    u = decay(state[0], rule["current_decay"]) + a * 64
    if u > LIMIT:
        u -= 2 * LIMIT
    elif u <= -LIMIT:
        u += 2 * LIMIT
    v = decay(state[1], rule["voltage_decay"]) + u + bias * 64
    v = min(max(v, 1 - LIMIT), LIMIT - 1)
    fires = v > rule["threshold"] * 64
    if fires:
        v = {"zero": 0, "subtract": v - rule["threshold"] * 64, "none": v}[rule["reset"]]
    state[:] = [u, v]
    return int(fires)


def rules_of(layer):
    """The parameters of every neuron, in memory order."""
    inner = layer.neurons // layer.shape[0]
    rules = []
    for i in range(layer.neurons):
        rule = {"reset": layer.neuron.reset}
        for name in ("threshold", "current_decay", "voltage_decay", "v_init"):
            values = getattr(layer.neuron, name)
            rule[name] = int(values if values.ndim == 0 else values[i // inner])
        rules.append(rule)
    return rules


def connections(layer, shape):
    """For every neuron the list of (input, weight)."""
    if isinstance(layer, fixed.Dense):
        return [list(enumerate(map(int, row))) for row in layer.weight]
    _, height, width = shape
    channels_out, rows, columns = layer.shape
    group_in, kernel_h, kernel_w = layer.weight.shape[1:]
    found = []
    for c, y, x in product(range(channels_out), range(rows), range(columns)):
        first = c // (channels_out // layer.groups) * group_in
        links = []
        for k, i, j in product(range(group_in), range(kernel_h), range(kernel_w)):
            row = y * layer.stride[0] - layer.padding[0] + i * layer.dilation[0]
            column = x * layer.stride[1] - layer.padding[1] + j * layer.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                source = ((first + k) * height + row) * width + column
                links.append((source, int(layer.weight[c, k, i, j])))
        found.append(links)
    return found


def delayed(layer, spikes, pipelined):
    inner = layer.neurons // layer.shape[0]
    late = [[0] * layer.neurons for _ in spikes]
    for t, i in product(range(len(spikes)), range(layer.neurons)):
        delay = int(pipelined)
        if layer.delay is not None:
            delay += int(layer.delay if layer.delay.ndim == 0 else layer.delay[i // inner])
        if t + delay < len(spikes):
            late[t + delay][i] = spikes[t][i]
    return late


def simulate(net, x, time_steps):
    """Spikes (T, M) as they leave each layer, by its number, and the logits, of one sample.

    x: a list of pixels, or of spikes at every step.
    """
    entry = net.layers[0]
    if entry.neuron is None:
        spikes = delayed(entry, x, False)
    else:
        pixels = [2 * Fraction(pixel) - 1 for pixel in x]
        drive = [round(entry.weight * pixel + entry.bias) for pixel in pixels]
        drive = [min(max(a, -4096), 4095) for a in drive]
        rules = rules_of(entry)
        states = [[0, rule["v_init"]] for rule in rules]
        spikes = [
            [neuron_step(s, 0, a, r) for s, a, r in zip(states, drive, rules, strict=True)]
            for _ in range(time_steps)
        ]
        spikes = delayed(entry, spikes, net.pipelined)
    found, shape = {0: spikes}, entry.shape
    for number, layer in enumerate(net.layers[1:], 1):
        if not isinstance(layer, fixed.Flatten):
            links = connections(layer, shape)
            inner = layer.neurons // len(layer.weight)
            bias = [0] * layer.neurons
            if layer.bias is not None:
                bias = [int(layer.bias[i // inner]) for i in range(layer.neurons)]
            sums = [[sum(w * step[k] for k, w in row) for row in links] for step in spikes]
            if layer.neuron is None:
                means = [Fraction(sum(column), time_steps) for column in zip(*sums, strict=True)]
                return found, [float((m + b) / 64) for m, b in zip(means, bias, strict=True)]
            rules = rules_of(layer)
            states = [[0, rule["v_init"]] for rule in rules]
            spikes, last = [], [0] * layer.neurons
            for step in sums:
                if getattr(layer, "recurrent", None) is not None:
                    step = [
                        a + sum(int(w) * s for w, s in zip(row, last, strict=True))
                        for a, row in zip(step, layer.recurrent, strict=True)
                    ]
                last = [neuron_step(*each) for each in zip(states, step, bias, rules, strict=True)]
                spikes.append(last)
            spikes = delayed(layer, spikes, net.pipelined)
            found[number] = spikes
        shape = layer.shape
    return found, [sum(column) / time_steps for column in zip(*spikes, strict=True)]
