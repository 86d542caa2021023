"""The methods of the comparisons: for each its Optax transformation, its search space, and how it is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

import parsimony as pm

from .. import baselines
from ..config import Config
from ..training.fit import fine_tune_optimizer
from .plan import Plan

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
      make: (plan, setting) → transformation.
      search: {number: (least, greatest)}, searched along the logarithm.
      fixed: numbers that are not searched.
      cuts: one run gives every sparsity, by cutting; else each takes a run of its own.
      split_lbi: its state has a Γ: W̃ is read as well, and cuts can follow the path.
      levels: what it can make sparse.
      narrow: nothing is cut: a network of that share of the widths is trained from the start.
    """

    make: Callable[[Plan, Mapping[str, Any]], Any]
    search: Mapping[str, Range]
    fixed: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cuts: bool = False
    split_lbi: bool = False
    levels: tuple[str, ...] = tuple(baselines.LEVELS)
    narrow: bool = False


def _clipped(plan: Plan, *parts):
    return optax.chain(optax.clip_by_global_norm(plan.clip_norm), *parts)


def kernels(params):
    """What decays."""
    return jax.tree.map(lambda w: w.ndim >= 2, params)


def _momentum(plan: Plan, setting):
    """SGD with momentum 0.9 and decay on the kernels."""
    return _clipped(
        plan,
        optax.add_decayed_weights(setting["weight_decay"], kernels),
        optax.trace(0.9),
        optax.scale_by_learning_rate(plan.rate(setting["learning_rate"])),
    )


def _gradual(plan: Plan, setting):
    end = jnp.round(setting["ramp"] * plan.steps).astype(jnp.int32)
    sgd = _momentum(plan, setting)
    return baselines.gradual_magnitude_pruning(sgd, setting["sparsity"], 0, end, plan.every, plan.level)


def _one_shot(plan: Plan, setting):
    """Half of the steps dense, a cut by magnitude, the other half inside the mask."""
    sgd = _momentum(plan, setting)
    return baselines.gradual_magnitude_pruning(sgd, setting["sparsity"], plan.half, plan.half + 1, 1, plan.level)


def _slimming(plan: Plan, setting):
    sgd = _momentum(plan, setting)
    return baselines.network_slimming(sgd, plan.filters, setting["strength"], setting["sparsity"], plan.half)


def _hard(plan: Plan, setting):
    return baselines.iterative_hard_thresholding(_momentum(plan, setting), plan.ramp(setting), plan.level)


def _rigl(plan: Plan, setting):
    key, end = jax.random.key(setting["seed"]), round(0.75 * plan.steps)
    return baselines.rigl(_momentum(plan, setting), setting["sparsity"], key, end, plan.every, setting["drop"])


def _related(method, **names: str):
    """A method of the library with a sparsity in the place of a strength."""

    def make(plan: Plan, setting):
        arguments = {argument: setting[name] for argument, name in names.items()}
        rate = plan.rate(setting["learning_rate"])
        return _clipped(plan, method(rate, penalty=plan.penalty, sparsity=plan.ramp(setting), **arguments))

    return make


def _split_lbi(plan: Plan, setting, momentum: float | None = 0.9, weight_decay=None):
    """Split LBI by numbers that do not hang on the length of the training, or by ν and λ themselves.

    `pull` is t/ν for all of the training: the coupling alone would shrink a weight outside the support by exp(−pull).
    `share` says when half of the groups would have entered with the weights of the start. `finish` is the part of W − Γ
    that Γ makes up in a step from the first drop of α on, so that Γ soon lets go of W; 0: V's step falls with α.

    Penalties are not arrays, but λ can be one: with V/λ in the place of V the step is that with α/λ, κλ and strength 1.
    `learning_rate` is the step of W, κα, so that κ does not change it. A larger κ brings Γ up to W sooner after entry.
    """
    kappa, alpha = setting["kappa"], setting["learning_rate"] / setting["kappa"]
    nu = setting["nu"] if "nu" in setting else alpha * plan.time(1.0) / setting["pull"]
    strength = setting["strength"] if "strength" in setting else alpha * plan.time(setting["share"]) / nu
    rate, drop = plan.rate(alpha / strength), round(plan.drops[0] * plan.steps)
    finish = setting["finish"] * nu / (kappa * strength)

    def dual_rate(count: Any):
        return jnp.where((count < drop) | (finish == 0), rate(count), finish)

    core = pm.split_lbi(
        rate,
        kappa * strength,
        nu,
        plan.penalty,
        momentum=momentum,
        weight_decay=weight_decay,
        dual_learning_rate=dual_rate,
    )
    return pm.record_path(_clipped(plan, core))


def _paced(scope: Literal["global", "layer"]):
    """Split LBI as `pm.pace` has it: the path opens by itself, and W is finished inside its support.

    `pull` is t/ν until the path is open. `pace` is asked for a rate of one, since it wants a number: ν goes with α.
    """

    def make(plan: Plan, setting):
        alpha = setting["learning_rate"]
        with jax.ensure_compile_time_eval():
            pace = pm.pace(plan.rate(1.0), plan.steps, setting["sparsity"], pull=1.0, scope=scope)
        pace["nu"] = pace["nu"] * alpha / setting["pull"]
        core = pm.split_lbi(
            plan.rate(alpha),
            penalty=plan.groups,
            momentum=0.9,
            weight_decay=setting["weight_decay"],
            weight_decay_mask=kernels,
            **pace,
        )
        return optax.chain(pm.clip_by_support_norm(plan.clip_norm), core)

    return make


