"""longflow: self-configuring forecasting, translation and segmentation of longitudinal 3D medical images.

The public Python interface is what ``__all__`` names. Each name is imported when it is first used, so that
``import longflow`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longflow.version import __version__

if TYPE_CHECKING:
    from longflow.errors import (
        ConfigurationError,
        DataError,
        FileError,
        InUseError,
        LongflowError,
        ModelError,
        NotFoundError,
        OutOfMemoryError,
        WorkerError,
    )
    from longflow.inference.predictor import predict_folder
    from longflow.tasks.forecast.predictor import Forecaster
    from longflow.tasks.forecast.requests import ForecastRequest
    from longflow.tasks.segment.predictor import Segmenter
    from longflow.tasks.segment.requests import SegmentationRequest
    from longflow.tasks.translate.predictor import Translator
    from longflow.tasks.translate.requests import TranslationRequest

__all__ = [
    "ConfigurationError",
    "DataError",
    "FileError",
    "ForecastRequest",
    "Forecaster",
    "InUseError",
    "LongflowError",
    "ModelError",
    "NotFoundError",
    "OutOfMemoryError",
    "SegmentationRequest",
    "Segmenter",
    "TranslationRequest",
    "Translator",
    "WorkerError",
    "__version__",
    "predict_folder",
]

#: the module of each public name that does not come from ``longflow.errors``
_MODULES = {
    "ForecastRequest": "longflow.tasks.forecast.requests",
    "Forecaster": "longflow.tasks.forecast.predictor",
    "SegmentationRequest": "longflow.tasks.segment.requests",
    "Segmenter": "longflow.tasks.segment.predictor",
    "TranslationRequest": "longflow.tasks.translate.requests",
    "Translator": "longflow.tasks.translate.predictor",
    "predict_folder": "longflow.inference.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'longflow' has no attribute '{name}'")
    return getattr(import_module(_MODULES.get(name, "longflow.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
