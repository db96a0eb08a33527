"""Fingerprint: measure a dataset in space, time and intensity. No decision is taken here."""
