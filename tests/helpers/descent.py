"""A few real steps of an optimizer."""

import jax
import optax


def trained(tx, loss, params, steps):
    """(params, opt_state) after so many steps on loss(params)."""
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state
