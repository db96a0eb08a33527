"""Which predictor does which task."""

import torch

from longflow.inference.models import task_of
from longflow.inference.predictor import Predictor
from longflow.inference.selection import Selection
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.translate.predictor import Translator

PREDICTORS: dict[str, type[Predictor]] = {kind.task: kind for kind in (Forecaster, Segmenter, Translator)}


def load_predictor(
    selection: Selection,
    device: torch.device | str | None = None,
    mirror: bool | None = None,
    solver: str | None = None,
    steps: int | None = None,
) -> Predictor:
    """The predictor of the task that the selected model was planned for, loaded.

    :param mirror: by default as the method has it. :param solver, steps: by default as the plans have them.
    :raises LongflowError: the model cannot be loaded or does not know one of the settings.
    """
    return PREDICTORS[task_of(selection)].of(selection, device, mirror, solver, steps)
