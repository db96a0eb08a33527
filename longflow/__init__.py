"""longflow: self-configuring forecasting of longitudinal 3D medical images by flow matching."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longflow.inference.forecaster import Forecaster

__version__ = "0.1.0"
__all__ = ["Forecaster", "__version__"]


def __getattr__(name: str):
    # imported when first asked for: `longflow --help` should not wait for torch
    if name == "Forecaster":
        from longflow.inference.forecaster import Forecaster

        return Forecaster
    raise AttributeError(f"module 'longflow' has no attribute '{name}'")
