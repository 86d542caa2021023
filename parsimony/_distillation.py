"""`distillation_loss`: a small network learns what a larger one says, beside the labels."""

import jax
import jax.numpy as jnp
import optax

from ._checks import RANGE, check_part, check_scalar, concrete


def distillation_loss(student_logits, teacher_logits, labels, temperature: float = 2.0, weight: float = 0.9):
    """Cross-entropy with the labels and with the softened answers of a teacher, mixed.

        (1 − w)·CE(y, σ(z)) + w·T²·KL(σ(z_t/T) ‖ σ(z/T)),    σ: softmax

    T² keeps the two gradients of one size whatever T. A training by Split LBI has a teacher in its state: the dense W,
    for the network that was cut from it.

    Args:
      student_logits: z, [..., classes].
      teacher_logits: z_t, of the same shape; no gradient flows into them.
      labels: y, the classes' numbers, integers [...].
      temperature: T > 0; may be traced.
      weight: w, a share in (0, 1]; may be traced.

    Returns:
      The loss of each example, [...], in the dtype of the student's logits.

    Raises:
      TypeError: a temperature or weight that is not one number, labels that are not integers.
      ValueError: shapes that do not fit, a temperature or weight out of range.

    Examples:
      >>> import jax.numpy as jnp, parsimony as pm
      >>> student, teacher, labels = jnp.array([[0.0, 0.0]]), jnp.array([[2.0, 0.0]]), jnp.array([0])
      >>> loss = pm.distillation_loss(student, teacher, labels, temperature=1.0, weight=0.5)
      >>> round(float(loss[0]), 2)
      0.51
      >>> float(pm.distillation_loss(teacher, teacher, labels, temperature=3.0, weight=1.0)[0])  # it agrees
      0.0

    References:
      Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.
    """
    student_logits, teacher_logits, labels = map(jnp.asarray, (student_logits, teacher_logits, labels))
    check_scalar("temperature", temperature, "a positive number, such as 2.0")
    if concrete(temperature) and not 0 < temperature <= RANGE[1]:
        raise ValueError(f"temperature={temperature!r}: expected a positive number, such as 2.0.")
    if concrete(weight):
        check_part("weight", weight, "a share in (0, 1]; for the labels alone take their cross-entropy")
    if student_logits.shape != teacher_logits.shape or not student_logits.ndim:
        raise ValueError(
            f"student_logits have the shape {student_logits.shape}, teacher_logits {teacher_logits.shape}: expected "
            "[..., classes] of both, of the same examples."
        )
    if labels.shape != student_logits.shape[:-1]:
        raise ValueError(
            f"labels have the shape {labels.shape}, logits {student_logits.shape}: expected a class number for each "
            f"example, {student_logits.shape[:-1]}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels have the dtype {labels.dtype}: expected integers, the numbers of the classes.")
    of_labels = optax.softmax_cross_entropy_with_integer_labels(student_logits, labels)
    teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(student_logits / temperature), teacher)
    return ((1 - weight) * of_labels + weight * temperature**2 * divergence).astype(student_logits.dtype)
