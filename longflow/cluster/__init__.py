"""A whole study by one command: its steps, run on this machine or as jobs of a GPU cluster (Slurm)."""
