"""Predictions as BIDS derivatives: label maps, forecasts and translations, and volumes, with a session for each time.

    dataset_description.json                            DatasetType: derivative
    desc-longflow_dseg.tsv                              the labels: index, name, color
    phenotype/volumes.tsv                               participant_id, session_id, a column for each structure (mL)
    sub-P01/sub-P01_sessions.tsv                        session_id, and the time in a column named as its unit
    sub-P01/ses-t365/anat/sub-P01_ses-t365_desc-longflow_dseg.nii.gz
    sub-P01/ses-t730/anat/sub-P01_ses-t730_desc-forecast_T1w.nii.gz

BIDS has no name for CT yet, nor for channels of its users' own. Such images are in a folder that ``.bidsignore`` names.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.data.dataset import (
    DatasetDescription,
    image_path,
    label_path,
    parse_time,
    read_description,
    read_rows,
    sidecar_path,
)
from longflow.data.images import read_array, write_volume
from longflow.data.labels import structures
from longflow.errors import DataError
from longflow.files import atomic_write, exclusive_lock, write_json, write_text
from longflow.parallel import Progress
from longflow.paths import lock_in
from longflow.reading import read_json
from longflow.version import __version__

BIDS_VERSION = "1.10.0"
FILE_ENDING = ".nii.gz"
#: folder for images that BIDS has no name for
UNNAMED = "other"
#: suffix of a channel, by its name in small letters and digits
SUFFIXES = {
    **dict.fromkeys(("t1", "t1w"), "T1w"),
    **dict.fromkeys(("t2", "t2w"), "T2w"),
    **dict.fromkeys(("pd", "pdw"), "PDw"),
    **dict.fromkeys(("flair", "t2flair", "fla"), "FLAIR"),
    "t2starw": "T2starw",
}
#: names of units as BIDS writes them, where it has some
UNITS = {"days": "day", "months": "month", "years": "year", "s": "s", "ms": "ms"}
README = """Predictions of longflow {version} as BIDS derivatives. For research only, not for clinical decisions.

