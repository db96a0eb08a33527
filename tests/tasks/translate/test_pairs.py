import numpy as np
import pytest

from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.tasks.translate.pairs import find_translation_pairs, translations_of_folder
from tests.data.helpers import edit_table, write_phase_dataset


@pytest.fixture
def raw(tmp_path):
    """Two subjects of two times, native and arterial."""
    return write_phase_dataset(tmp_path / "raw", times=(0, 30))


@pytest.fixture
def description(raw):
    return read_description(raw / "dataset.json")


@pytest.fixture
def found(raw, tmp_path, description):
    """The pairs of the folder ``out``."""

    def find(*further):
        folders = [*further, raw / "imagesTr"]
        return find_translation_pairs(translations_of_folder(tmp_path / "out", description), folders, description)

    return find


def test_a_translation_with_all_that_its_sidecar_says(tmp_path, description, write_translation):
    write_translation(tmp_path / "out", "p1_30_arterial", "native", 5.0, method=["mfm", "mfm", "ddpm"])
    (one,) = translations_of_folder(tmp_path / "out", description)
    assert (one.case, one.subject, one.time, one.source) == ("p1_30_arterial_native", "p1", 30.0, "p1_30_arterial")
    assert (one.source_phase, one.target_phase, one.method) == ("arterial", "native", "mfm + ddpm")
    assert (one.round_trip, one.seconds, one.slices) == (False, 2.0, 4)


def test_reference_of_the_same_subject_and_time_in_the_requested_phase(raw, tmp_path, found, write_translation):
    write_translation(tmp_path / "out", "p1_30_arterial", "native", 5.0)
    write_translation(tmp_path / "out", "p2_0_native", "arterial", 5.0)
    (first, second), without = found()
    assert first.reference == (raw / "imagesTr" / "p1_30_native_0000.nii.gz",)
    assert first.source_images == (raw / "imagesTr" / "p1_30_arterial_0000.nii.gz",)
    assert first.label_map == raw / "labelsTr" / "p1_30_native.nii.gz"
    assert second.reference == (raw / "imagesTr" / "p2_0_arterial_0000.nii.gz",)
    assert without == []


def test_a_reference_without_labels(raw, tmp_path, found, write_translation):
    (raw / "labelsTr" / "p1_0_native.nii.gz").unlink()
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    assert found()[0][0].label_map is None


