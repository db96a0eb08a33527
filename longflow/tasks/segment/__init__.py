"""Segment structures in every scan of a subject."""