Images with desc-forecast or desc-translation are synthetic: a trained model made them. Their JSON files say from which
scans. Label maps have desc-longflow; desc-longflow_dseg.tsv names the labels, phenotype/volumes.tsv has the volumes.
A session is a time: its number is that of the column in sub-*_sessions.tsv, with p for the point and m for minus.
"""


@dataclass(frozen=True)
class Prediction:
    """A prediction and its place in BIDS.

    :param subject: letters and digits of the subject.
    :param session: name of its session.
    """

    case: str
    subject: str
    session: str
    time: float
    sidecar: Mapping[str, Any]

    @property
    def start(self) -> str:
        """Return what the names of its files begin with."""
        return f"sub-{self.subject}_ses-{self.session}"

    def folder(self, root: Path, kind: str) -> Path:
        """Return the folder of its files of a kind, as "anat"."""
        return root / f"sub-{self.subject}" / f"ses-{self.session}" / kind


def export_bids(folder: Path, output: Path, progress: Progress = lambda *_: None) -> int:
    """Write the predictions of a folder as a BIDS dataset of derivatives.

    :param folder: that ``longflow_predict`` wrote.
    :param output: new folder, or one that this function wrote; files of the same names are replaced.
    :param progress: called with (finished, all, case).
    :returns: the number of images that were written.
    :raises DataError: the folder holds no prediction, two subjects have the same letters and digits, or the output
        folder holds something else.
    """
    if not (folder / "scans.csv").is_file():
        raise DataError(f"{folder} has no scans.csv. Expected a folder that longflow_predict wrote.")
    description = read_description(folder / "dataset.json")
    predictions = _predictions(folder)
    _check_output(output)
    with exclusive_lock(lock_in(output), f"{output} is being written"):
        _write_description(output)
        written = 0
        for number, one in enumerate(predictions):
            progress(number, len(predictions), one.case)
            written += _write_images(one, folder, output, description)
        progress(len(predictions), len(predictions), "")
        _write_sessions(predictions, output, description.time_unit)
        if structures(description.labels):
            _write_labels(output, description)
        _write_volumes(predictions, output)
    return written


def session_of(time: float) -> str:
    """Name the session of a time, in letters and digits.

    >>> [session_of(time) for time in (0.0, 365.0, 12.5, -3.0)]
    ['t0', 't365', 't12p5', 'tm3']
    """
    return "t" + f"{time:.10g}".replace("-", "m").replace(".", "p").replace("+", "")


def _predictions(folder: Path) -> list[Prediction]:
    """List the predictions of a folder, by subject and time."""
    found, names = [], {}
    for row in read_rows(folder / "scans.csv"):
        path, time = sidecar_path(folder, row.case), parse_time(row.time)
        if time is None or not path.is_file():
            continue
        subject = re.sub(r"[^A-Za-z0-9]", "", row.subject)
        if not subject or names.setdefault(subject, row.subject) != row.subject:
            other = names.get(subject, "no letter or digit")
            raise DataError(
                f"The subject {row.subject} cannot be named in BIDS, where names have letters and digits alone: found "
                f"'{subject}', as of {other}. Expected names that differ in letters or digits; rename the subject."
            )
        found.append(Prediction(row.case, subject, session_of(time), time, read_json(path, dict)))
    if not found:
        raise DataError(f"{folder} holds no prediction. Expected a folder that longflow_predict wrote.")
    return sorted(found, key=lambda one: (one.subject, one.time, one.case))


def _check_output(output: Path) -> None:
    """Refuse to write into a folder with anything else.

    :raises DataError: it is not empty, and no dataset that longflow wrote.
    """
    path = output / "dataset_description.json"
    if not output.exists() or not any(output.iterdir()):
        return
    made_by = read_json(path, dict).get("GeneratedBy", [{}]) if path.is_file() else [{}]
    if not isinstance(made_by, list) or not any(
        isinstance(one, dict) and one.get("Name") == "longflow" for one in made_by
    ):
        raise DataError(
            f"{output} holds files that longflow_export_bids did not write. Give an empty folder with -o; derivatives "
            "of a BIDS dataset belong into its folder derivatives/longflow."
        )


def _write_description(output: Path) -> None:
    content = {
        "Name": "Predictions of longflow",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "longflow", "Version": __version__, "Description": "Research only, not for clinical decisions"}
        ],
    }
    write_json(content, output / "dataset_description.json")
    for name, text in (
        ("README", README.format(version=__version__)),
        (".bidsignore", f"**/{UNNAMED}\n**/{UNNAMED}/**\n"),
    ):
        write_text(text, output / name)


def _write_images(one: Prediction, folder: Path, output: Path, description: DatasetDescription) -> int:
    """Write the images of a prediction with their JSON files; return their number."""
    labels = label_path(folder, one.case, description)
    if labels.is_file():
        target = one.folder(output, "anat") / f"{one.start}_desc-longflow_dseg"
        _write_image(labels, target, {"Manual": False, **_described(one, "Label map")}, description)
    images = [
        (name, path)
        for channel, name in enumerate(description.channels)
        if (path := image_path(folder, one.case, channel, description)).is_file()
    ]
    for name, path in images:
        kind, suffix = _place_of(name)
        target = one.folder(output, kind) / f"{one.start}_desc-{_desc(one)}_{suffix}"
        _write_image(path, target, {"SkullStripped": False, **_described(one, "Synthetic image")}, description)
    return len(images) + labels.is_file()


def _place_of(channel: str) -> tuple[str, str]:
    """Return the folder and the suffix of a channel."""
    letters = re.sub(r"[^A-Za-z0-9]", "", channel)
    if suffix := SUFFIXES.get(letters.lower()):
        return "anat", suffix
    return UNNAMED, letters or "image"


def _desc(one: Prediction) -> str:
    """Name what a synthetic image is."""
    if "horizon" in one.sidecar:
        return "forecast"
    phase = re.sub(r"[^A-Za-z0-9]", "", str(one.sidecar.get("target_phase", "")))
    return f"translation{phase.capitalize()}"


def _described(one: Prediction, what: str) -> dict[str, Any]:
    """Return what the JSON file of an image says; longflow's own fields are kept under one key."""
    sources = one.sidecar.get("context") or [one.sidecar.get("source") or one.case]
    text = f"{what} made by a trained model of longflow from {', '.join(map(str, sources))}. Research only."
    return {"Description": text, "SpatialReference": "orig", "longflow": dict(one.sidecar)}


