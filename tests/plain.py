"""CUBA neurons in plain Python, one number at a time: what the tensors must agree with.

LIF is current_decay = 1, IF has voltage_decay = 0 as well.
"""

import math
from dataclasses import dataclass

# d spike / d v at the threshold is scale / (2 tau); away from it, times this.
SLOPE_SHAPES = {
    "exponential": lambda x: math.exp(-abs(x)),
    "fast_sigmoid": lambda x: 1 / (1 + abs(x)) ** 2,
    "arctan": lambda x: 1 / (1 + (math.pi / 2 * x) ** 2),
}


@dataclass
class Rule:
    threshold: float = 1.0
    current_decay: float = 1.0
    voltage_decay: float = 0.0
    v_init: float = 0.0
    reset: str = "zero"
    surrogate: str = "exponential"
    tau_grad: float = 1.0
    scale_grad: float = 1.0
    detach_reset: bool = True


def simulate(z, rule, number=float):
    """Spikes, u and v of one neuron fed z[0], z[1], ..., in arithmetic of type `number`."""
    one, u, v = number(1), number(0), number(rule.v_init)
    threshold = number(rule.threshold)
    keep_u, keep_v = one - number(rule.current_decay), one - number(rule.voltage_decay)
    spikes = []
    for z_t in z:
        u = u * keep_u + number(z_t)
        v = v * keep_v + u
        fires = v > threshold
        spikes.append(int(fires))
        if fires and rule.reset == "zero":
            v = number(0)
        elif fires and rule.reset == "subtract":
            v = v - threshold
    return spikes, float(u), float(v)


def directional(z, rule, along, number=float):
    """How spikes, u and v change along a direction, by the surrogate: forward differentiation.

    along: the direction's entries "z" (a list), "threshold", "current_decay",
    "voltage_decay", "v_init". Returns (ds, du, dv), ds a list.
    """
    one, u, v = number(1), number(0), number(rule.v_init)
    threshold = number(rule.threshold)
    keep_u, keep_v = one - number(rule.current_decay), one - number(rule.voltage_decay)
    du, dv, d_threshold = 0.0, along["v_init"], along["threshold"]
    tau = rule.tau_grad * rule.threshold
    changes = []
    for z_t, dz in zip(z, along["z"], strict=True):
        du = du * float(keep_u) - along["current_decay"] * float(u) + dz
        u = u * keep_u + number(z_t)
        dv = dv * float(keep_v) - along["voltage_decay"] * float(v) + du
        v = v * keep_v + u
        over = float(v) - float(threshold)
        shape = SLOPE_SHAPES[rule.surrogate](over / tau)
        ds = rule.scale_grad / (2 * tau) * shape * (dv - d_threshold)
        changes.append(ds)
        fires = v > threshold
        fell, d_fell = {
            "zero": (float(v), dv),
            "subtract": (float(threshold), d_threshold),
            "none": (0.0, 0.0),
        }[rule.reset]
        through = 0.0 if rule.detach_reset else ds
        dv -= fires * d_fell + through * fell
        if fires:
            v = {"zero": number(0), "subtract": v - threshold, "none": v}[rule.reset]
    return changes, du, dv
