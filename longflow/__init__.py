"""longflow: self-configuring forecasting of longitudinal 3D medical images by flow matching."""

__version__ = "0.1.0"
