"""Parsimony: neural networks that are small for a reason.

Training along an inverse scale space by Split Linearized Bregman Iteration (Split LBI), as an Optax
`GradientTransformation`. Start at `split_lbi`; the mathematics is in `inverse_scale_space`.
"""

from . import structure as structure
from . import theory as theory
from ._bregman import adabreg as adabreg
from ._bregman import linbreg as linbreg
from ._bregman import prox_sgd as prox_sgd
from ._bregman import rda as rda
from ._clipping import clip_by_support_norm as clip_by_support_norm
from ._distillation import distillation_loss as distillation_loss
from ._forecast import PathForecast as PathForecast
from ._forecast import path_forecast as path_forecast
from ._inverse_scale_space import inverse_scale_space as inverse_scale_space
from ._masks import KeepSupportState as KeepSupportState
from ._masks import apply_masks as apply_masks
from ._masks import keep_support as keep_support
from ._pace import Pace as Pace
from ._pace import pace as pace
from ._path import NEVER as NEVER
from ._path import RecordPathState as RecordPathState
from ._path import entry_steps as entry_steps
from ._path import entry_times as entry_times
from ._path import record_path as record_path
from ._path_speed import path_speed as path_speed
from ._penalties.block_lasso import BlockLasso as BlockLasso
from ._penalties.lasso import GroupLasso as GroupLasso
from ._penalties.lasso import Lasso as Lasso
from ._penalties.lasso import SparseGroupLasso as SparseGroupLasso
from ._penalties.nuclear_norm import NuclearNorm as NuclearNorm
from ._penalties.penalty import Penalty as Penalty
from ._penalties.rules import Rules as Rules
from ._penalties.unit_penalty import UnitPenalty as UnitPenalty
from ._readout import gamma as gamma
from ._readout import sparse_params as sparse_params
from ._readout import support as support
from ._recalibration import recalibrate as recalibrate
from ._selection import rank as rank
from ._selection import select as select
from ._split_lbi import split_lbi as split_lbi
from ._state import SplitLBIState as SplitLBIState
from ._summary import SparsityRow as SparsityRow
from ._summary import SparsitySummary as SparsitySummary
from ._summary import group_norms as group_norms
from ._summary import sparsity_summary as sparsity_summary

__version__ = "0.1.0"