def _write_image(source: Path, target: Path, sidecar: Mapping[str, Any], description: DatasetDescription) -> None:
    """Write an image as NIfTI with its JSON file; compressed NIfTI is copied as it is."""
    path = target.with_name(target.name + FILE_ENDING)
    if description.file_ending == FILE_ENDING:
        with atomic_write(path) as temporary:
            shutil.copyfile(source, temporary)
    else:
        array, geometry = read_array(source)
        write_volume(array, geometry, array.dtype.name, path)
    write_json(dict(sidecar), target.with_name(target.name + ".json"))


def _write_sessions(predictions: Sequence[Prediction], output: Path, time_unit: str) -> None:
    """Write the table of sessions of each subject; the importer of BIDS reads the times again."""
    for subject in dict.fromkeys(one.subject for one in predictions):
        times = {one.session: one.time for one in predictions if one.subject == subject}
        rows = [{"session_id": f"ses-{name}", time_unit: repr(time)} for name, time in times.items()]
        _write_tsv(["session_id", time_unit], rows, output / f"sub-{subject}" / f"sub-{subject}_sessions.tsv")
    about: dict[str, Any] = {"Description": f"Time of the session, {time_unit}, as in scans.csv"}
    if time_unit in UNITS:
        about["Units"] = UNITS[time_unit]
    write_json({"Description": "Sessions and their times", time_unit: about}, output / "sessions.json")


def _write_labels(output: Path, description: DatasetDescription) -> None:
    """Write the table of labels; a label of several structures (regions) is named by all of them."""
    names: dict[int, list[str]] = {}
    for name, values in structures(description.labels).items():
        for value in values:
            names.setdefault(value, []).append(name)
    rows = [{"index": value, "name": ", ".join(names[value])} for value in sorted(names)]
    _write_tsv(["index", "name"], rows, output / "desc-longflow_dseg.tsv")


def _write_volumes(predictions: Sequence[Prediction], output: Path) -> None:
    """Write the volumes of all label maps, where there are some."""
    measured = [one for one in predictions if one.sidecar.get("volumes")]
    names = list(dict.fromkeys(name for one in measured for name in one.sidecar["volumes"]))
    if not names:
        return
    rows = [
        {
            "participant_id": f"sub-{one.subject}",
            "session_id": f"ses-{one.session}",
            **{name: one.sidecar["volumes"].get(name, {}).get("volume_ml", "n/a") for name in names},
        }
        for one in measured
    ]
    _write_tsv(["participant_id", "session_id", *names], rows, output / "phenotype" / "volumes.tsv")
    about = {name: {"Description": f"Volume of {name} in the label map", "Units": "mL"} for name in names}
    content = {
        "MeasurementToolMetadata": {"Description": f"Label maps of longflow {__version__}"},
        "Description": "Volumes of structures, research only",
        "session_id": {"Description": "Session of the scan"},
        **about,
    }
    write_json(content, output / "phenotype" / "volumes.json")


def _write_tsv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a table as BIDS has it: tabs, and no quotes."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(str(row[name]).replace("\t", " ") for name in columns) for row in rows]
    write_text("\n".join(lines) + "\n", path)
