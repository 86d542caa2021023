"""The traced function with narrower arrays: same program, other static shapes."""
