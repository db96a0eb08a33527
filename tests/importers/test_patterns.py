import pytest

from longflow.errors import ConfigurationError, DataError
from longflow.importers.patterns import filled, fitting_files

PLACES = {"subject": "[^/]+", "phase": "native|arterial"}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def fitting(folder, pattern, places=PLACES):
    return [(*found.values(), path.name) for found, path in fitting_files(folder, pattern, places, "{subject}.nii")]


def test_places_are_filled_and_other_files_left_alone(tmp_path):
    touch(tmp_path, "a_1_native.nii", "a_1_arterial.nii", "a_1_venous.nii", "notes.txt", "deep/b_native.nii")
    assert fitting(tmp_path, "{subject}_{phase}.nii") == [
        ("a_1", "arterial", "a_1_arterial.nii"),
        ("a_1", "native", "a_1_native.nii"),
    ]


def test_a_place_may_be_a_folder_and_stand_twice(tmp_path):
    touch(tmp_path, "p1/p1_native.nii", "p1/p2_native.nii", "p2/p2_arterial.nii")
    assert fitting(tmp_path, "{subject}/{subject}_{phase}.nii") == [
        ("p1", "native", "p1_native.nii"),
        ("p2", "arterial", "p2_arterial.nii"),
    ]
    assert fitting(tmp_path, "{subject}/{phase}.nii".replace("{phase}", "p2_{phase}"))[0][0] == "p1"


def test_signs_of_patterns_are_text(tmp_path):
    touch(tmp_path, "p1+native.nii", "p1native.nii", "p1+nativeXnii")
    assert fitting(tmp_path, "{subject}+{phase}.nii") == [("p1", "native", "p1+native.nii")]


def test_patterns_and_folders_that_cannot_be_used(tmp_path):
    touch(tmp_path, "p1_native.nii")
    with pytest.raises(ConfigurationError, match=r"'\*\.nii' must hold \{subject\} and \{phase\}, as in '\{subject\}"):
        fitting(tmp_path, "*.nii")
    with pytest.raises(DataError, match=r"no file with a name as .* It holds p1_native\.nii\. Give"):
        fitting(tmp_path, "{subject}-{phase}.nii")
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        fitting(tmp_path / "absent", "{subject}_{phase}.nii")


def test_filled_leaves_what_is_not_known():
    assert filled("{subject}/{phase}_{key}", {"subject": "p1", "phase": "native"}) == "p1/native_{key}"


def test_a_pattern_stays_below_the_source(tmp_path):
    with pytest.raises(ConfigurationError, match="must be a path below"):
        fitting(tmp_path, f"{tmp_path}/{{subject}}_{{phase}}.nii")
