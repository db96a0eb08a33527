import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.formats import check_format, refusal
from longflow.data.images import read_geometry, read_image
from longflow.errors import DataError
from tests.data.helpers import tiny_array, write_image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".NII.GZ"])
def test_files_in_one_piece_are_read(tmp_path, ending):
    assert refusal(f"a{ending}") is None
    write_image(tiny_array(), tmp_path / f"a{ending.lower()}")
    check_format(tmp_path / f"a{ending.lower()}")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr", ".img", ".mgz", ".img.gz", ".IMG"])
def test_other_formats_are_refused_with_the_command_that_converts(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"")
    for read in (read_image, read_geometry):
        with pytest.raises(
            DataError, match=rf"a{ending} is .*Convert every image: (nib-convert|python -c).* a{ending}"
        ):
            read(tmp_path / f"a{ending}")


def run_advice(message: str, folder: Path) -> None:
    """Run the command of a message as a user would, with the tools of this Python."""
    command = message.split(": ", 1)[1].split(". Then")[0]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run(command, shell=True, check=True, cwd=folder, env=environment)


@pytest.mark.parametrize("ending", [".mhd", ".img", ".mgz"])
def test_the_command_converts(tmp_path, ending):
    array, affine = tiny_array().T.astype(np.float32), np.diag([1.5, 1.5, 5.0, 1.0])
    if ending == ".mhd":
        sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / "a.mhd"))
    else:
        kind = nibabel.Nifti1Pair if ending == ".img" else nibabel.MGHImage
        nibabel.save(kind(array, affine), tmp_path / f"a{ending}")
    run_advice(refusal(f"a{ending}")[1], tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "a.nii.gz")), array.T)


@pytest.mark.parametrize(
    ("ending", "field"),
    [
        (
            ".mha",
            "ElementDataFile = LOCAL",
        ),
        (".nrrd", "encoding: raw"),
    ],
)
def test_a_header_that_names_another_file_is_refused(tmp_path, ending, field):
    path = tmp_path / f"a{ending}"
    image = sitk.GetImageFromArray(tiny_array())
    sitk.WriteImage(image, str(path), useCompression=False)
    text = path.read_bytes()
    assert field.encode() in text
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(2 * tiny_array().size))
    other = b"ElementDataFile = secret\n" if ending == ".mha" else b"encoding: raw\ndata file: secret"
    path.write_bytes(text.split(field.encode())[0] + other + (b"" if ending == ".mha" else b"\n\n"))
    assert sitk.ReadImage(str(path)).GetSize() == (8, 8, 6)  # SimpleITK follows it
    with pytest.raises(DataError, match=r"voxels are in another file \(secret\)"):
        read_image(path)


def test_a_text_header_without_an_end_is_refused(tmp_path):
    (tmp_path / "a.mha").write_text("NDims = 3\n" + "Comment = x\n" * 10_000)
    with pytest.raises(DataError, match="does not end within 64 kB"):
        check_format(tmp_path / "a.mha")
