"""Networks as their users write them, each a builder of `(fn, params, args)` with small random values."""

from . import attention, convolutional, recurrent, residual

ARCHITECTURES = {
    **convolutional.ARCHITECTURES,
    **residual.ARCHITECTURES,
    **attention.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
}
