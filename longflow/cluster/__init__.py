"""Many commands of longflow, one after the other: run on this machine, and what a comparison runs."""
