"""Which image files are read: voxels and header must be in one file."""

import re
from pathlib import Path

from longflow.errors import file_error

#: endings that are not read: the other file of the pair, or the reader, is missing
REFUSED = {
    ".mhd": "a header whose voxels are in another file",
    ".nhdr": "a header whose voxels are in another file",
    ".hdr": "one file of a pair (.hdr and .img)",
    ".img": "one file of a pair (.hdr and .img)",
    ".hdr.gz": "one file of a pair (.hdr and .img)",
    ".img.gz": "one file of a pair (.hdr and .img)",
    ".nia": "a text form of NIfTI",
    ".mgz": "the format of FreeSurfer",
    ".mgh": "the format of FreeSurfer",
}
BY_SIMPLEITK = 'python -c "import sys, SimpleITK as s; s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])"'
LONGEST_TEXT_HEADER = 2**16


def refusal(name: str) -> tuple[str, str] | None:
    """Tell why files with an ending are not read.

    :param name: of a file, or an ending alone.
    :returns: what such a file is, and the advice with the command that converts it; None: it may be read.
    """
    ending = next((ending for ending in REFUSED if name.lower().endswith(ending)), None)
    if ending is None:
        return None
    tool = BY_SIMPLEITK if ending in (".mhd", ".nhdr", ".nia") else "nib-convert"
    stem, own = Path(name).name[: -len(ending)] or "SCAN", name[-len(ending) :]
    advice = f"Convert every image: {tool} {stem}{own} {stem}.nii.gz. Then set file_ending in dataset.json to .nii.gz."
    return REFUSED[ending], advice


def check_format(path: Path) -> None:
    """Check that a file is of a format that is read, with its voxels in the same file.

    :raises FileError: it is one of two files, or names another file.
    """
    if refused := refusal(str(path)):
        found, advice = refused
        raise file_error(path, "format", found, "one file for header and voxels, as .nii.gz", advice, f"is {found}")
    ending = Path(path).suffix.lower()
    if ending in (".mha", ".nrrd") and (other := _other_file(path)):
        found = f"a header whose voxels are in another file ({other})"
        advice = f"Convert it: {BY_SIMPLEITK} {Path(path).name} NEW{ending}"
        raise file_error(path, "format", found, "voxels in the same file", advice, f"is {found}")


def _other_file(path: Path) -> str:
    """Return the file that the header of a .mha or .nrrd file names for its voxels; empty where it names none."""
    with open(path, "rb") as file:
        lines = re.split(r"\r\n|\n|\r", file.read(LONGEST_TEXT_HEADER).decode("latin-1"))
    for line in lines[:-1]:
        if not line:
            return ""  # NRRD: the voxels begin
        name, _, value = line.replace("=", ":", 1).partition(":")
        name, value = "".join(name.lower().split()), value.strip()
        if name == "elementdatafile" and value.lower() == "local":
            return ""
        if name in ("elementdatafile", "datafile"):
            return value[:80]
    return f"its header does not end within {LONGEST_TEXT_HEADER // 1024} kB"
