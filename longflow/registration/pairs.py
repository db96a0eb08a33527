"""Registration of pairs: the scan in the second contrast phase is aligned to the scan in the first, as in MFM (B.6).

The scan in the first phase, the native one, is the reference of its pair and stays bit-identical: a prediction must
reproduce it, and native scans at prediction look like it. The scan in the other phase and its label are resampled once,
to the grid of the reference. A mid-space is not needed, since no change over time is measured between two phases of one
time.

All scans of a subject must be on one grid. The native scan of a later time is therefore aligned to the first native
scan: always rigidly, since visits need not correspond. If it is on that grid already, it is not changed either. Slices
that some scan does not show are removed from all scans, else a network would learn that contrast turns body into air.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow.data.body import body_mask
from longflow.data.box import Box
from longflow.data.dataset import Scan, Series
from longflow.data.images import Geometry, read_geometry, read_image
from longflow.data.phases import PhasePair, in_pairs, phase_pairs
from longflow.errors import DataError, first_few
from longflow.reading import read_json
from longflow.registration.agreement import AGREEMENT, agreement
from longflow.registration.checks import (
    RegistrationError,
    check_folding,
    check_matrix,
    check_orientation,
    check_overlap,
    check_similarity,
    correlation_ratio,
    resampled,
    similarity,
)
from longflow.registration.contrast import body_alone, deformation
from longflow.registration.deformable import transform_of_field
from longflow.registration.linear import pyramid, scan_of_reference, transform_of
from longflow.registration.subject import (
    SubjectToRegister,
    check_files,
    copy_scan,
    crop_scan,
    cropped,
    write_record,
    write_scan,
    write_transforms,
)

#: a slice is kept where every scan shows this share of the body in it
LEAST_SHOWN = 0.99


def scans_of_pairs(series: Series, phases: Sequence[str]) -> Series:
    """Select the scans of a subject's pairs, or all scans in the two phases where it has no pair.

    Requested scans (rows of the table without files) are kept.

    :param series: the subject.
    :param phases: the two phases.
    :returns: the selected scans in their order.
    """
    existing = series.with_images()
    kept = in_pairs(existing, phases) if phase_pairs(existing, phases) else existing
    cases = {scan.case for scan in kept.scans if scan.phase in phases}
    return Series(series.subject, tuple(scan for scan in series.scans if scan.case in cases or not scan.exists))


def excluded_scans(all_series: Iterable[Series], phases: Sequence[str]) -> list[str]:
    """Describe the scans that :func:`scans_of_pairs` excludes.

    :param all_series: the subjects.
    :param phases: the two phases.
    :returns: human-readable phrases; empty where no scan is excluded.
    """
    strange, single = [], []
    for series in all_series:
        kept = {scan.case for scan in scans_of_pairs(series, phases).scans}
        for scan in series.scans:
            if scan.case not in kept:
                (single if scan.phase in phases else strange).append(scan.case)
    words = []
    if strange:
        words.append(f"scans in phases other than {' and '.join(phases)} ({len(strange)}: {first_few(strange)}).")
    if single:
        words.append(
            f"scans without a counterpart in the other phase at their time ({len(single)}: {first_few(single)}); both "
            "scans of a pair share subject and time."
        )
    return words


def slices_kept(subjects: Iterable[SubjectToRegister]) -> list[str]:
    """List the registered subjects that lost slices.

    :param subjects: the registered subjects.
    :returns: subject and number of slices kept, human-readable.
    """
    found = []
    for subject in subjects:
        if subject.phases and subject.record.is_file():
            start, stop, count = read_json(subject.record, dict).get("slices", (0, 0, 0))
            if stop - start < count:
                found.append(f"{subject.series.subject}: {stop - start} of {count}")
    return found


@dataclass(frozen=True)
class _Registered:
    """A scan and its transform from the reference grid: y -> A(y + u(y)).

    :param matrix: A, 4 x 4; None where the scan is on that grid already.
    :param field: u, mm; None without a deformation.
    :param image: (z, y, x), the scan on the grid, NaN outside its field of view.
    """

    scan: Scan
    matrix: np.ndarray | None
    field: sitk.Image | None
    image: np.ndarray

    @property
    def transform(self) -> sitk.Transform:
        return _composed(self.matrix, self.field)


def _composed(matrix: np.ndarray, field: sitk.Image | None) -> sitk.Transform:
    linear = transform_of(matrix)
    return linear if field is None else sitk.CompositeTransform([linear, transform_of_field(field)])


def register_pairs(subject: SubjectToRegister) -> None:
    """Register and write the scans of a subject with pairs.

    :param subject: its files and settings.
    :raises DataError: a scan cannot be read, or a registration fails the checks; then nothing is written.
    """
    pairs = phase_pairs(subject.series, subject.phases)
    is_ct = subject.description.is_ct[0]
    first = _read(pairs[0].first, is_ct)
    geometry = read_geometry(pairs[0].first.images[0])
    registered, reports = [], {}
    for pair in pairs:
        native = first if pair is pairs[0] else _read(pair.first, is_ct)
        found, report = _register_pair(pair, native, first, subject.model, is_ct)
        registered += found
        reports[f"{pair.first.case} and {pair.second.case}"] = report
    body = body_mask(sitk.GetArrayFromImage(first), is_ct)
    box = _shown_by_all(body, [one.image for one in registered], geometry)
    _write(registered, geometry, box, subject)
    axis = _head_foot(geometry)
    content = {"model": subject.model, "reference": pairs[0].first.case, "pairs": reports}
    write_record(subject, {**content, "slices": [*box[axis], body.shape[axis]]})


def _read(scan: Scan, is_ct: bool) -> sitk.Image:
    """Read the first channel of a scan and remove everything around the body."""
    image = read_image(scan.images[0])
    check_files(scan, Geometry.of(image))
    try:
        return body_alone(image, is_ct)
    except DataError as error:
        raise DataError(f"{scan.images[0]} shows no body: {error}") from error


def _register_pair(
    pair: PhasePair, native: sitk.Image, first: sitk.Image, model: str, is_ct: bool
) -> tuple[list[_Registered], dict[str, Any]]:
    """Align both scans of a pair to the subject's first native scan and check the result.

    :returns: both scans on its grid; entries of the subject's record.
    """
    contrast = _read(pair.second, is_ct)
    names = f"{pair.first.case} and {pair.second.case}"
    report: dict[str, Any] = {}
    to_native = None
    if Geometry.of(native).differences(Geometry.of(first)):
        to_native, measured = _linear(first, native, f"the subject's first scan and {pair.first.case}", affine=False)
        report["native scan and the subject's first one"] = measured
    matrix, report["correlation ratio"] = _linear(native, contrast, names, affine=model == "affine")
    if to_native is not None:
        matrix = matrix @ to_native
    reference = resampled(native, first, transform_of(np.eye(4) if to_native is None else to_native))
    brought = resampled(contrast, first, transform_of(matrix))
    field = None
    try:
        shown = [np.isfinite(array) for array in (reference, brought)]
        smallest = min(_volume(native), _volume(contrast)) / float(np.prod(first.GetSpacing()))
        report["overlap of the fields of view"] = check_overlap(shown, smallest)
        body = body_mask(np.nan_to_num(reference, nan=np.nanmin(reference)), is_ct)
        if model == "deformable":
            field, name = deformation(_filled(reference, first), _filled(brought, first), is_ct)
            rigid, brought = brought, resampled(contrast, first, _composed(matrix, field))
            report |= {"deformed by": name, **_check_deformation(field, [reference, rigid, brought], body)}
    except RegistrationError as error:
        raise RegistrationError(f"{names}: {error}") from error
    report[AGREEMENT] = agreement(reference, resampled(contrast, first, transform_of(np.eye(4))), brought, body)
    both = [_Registered(pair.first, to_native, None, reference), _Registered(pair.second, matrix, field, brought)]
    return both, report


def _volume(image: sitk.Image) -> float:
    """Return the volume of the field of view, mm^3."""
    return float(np.prod(image.GetSize()) * np.prod(image.GetSpacing()))


def _linear(reference: sitk.Image, scan: sitk.Image, names: str, affine: bool) -> tuple[np.ndarray, dict[str, float]]:
    """Estimate the transform from a reference to a scan and check it by measures that contrast medium does not change.

    :returns: 4 x 4 matrix on mm; entries of the subject's record.
    """
    pyramids = pyramid(reference), pyramid(scan)
    finest = pyramids[0][-1], pyramids[1][-1]
    try:
        matrix = scan_of_reference(*pyramids, affine=affine)
        before, after = (similarity(*finest, one, correlation_ratio) for one in (np.eye(4), matrix))
        check_orientation(*pyramids, matrix, correlation_ratio)
        check_similarity(before, after)
        check_matrix(matrix)
    except DataError as error:
        raise RegistrationError(f"{names}: {error}") from error
    return matrix, {"by the headers": round(before, 4), "after": round(after, 4)}


def _check_deformation(field: sitk.Image, images: Sequence[np.ndarray], body: np.ndarray) -> dict[str, Any]:
    """Check a displacement field.

    :param images: (z, y, x) each: the reference, the scan without and with the displacement; NaN outside their field
        of view.
    :returns: entries of the subject's record.
    """
    folded = check_folding(field)
    reference, *scans = images
    before, after = (correlation_ratio(reference, scan, body) for scan in scans)
    check_similarity(before, after)
    lengths = np.linalg.norm(sitk.GetArrayViewFromImage(field)[body], axis=-1)
    return {
        "correlation ratio before deformation": round(before, 4),
        "correlation ratio after deformation": round(after, 4),
        "share of voxels that fold": folded,
        "largest displacement in the body, mm": round(float(lengths.max()), 2),
    }


def _filled(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.nan_to_num(array, nan=float(np.nanmin(array))))
    image.CopyInformation(grid)
    return image


def _head_foot(geometry: Geometry) -> int:
    """Return the axis of the array (z, y, x) along the patient, along which fields of view differ."""
    return 2 - int(np.abs(np.reshape(geometry.direction, (3, 3))[2]).argmax())


def _shown_by_all(body: np.ndarray, images: Sequence[np.ndarray], geometry: Geometry) -> Box:
    """Find the longest run of slices along the patient in which every scan shows the body.

    :raises RegistrationError: there is no such slice.
    """
    axis = _head_foot(geometry)
    others = tuple({0, 1, 2} - {axis})
    seen = body & np.logical_and.reduce([np.isfinite(image) for image in images])
    shown = seen.sum(axis=others) >= LEAST_SHOWN * body.sum(axis=others)
    best, start = (0, 0), 0
    for index, is_shown in enumerate([*shown, False]):
        if not is_shown:
            best, start = max(best, (start, index), key=lambda run: run[1] - run[0]), index + 1
    if best[0] == best[1]:
        raise RegistrationError(
            f"in no slice, all scans of the subject show {LEAST_SHOWN:.0%} of the body. Probably one has a narrower "
            "field of view: crop the other scans to it, with their labels"
        )
    return [list(best) if one == axis else [0, size] for one, size in enumerate(body.shape)]


def _write(registered: Sequence[_Registered], geometry: Geometry, box: Box, subject: SubjectToRegister) -> None:
    whole = [stop - start for start, stop in box] == list(reversed(geometry.size))
    for one in registered:
        if one.matrix is not None:
            write_scan(one.scan, cropped(geometry, box), one.transform, subject)
        elif whole:
            copy_scan(one.scan, subject)
        else:
            crop_scan(one.scan, box, subject)
    moved = [one for one in registered if one.matrix is not None]
    write_transforms(
        [one.scan for one in moved], [one.matrix for one in moved], [one.field for one in moved], subject.target
    )
