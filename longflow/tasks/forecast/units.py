"""The units in which a forecast is judged: of its last context scan, where the units of a later visit are unknown.

A channel in the form ``matched`` has visits with units of their own. A forecast of it comes in the units of the last
context scan, and no model can know those of the target. So the reference is brought into the units of the last context
scan, by the robust maps of its normal form, wherever models are chosen: validation, and ``longflow_find_best``.
``longflow_evaluate`` reports both errors, that of the files as they are (``nrmse``) and ``matched_nrmse``.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from longflow.data.images import Volume, read_scan
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import ChannelPlan, read_plans
from longflow.preprocessing.prepared import SeriesProperties
from longflow.preprocessing.store import read_properties
from longflow.tasks.forecast.pairs import ForecastPrediction


def numbers_of_reference(
    properties: SeriesProperties, scan: int, last: int, channels: Sequence[ChannelPlan]
) -> tuple[list[float], list[float]]:
    """Return offset and scale with which a reference in the normal form is mapped back, per channel.

    :param properties: of the subject's prepared series.
    :param scan: position of the reference in it.
    :param last: position of the last context scan.
    :param channels: the plan of each channel.
    :returns: those of the last context scan for channels in the form ``matched``, else the reference's own.
    """
    of_scan = [last if channel.normal_form == "matched" else scan for channel in channels]
    offset, scale = (
        [numbers[one][channel] for channel, one in enumerate(of_scan)]
        for numbers in (properties.offset, properties.scale)
    )
    return offset, scale


def with_units(
    pairs: Sequence[ForecastPrediction], models: Sequence[ModelPaths], dataset: DatasetPaths
) -> list[ForecastPrediction]:
    """Add the map into the units in which each pair is judged.

    All models are judged in the same units. Where their plans have different forms, it is those of the first model with
    a channel in the form ``matched``.

    :param pairs: validation targets of the dataset.
    :param models: that are compared.
    :returns: the pairs, with ``units``; as they are where no plan has the form ``matched``.
    :raises DataError: a subject is no longer prepared.
    """
    for model in models:
        plans = read_plans(model.plans)
        if any(channel.normal_form == "matched" for channel in plans.channels):
            prepared = dataset.cache(plans.plans_name, plans.configuration(model.configuration).data_identifier)
            return [
                replace(pair, units=_map_of(pair, read_properties(prepared, pair.subject), plans.channels))
                for pair in pairs
            ]
    return list(pairs)


def _map_of(
    pair: ForecastPrediction, properties: SeriesProperties, channels: Sequence[ChannelPlan]
) -> tuple[tuple[float, float], ...]:
    """Return gain and offset of each channel, from the units of the reference's file."""
    _, latest = max(zip(pair.context_times, pair.context, strict=True))
    scan, last = properties.cases.index(pair.case), properties.cases.index(latest)
    numbers = zip(
        *numbers_of_reference(properties, scan, last, channels),
        *(properties.offset[scan], properties.scale[scan]),
        strict=True,
    )
    return tuple(
        (scale / own_scale, offset - own_offset * scale / own_scale) for offset, scale, own_offset, own_scale in numbers
    )


def read_reference(pair: ForecastPrediction) -> Volume:
    """Read the reference of a pair, in the units in which its forecast is judged.

    :param pair: with its reference; without ``units`` the file is read as it is.
    """
    reference = read_scan(pair.reference)
    if all(units == (1.0, 0.0) for units in pair.units):
        return reference
    gains, offsets = (np.reshape(numbers, (-1, 1, 1, 1)) for numbers in zip(*pair.units, strict=True))
    return replace(reference, array=(gains * reference.array + offsets).astype(np.float32))
