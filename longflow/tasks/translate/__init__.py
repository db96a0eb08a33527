"""Translate a scan from one contrast phase into the other."""
