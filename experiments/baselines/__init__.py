"""Baselines: gradual magnitude pruning, iterative hard thresholding, RigL, network slimming; and AdaBound.

Each is an Optax transformation: all but AdaBound wrap one, and every weight outside their mask is exactly zero after
every step. The sparsity may be a traced array and the schedules come from the count in the state, so that runs of
several sparsities train as one under `jax.vmap`. There, JAX makes both branches of a mapped condition: the masks that
change every so many steps are worked out at each.
"""

from .adabound import adabound as adabound
from .adabound import scale_by_adabound as scale_by_adabound
from .iht import iterative_hard_thresholding as iterative_hard_thresholding
from .magnitude import MaskedState as MaskedState
from .magnitude import cubic_sparsity as cubic_sparsity
from .magnitude import gradual_magnitude_pruning as gradual_magnitude_pruning
from .masking import LEVELS as LEVELS
from .masking import k_largest as k_largest
from .masking import magnitude_masks as magnitude_masks
from .masking import prunable as prunable
from .rigl import erdos_renyi_densities as erdos_renyi_densities
from .rigl import rigl as rigl
from .slimming import network_slimming as network_slimming
