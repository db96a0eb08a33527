"""Compare many methods with one budget on the same targets (longflow_compare)."""
