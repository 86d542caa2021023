"""What lives and dies together in any JAX function, and models that are really smaller.

`find_units` reads a function, `compact` removes units from it.
"""

from ._compact import Compact as Compact
from ._compact import compact as compact
from ._find import find_units as find_units
from ._units import Units as Units
from ._units import UnitSet as UnitSet
