"""Predictions in the forms of other programs."""
