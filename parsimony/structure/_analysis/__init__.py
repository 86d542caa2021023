"""Which indices of which arrays live and die together: labels carried through a traced function, rule by rule."""
