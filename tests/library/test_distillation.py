"""The loss by which a small network learns from a large one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsimony as pm

RNG = np.random.default_rng(0)
Z, TEACHER, LABELS = RNG.normal(size=(5, 4)), 3 * RNG.normal(size=(5, 4)), np.array([0, 3, 1, 2, 3])


def written_out(z, teacher, labels, temperature, weight):
    """The definition, class by class, in float64."""
    softmax = lambda x: np.exp(x) / np.exp(x).sum()
    losses = []
    for row, its, label in zip(z, teacher, labels, strict=True):
        p, q = softmax(its / temperature), softmax(row / temperature)
        divergence = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        losses.append(-(1 - weight) * np.log(softmax(row)[label]) + weight * temperature**2 * divergence)
    return losses


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.3), (4.0, 0.9), (0.5, 1.0)])
def test_it_is_the_mixture_of_the_paper(temperature, weight):
    with jax.enable_x64(True):
        found = pm.distillation_loss(Z, TEACHER, LABELS, temperature, weight)
        np.testing.assert_allclose(found, written_out(Z, TEACHER, LABELS, temperature, weight), rtol=1e-12)
    half = pm.distillation_loss(jnp.asarray(Z, jnp.bfloat16), jnp.asarray(TEACHER, jnp.float32), LABELS)
    assert half.dtype == jnp.bfloat16


def test_at_a_high_temperature_it_matches_logits_and_the_gradient_keeps_its_size():
    """T²·∂KL/∂z → (z − z̄ − (z_t − z̄_t))/N, equation 4 of the paper; without T² it would vanish."""
    gradient = jax.grad(lambda z: pm.distillation_loss(z, TEACHER, LABELS, temperature=200.0, weight=1.0).sum())(Z)
    centred = lambda x: x - x.mean(-1, keepdims=True)
    np.testing.assert_allclose(gradient, centred(Z - TEACHER) / 4, atol=0.02)


def test_the_teacher_learns_nothing():
    gradient = jax.grad(lambda teacher: pm.distillation_loss(Z, teacher, LABELS).sum())(jnp.asarray(TEACHER))
    assert not gradient.any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"temperature": 0}, ValueError, "temperature=0: expected a positive number, such as 2.0"),
        ({"temperature": "4"}, TypeError, "temperature='4': expected a positive number"),
        ({"weight": 1.5}, ValueError, r"weight=1.5: expected a share in \(0, 1\]; for the labels alone"),
        ({"teacher_logits": TEACHER[:, :3]}, ValueError, r"shape \(5, 4\), teacher_logits \(5, 3\): expected"),
        ({"labels": LABELS[:4]}, ValueError, r"labels have the shape \(4,\), logits \(5, 4\): expected a class number"),
        ({"labels": LABELS / 1.0}, TypeError, "labels have the dtype float.*: expected integers"),
    ],
)
def test_what_does_not_fit_is_named(changes, error, message):
    arguments = {"student_logits": Z, "teacher_logits": TEACHER, "labels": LABELS} | changes
    with pytest.raises(error, match=message):
        pm.distillation_loss(**arguments)
