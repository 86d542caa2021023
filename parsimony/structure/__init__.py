"""Structure: which slices of which parameters live and die together in a function, and models without some of them.

fn(params, x) → find_units → choose or keep_from_masks → compact → export
"""

from ._choose import choose as choose
from ._choose import rank_units as rank_units
from ._compact import Compact as Compact
from ._compact import compact as compact
from ._count import Counts as Counts
from ._count import count as count
from ._count import count_at as count_at
from ._export import export as export
from ._find import find_units as find_units
from ._grow import Grown as Grown
from ._grow import grow as grow
from ._keep import keep_from_masks as keep_from_masks
from ._load import load_compact as load_compact
from ._load import load_opt_state as load_opt_state
from ._penalty import unit_penalty as unit_penalty
from ._saturation import next_widths as next_widths
from ._saturation import saturation as saturation
from ._units import Units as Units
from ._units import UnitSet as UnitSet