def test_a_folder_of_another_name_has_no_labels(raw, tmp_path, found, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    (raw / "imagesTr").rename(tmp_path / "acquired")
    (raw / "scans.csv").rename(tmp_path / "acquired" / "scans.csv")
    ((pair,), _) = found(tmp_path / "acquired")
    assert pair.reference[0].parent.name == "acquired" and pair.label_map is None


def test_held_out_references_are_in_the_table_of_the_inputs(raw, tmp_path, found, write_translation):
    """As forecasts: imagesTs has the table, with a row that has no image there; targetsTs has the image."""
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    (raw / "imagesTr").rename(raw / "imagesTs")
    (raw / "scans.csv").rename(raw / "imagesTs" / "scans.csv")
    (raw / "labelsTr").rename(raw / "labelsTs")
    (raw / "targetsTs").mkdir()
    name = "p1_0_native_0000.nii.gz"
    (raw / "imagesTs" / name).rename(raw / "targetsTs" / name)
    ((pair,), _) = found(raw / "targetsTs", raw / "imagesTs")
    assert pair.reference == (raw / "targetsTs" / name,)
    assert pair.label_map == raw / "labelsTs" / "p1_0_native.nii.gz"


def test_there_and_back(raw, tmp_path, found, write_translation):
    """The reference of the way back is the acquired scan, and its source the translation of the way there."""
    write_translation(tmp_path / "there", "p1_0_arterial", "native", 5.0)
    write_translation(tmp_path / "out", "p1_0_arterial_native", "arterial", 7.0, round_trip=True)
    ((pair,), _) = found(tmp_path / "there")
    assert pair.round_trip
    assert pair.source_images == (tmp_path / "there" / "p1_0_arterial_native_0000.nii.gz",)
    assert pair.reference == (raw / "imagesTr" / "p1_0_arterial_0000.nii.gz",)


def test_a_translation_is_never_a_reference(raw, tmp_path, found, write_translation):
    """A folder of translations comes first, whose table names scans in the requested phase."""
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    assert found(tmp_path / "out")[0][0].reference[0].parent == raw / "imagesTr"
    edit_table(raw, "p1_0_native,p1,0,native\n", "")
    with pytest.raises(DataError, match="None of the 1 translations has an acquired scan"):
        found(tmp_path / "out")


def test_a_translation_that_is_called_like_the_reference(raw, tmp_path, found, write_translation):
    """Cases p1_0 (arterial) and p1_0_native: the translation of the first has the name of the second."""
    edit_table(raw, "p1_0_arterial,", "p1_0,")
    (raw / "imagesTr" / "p1_0_arterial_0000.nii.gz").rename(raw / "imagesTr" / "p1_0_0000.nii.gz")
    write_translation(tmp_path / "there", "p1_0_arterial", "native", 5.0)
    for ending in ("_0000.nii.gz", ".json"):
        (tmp_path / "there" / f"p1_0_arterial_native{ending}").rename(tmp_path / "there" / f"p1_0_native{ending}")
    write_translation(tmp_path / "out", "p1_0_native_arterial", "native", 7.0, source="p1_0", subject="p1", time=0)
    ((pair,), _) = found(tmp_path / "there")
    assert pair.reference == (raw / "imagesTr" / "p1_0_native_0000.nii.gz",)


def test_translations_without_reference_are_named(raw, tmp_path, found, write_translation):
    edit_table(raw, "p1_30_native,p1,30,native\n", "")
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    write_translation(tmp_path / "out", "p1_30_arterial", "native", 5.0)
    pairs, without = found()
    assert len(pairs) == 1 and without == ["p1_30_arterial_native"]


def test_no_reference_at_all(tmp_path, raw, found, write_translation):
    """The table has no phases, so nothing is known of them."""
    text = (raw / "scans.csv").read_text().replace("phase", "visit")
    (raw / "scans.csv").write_text(text)
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    with pytest.raises(DataError, match=r"subject p1 at time 0 in phase native in the tables .*imagesTr\. .*-r FOLDER"):
        found()


def test_a_source_that_is_nowhere(tmp_path, found, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0, source="p1_late")
    with pytest.raises(DataError, match=r"The scan p1_late, from which .* is in none of: .*-r FOLDER"):
        found()


def test_a_folder_without_translations(tmp_path, raw, description):
    with pytest.raises(DataError, match="nowhere does not exist"):
        translations_of_folder(tmp_path / "nowhere", description)
    with pytest.raises(DataError, match="holds no translations: found no file"):
        translations_of_folder(tmp_path, description)


def test_a_translation_without_sidecar(raw, description):
    with pytest.raises(DataError, match=r"p1_0_arterial.json does not exist. Each translation needs its sidecar"):
        translations_of_folder(raw / "imagesTr", description)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_phase": None}, "has no target_phase. Is it the sidecar of a translation"),
        ({"source": "../secret"}, r"names the source '../secret', expected a case"),
        ({"source": 3}, "names the source '3', expected a case"),
        ({"source_phase": "native"}, r"two different names, found \['native', 'native'\]"),
        ({"source_phase": ""}, "two different names"),
        ({"time": "soon"}, "time must be a number"),
        ({"seconds": -1}, "seconds and slices numbers from zero on"),
        ({"slices": "many"}, "seconds and slices numbers from zero on"),
    ],
)
def test_sidecars_that_cannot_be(tmp_path, description, write_translation, changes, message):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0, **changes)
    with pytest.raises(DataError, match=rf"p1_0_arterial_native.json.*{message}"):
        translations_of_folder(tmp_path / "out", description)


def test_a_sidecar_that_says_nothing_of_time_taken(tmp_path, description, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0, seconds=None, slices=None)
    (one,) = translations_of_folder(tmp_path / "out", description)
    assert (one.seconds, one.slices) == (None, None)


def test_a_translation_with_a_channel_missing(tmp_path, description, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    two = description.model_copy(update={"channel_names": {"0": "CT", "1": "MR"}})
    with pytest.raises(DataError, match="not hold all 2 channels of the translation p1_0_arterial_native"):
        translations_of_folder(tmp_path / "out", two)


def test_the_fixture_writes_the_reference_and_an_error(tmp_path, raw, write_translation):
    """Of the fixture: what other tests rely on."""
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    written, truth = (
        read_scan((path,)).array
        for path in (
            tmp_path / "out" / "p1_0_arterial_native_0000.nii.gz",
            raw / "imagesTr" / "p1_0_native_0000.nii.gz",
        )
    )
    np.testing.assert_array_equal(written, truth + 5)
