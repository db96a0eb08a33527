"""Bring series of scans into the normal form on the grid of the plans, store them; and go back."""
