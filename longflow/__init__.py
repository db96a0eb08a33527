"""longflow: self-configuring forecasting, translation and segmentation of longitudinal 3D medical images."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longflow.tasks.forecast.predictor import Forecaster
    from longflow.tasks.segment.predictor import Segmenter
    from longflow.tasks.translate.predictor import Translator

__version__ = "0.1.0"
__all__ = ["Forecaster", "Segmenter", "Translator", "__version__"]


def __getattr__(name: str):
    # imported when first asked for: `longflow --help` should not wait for torch
    if name == "Forecaster":
        from longflow.tasks.forecast.predictor import Forecaster

        return Forecaster
    if name == "Segmenter":
        from longflow.tasks.segment.predictor import Segmenter

        return Segmenter
    if name == "Translator":
        from longflow.tasks.translate.predictor import Translator

        return Translator
    raise AttributeError(f"module 'longflow' has no attribute '{name}'")
