"""Figures, tables, and pages for a browser."""
