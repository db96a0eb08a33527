"""The volume curve as a picture in the PACS: a secondary capture.

Every viewer of a PACS shows a secondary capture. An encapsulated PDF would be sharper, but many viewers open it in
another program or not at all. The numbers themselves are in the structured report.
"""

from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydicom import Dataset

from longflow.dicom.equipment import MANUFACTURER, PURPOSE, contributing_equipment, new_uid, stamp
from longflow.dicom.report import TimePoint
from longflow.dicom.segments import Structure

#: inches and dots per inch of the picture
SIZE, RESOLUTION = (8.0, 5.0), 128


def volume_curve(
    points: Sequence[TimePoint],
    structures: Sequence[Structure],
    time_unit: str,
    header: Dataset,
    series_number: int,
) -> SCImage:
    """Make the picture of a subject's volumes over time; no letter in it tells who the patient is.

    :param points: in order of time.
    :param structures: that were measured, in their colours.
    :param time_unit: of the dataset.
    :param header: of the last scan, for patient and study.
    :param series_number: in the study.
    :returns: an RGB image.
    """
    made = SCImage.from_ref_dataset(
        header,
        pixel_array=draw_volumes(points, structures, time_unit),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=new_uid(),
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        patient_orientation=("L", "F"),
        contributing_equipment=[contributing_equipment()],
        specific_character_set="ISO_IR 192",
    )
    stamp(made, series_number, f"Volumes over time, curve ({PURPOSE})")
    made.PatientOrientation = None  # of a diagram; highdicom wants one
    made.Laterality = None
    made.BurnedInAnnotation = "NO"  # no letters that tell the patient or the date
    return made


def draw_volumes(points: Sequence[TimePoint], structures: Sequence[Structure], time_unit: str) -> np.ndarray:
    """Draw volumes over time.

    :returns: (rows, columns, 3), 8-bit.
    """
    figure = Figure(figsize=SIZE, dpi=RESOLUTION, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    for one in structures:
        measured = [(point.time, point.volumes[one.name]) for point in points if one.name in point.volumes]
        if measured:
            colour = tuple(value / 255 for value in one.colour)
            axes.plot(*zip(*measured, strict=True), "o-", color=colour, label=one.name)
    axes.set(xlabel=f"{time_unit} since the first scan", ylabel="volume (ml)", ylim=(0, None))
    axes.set_title(f"Volumes over time. longflow, {PURPOSE}, not for clinical decisions.", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
