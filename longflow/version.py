"""The version of longflow, in one place: ``setup.py`` and every sidecar read it here."""

__version__ = "0.2.0"
