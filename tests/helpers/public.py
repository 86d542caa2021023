"""The public names: what a module defines without an underscore, or imports `as` itself."""

import ast
import inspect

import parsimony as pm


def exported(module):
    """The public names of a module."""
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.ImportFrom(names=aliases):
                yield from (alias.name for alias in aliases if alias.asname == alias.name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name


PUBLIC = {
    f"{prefix}.{name}": getattr(module, name)
    for prefix, module in [("pm", pm), ("pm.structure", pm.structure), ("pm.theory", pm.theory)]
    for name in exported(module)
    if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
}
