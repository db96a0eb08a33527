"""The integrity of prediction input: the checks of training data, and a comparison with the data of the training.

Names and tables are checked before anything is predicted (:func:`verify_input`). Voxels are checked in memory when a
scan is read to be predicted (:func:`scan_problems`), so that no file is read twice.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from longflow.data.body import brighter_than_mean
from longflow.data.dataset import DatasetDescription, parse_time
from longflow.data.hounsfield import is_ct
from longflow.data.images import Volume, by_axis
from longflow.errors import first_few
from longflow.integrity.conditions import condition_problems
from longflow.integrity.dataset import Part, in_order
from longflow.integrity.problems import Problem, error, warning
from longflow.integrity.tables import column_problems
from longflow.integrity.voxels import FileToCheck, hounsfield_problems, intensity_problems
from longflow.plans import IntensityRange, Plans, TrainingData
from longflow.task import get_task

#: how far beyond the training data a scan may be before a warning, as a factor
SPACING_FACTOR, FIELD_FACTOR, INTENSITY_FACTOR = 3.0, 2.0, 2.0
#: voxels of a channel whose intensities are compared at most
VOXELS = 1_000_000
#: length of a unit, in units of which the intervals may have been meant
FAMILIES = ({"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}, {"s": 1.0, "ms": 1e-3})
#: units in which spacings are wrongly stored, in mm
UNITS_OF_LENGTH = {"metres": 1000.0, "centimetres": 10.0, "micrometres": 0.001}


def verify_input(folder: Path, description: DatasetDescription, plans: Plans | None = None) -> list[Problem]:
    """Find the problems of a folder to predict; no image is opened.

    :param folder: images and their table.
    :param description: dataset.json of the model.
    :param plans: of the model, to compare the times with; None: they are not compared.
    :returns: errors first. A file that is neither an image nor resembles one is no problem.
    """
    part = Part(folder, None)
    problems = part.read_table(get_task(description.task))
    if part.readable:
        names = part.check_image_names(description, rows_need_images=False)
        problems += [problem for problem in names or _no_image(part, description) if problem.severity == "error"]
    times: dict[str, list[float]] = {}
    for row in part.rows:
        if (time := parse_time(row.time)) is not None:
            times.setdefault(row.subject, []).append(time)
    problems += column_problems(part.table, part.rows, description)
    problems += condition_problems(description, part.table, part.rows, is_training=False)
    if plans is not None:
        problems += trained_unit_problems(list(times.values()), plans, part.table)
    return in_order(problems)


def _no_image(part: Part, description: DatasetDescription) -> list[Problem]:
    """Report a folder without a single image once, and not for each row."""
    files = part.files_of_rows(description)
    if not files or any(path.is_file() for path in files):
        return []
    held = sorted(entry.name for entry in part.images.iterdir() if entry.name[0] != ".")
    advice = "Give the folder of the images, as imagesTs. Capital letters count."
    found = f"none of its images; the folder holds {first_few(held, most=4)}"
    return [error(part.table, "case", found, f"{files[0].name} and so on", advice)]


def trained_unit_problems(times: Sequence[Sequence[float]], plans: Plans, table: str) -> list[Problem]:
    """Find times that were probably written in another unit than those of the training.

    :param times: of each subject.
    :param plans: of the model.
    :param table: path of the table in messages.
    :returns: a warning where the median interval is unlike any of the training, but would be like them in another unit.
    """
    intervals = np.concatenate([np.diff(np.unique(one)) for one in times] or [[]])
    temporal, data = plans.temporal, plans.training_data
    high, unit = temporal.longest_horizon, temporal.time_unit
    low = (data and data.shortest_interval) or temporal.shortest_interval
    if not len(intervals) or low <= (median := float(np.median(intervals))) <= high:
        return []
    units = next((family for family in FAMILIES if unit in family), {})
    converted = {other: median * length / units[unit] for other, length in units.items() if other != unit}
    # a month has no exact length
    fitting = {other: value for other, value in converted.items() if low * 0.9 <= value <= high * 1.1}
    if not fitting:
        return []
    likely = min(fitting, key=lambda other: abs(np.log(fitting[other] / temporal.time_scale)))
    return [
        warning(
            table,
            "time",
            f"a median interval of {median:g}",
            f"{low:g} to {high:g} {unit}, as in the training",
            f"The times may be in {likely} ({median:g} {likely} are {fitting[likely]:.3g} {unit}). If so, convert them "
            f"to {unit}.",
        )
    ]


def scan_problems(volume: Volume, files: Sequence[Path], plans: Plans, phase: str = "") -> list[Problem]:
    """Find the problems of a scan to predict from: voxels as in training data, and what is unlike the training data.

    :param volume: the scan, as read.
    :param files: of its channels.
    :param plans: of the model.
    :param phase: of the scan, for tasks that use phases.
    :returns: an error: no prediction can be made from it; warnings.
    """
    data, problems = plans.training_data, []
    if data is not None:
        problems += _grid_problems(volume, files[0].name, data)
    # a wrong number of channels is reported where the scan is prepared
    names = [channel.name for channel in plans.channels_of(phase)]
    for channel, (array, file, name) in enumerate(zip(volume.array, files, names, strict=False)):
        image = FileToCheck(str(file), file.name, "image", is_ct(name))
        found = intensity_problems(array, image)
        if image.is_ct and not found:
            found = hounsfield_problems(array, image, units_required=False)
        problems += found
        if data is not None and not found:
            problems += _intensity_problems(array, file.name, data.intensities[channel], data.foreground)
    return in_order(problems)


def _grid_problems(volume: Volume, file: str, data: TrainingData) -> Iterator[Problem]:
    """Compare spacing and field of view with the training data."""
    spacing = np.array(volume.geometry.array_spacing)
    field = spacing * volume.array.shape[1:]
    for name, values, ranges, factor in (
        ("spacing", spacing, data.spacing, SPACING_FACTOR),
        ("field of view", field, data.field_of_view, FIELD_FACTOR),
    ):
        if _inside(values, ranges, factor):
            continue
        units = [unit for unit, length in UNITS_OF_LENGTH.items() if _inside(values * length, ranges, factor)]
        advice = f"Its spacing may be in {units[0]}: write the file again in mm." if units else "Check the file."
        expected = " x ".join(f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}" for low, high in ranges)
        further = "A prediction from a scan that is unlike the training data cannot be trusted."
        found = f"{by_axis(values, digits=4)} mm (z, y, x)"
        yield warning(file, name, found, f"about {expected} mm, as in the training", f"{advice} {further}")
        return  # a wrong spacing makes a wrong field of view


def _inside(values: np.ndarray, ranges: Sequence[tuple[float, float]], factor: float) -> bool:
    low, high = np.transpose(ranges)
    return bool(np.all((values >= low / factor) & (values <= high * factor)))


def _intensity_problems(array: np.ndarray, file: str, trained: IntensityRange, foreground: str) -> list[Problem]:
    """Compare the intensities of a channel with the training data.

    The typical voxel of the body must be about within the training's range. Where that range is known of labelled
    structures alone, the scan must hold voxels as bright as they are.
    """
    sample = array.ravel()[:: max(1, array.size // VOXELS)]
    low, high = trained.percentile_00_5, trained.percentile_99_5
    if foreground == "bodies":
        median = float(np.median(sample[brighter_than_mean(sample)]))
        lowest = min(low / INTENSITY_FACTOR, low * INTENSITY_FACTOR)
        highest = max(high / INTENSITY_FACTOR, high * INTENSITY_FACTOR)
        inside, found = lowest <= median <= highest, f"a median of {median:.4g} in the body"
    else:
        inside, found = sample.min() <= trained.median <= sample.max(), f"{sample.min():.4g} to {sample.max():.4g}"
    advice = (
        "Check that the file has the units and the scaling of the training images. A prediction from a scan that is "
        "unlike the training data cannot be trusted."
    )
    expected = f"{low:.4g} to {high:.4g}, as in the training"
    return [] if inside else [warning(file, "intensities", found, expected, advice)]
