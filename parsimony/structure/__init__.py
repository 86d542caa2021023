"""Structure: which slices of which parameters live and die together in a function, and models without some of them.

fn(params, x) → find_units → choose or keep_from_masks → compact → export; or masks → minimise → export
"""

from ._analysis.find import find_units as find_units
from ._choice.choose import choose as choose
from ._choice.count import Counts as Counts
from ._choice.count import count as count
from ._choice.count import count_at as count_at
from ._choice.family import Family as Family
from ._choice.family import family as family
from ._choice.from_masks import keep_from_masks as keep_from_masks
from ._choice.growth_policy import next_widths as next_widths
from ._choice.growth_policy import used_units as used_units
from ._choice.penalty import penalty_of as penalty_of
from ._choice.penalty import unit_penalty as unit_penalty
from ._choice.rank_units import rank_units as rank_units
from ._choice.time_table import TimeTable as TimeTable
from ._choice.time_table import stopwatch as stopwatch
from ._files.export import export as export
from ._files.load import load_compact as load_compact
from ._files.load import load_opt_state as load_opt_state
from ._minimise.minimise import minimise as minimise
from ._minimise.minimise import release as release
from ._refit.refit import Refitted as Refitted
from ._refit.refit import refit as refit
from ._surgery.compact import Compact as Compact
from ._surgery.compact import compact as compact
from ._surgery.gates import Gated as Gated
from ._surgery.gates import gates as gates
from ._surgery.grow import Grown as Grown
from ._surgery.grow import grow as grow
from ._surgery.quantise import quantise as quantise
from ._units import Units as Units
from ._units import UnitSet as UnitSet
