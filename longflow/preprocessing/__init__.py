"""From series of scans to the normal form on the grid of the plans, stored; and the way back."""