def fine_tuning(plan: Plan, setting):
    """The recipe of all fine-tuning, with momentum 0.9 and no decay, inside the masks of a setting."""
    config = Config(momentum=0.9, weight_decay=0.0, clip_norm=plan.clip_norm)
    return pm.keep_support(fine_tune_optimizer(config, setting["learning_rate"], plan.steps), setting["masks"])


def _sgd(momentum=None, nesterov=False, weight_decay=None, l1=False):
    def make(plan: Plan, setting):
        parts = []
        if weight_decay:
            parts.append(optax.add_decayed_weights(setting["weight_decay"]))
        if l1:
            sign = lambda g, w: g + (setting["strength"] * jnp.sign(w) if w.ndim >= 2 else 0.0)
            parts.append(optax.stateless(lambda updates, params: jax.tree.map(sign, updates, params)))
        return _clipped(plan, *parts, optax.sgd(plan.rate(setting["learning_rate"]), momentum, nesterov))

    return make


def _optax(optimizer):
    return lambda plan, setting: _clipped(plan, optimizer(plan.rate(setting["learning_rate"])))


_RATE, _DECAY, _RAMP = (0.02, 0.2), (1e-6, 1e-3), (0.4, 0.85)
_WITHOUT = {"learning_rate": (0.02, 0.5)}
_ADAPTIVE = {"learning_rate": (3e-4, 1e-2)}
_SGD = {"learning_rate": _RATE, "weight_decay": _DECAY}
_LBI = {"learning_rate": _RATE, "pull": (2.0, 20.0)}

METHODS: dict[str, Method] = {
    "split_lbi": Method(_split_lbi, _LBI | {"share": (0.4, 1.0)}, {"kappa": 1.0, "finish": 0.25}, True, True),
    "magnitude": Method(_momentum, _SGD, cuts=True),
    "split_lbi_paced": Method(_paced("layer"), _SGD, {"pull": 2.0}),
    "split_lbi_paced_global": Method(_paced("global"), _SGD, {"pull": 2.0}),
    "one_shot": Method(_one_shot, _SGD),
    "slimming": Method(_slimming, _SGD | {"strength": (1e-3, 3e-2)}, levels=("group",)),
    "narrow": Method(_momentum, _SGD, levels=("group",), narrow=True),
    "gradual": Method(_gradual, _SGD | {"ramp": _RAMP}),
    "hard": Method(_hard, _SGD | {"ramp": _RAMP}),
    "rigl": Method(_rigl, _SGD | {"drop": (0.1, 0.5)}, levels=("weight",)),
    "linbreg": Method(
        _related(pm.linbreg, momentum="momentum", kappa="kappa"),
        {"learning_rate": _RATE, "ramp": _RAMP, "kappa": (0.5, 2.0)},
        {"momentum": 0.9},
    ),
    "adabreg": Method(_related(pm.adabreg, kappa="kappa"), {**_ADAPTIVE, "ramp": _RAMP, "kappa": (0.5, 2.0)}),
    "rda": Method(_related(pm.rda, momentum="momentum"), {"learning_rate": _RATE, "ramp": _RAMP}, {"momentum": 0.9}),
    "prox_sgd": Method(
        _related(pm.prox_sgd, momentum="momentum"), {"learning_rate": _RATE, "ramp": _RAMP}, {"momentum": 0.9}
    ),
    # The optimizers of the paper's table: dense networks.
    "sgd": Method(_sgd(), _WITHOUT, cuts=True),
    "sgd_l1": Method(_sgd(l1=True), _WITHOUT | {"strength": (1e-6, 1e-3)}, cuts=True),
    "sgd_momentum": Method(_sgd(0.9), {"learning_rate": _RATE}, cuts=True),
    "sgd_momentum_decay": Method(
        _sgd(0.9, weight_decay=True), {"learning_rate": _RATE, "weight_decay": _DECAY}, cuts=True
    ),
    "nesterov": Method(_sgd(0.9, nesterov=True), {"learning_rate": _RATE}, cuts=True),
    "adam": Method(_optax(optax.adam), _ADAPTIVE, cuts=True),
    "adabound": Method(_optax(baselines.adabound), _ADAPTIVE, cuts=True),
    "adagrad": Method(_optax(optax.adagrad), {"learning_rate": (3e-3, 0.1)}, cuts=True),
    "amsgrad": Method(_optax(optax.amsgrad), _ADAPTIVE, cuts=True),
    "radam": Method(_optax(optax.radam), _ADAPTIVE, cuts=True),
    "split_lbi_plain": Method(
        lambda plan, setting: _split_lbi(plan, setting, None),
        _WITHOUT | {"pull": (2.0, 20.0)},
        {"kappa": 1.0, "finish": 0.0, "share": 0.4},
        True,
        True,
    ),
    "split_lbi_momentum": Method(_split_lbi, _LBI, {"kappa": 1.0, "finish": 0.0, "share": 0.4}, True, True),
    "split_lbi_momentum_decay": Method(
        lambda plan, setting: _split_lbi(plan, setting, 0.9, setting["weight_decay"]),
        _LBI | {"weight_decay": _DECAY},
        {"kappa": 1.0, "finish": 0.0, "share": 0.4},
        True,
        True,
    ),
}
