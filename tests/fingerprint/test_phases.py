import pytest

from longflow.data.dataset import training_series
from longflow.errors import DataError
from longflow.fingerprint.fingerprint import current_fingerprint, extract_fingerprint
from longflow.fingerprint.phases import paired_series
from longflow.paths import DatasetPaths
from tests.data.helpers import edit_description, edit_table, phase_array, write_image, write_phase_dataset

NAME = "Dataset904_Phases"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return write_phase_dataset(DatasetPaths(NAME).raw, subjects=("p1", "p2", "p3"), times=(0, 30))


def phases_of(raw):
    return paired_series(*training_series(raw))


def test_a_pair_is_two_scans_of_one_time(raw):
    phases, series = phases_of(raw)
    assert (phases.names, phases.pairs) == (["native", "arterial"], 6)
    assert phases.excluded() == []
    assert [len(one.scans) for one in series] == [4, 4, 4]


def test_excluded_scans_are_named(raw):
    edit_table(raw, "p1_0_native,p1,0,native", "p1_0_native,p1,0,venous")
    edit_table(raw, "p1_30_native,p1,30,native", "p1_30_native,p1,30,venous")
    edit_table(raw, "p2_30_arterial,p2,30,", "p2_30_arterial,p2,31,")
    edit_description(raw, phases=["native", "arterial"])
    phases, series = phases_of(raw)
    assert [[scan.case for scan in one.scans] for one in series] == [
        ["p2_0_arterial", "p2_0_native"],
        ["p3_0_arterial", "p3_0_native", "p3_30_arterial", "p3_30_native"],
    ]
    assert (phases.pairs, phases.without_pair, phases.other_phases) == (3, ["p1"], {"venous": 2})
    assert phases.single == ["p2_30_native", "p2_30_arterial"]
    assert phases.excluded() == [
        "1 subject without a pair (p1)",
        "2 scans without a counterpart at the same time (p2_30_native, p2_30_arterial)",
        "scans in other phases (2 venous)",
    ]


def test_no_pair_at_all(raw):
    text = (raw / "scans.csv").read_text()
    (raw / "scans.csv").write_text(text.replace(",0,arterial", ",1,arterial").replace(",30,arterial", ",31,arterial"))
    with pytest.raises(DataError, match="No subject has a scan in the phase native and one in the phase arterial at"):
        phases_of(raw)


def test_the_fingerprint_is_of_the_pairs_alone(raw):
    """A third phase may have a grid of its own, and subjects without a pair do not move medians."""
    case = "p1_0_venous"
    (raw / "scans.csv").write_text((raw / "scans.csv").read_text() + f"{case},p1,0,venous\n")
    edit_table(raw, "p3_0_native,p3,0", "p3_0_native,p3,5")
    edit_table(raw, "p3_30_native,p3,30", "p3_30_native,p3,35")
    write_image(phase_array(0, True, (4, 30, 30)), raw / "imagesTr" / f"{case}_0000.nii.gz")
    edit_description(raw, phases=["arterial", "native"])
    fingerprint = extract_fingerprint(NAME, processes=1)
    assert fingerprint.subjects == ["p1", "p2"]
    assert fingerprint.phases.names == ["arterial", "native"]
    assert fingerprint.phases.other_phases == {"venous": 1}
    assert fingerprint.temporal.times == [[0, 30], [0, 30]]
    assert fingerprint.temporal.intervals.minimum == 30


def test_changed_phases_are_changed_data(raw):
    extract_fingerprint(NAME, processes=1)
    edit_description(raw, phases=["arterial", "native"])
    with pytest.raises(DataError, match="have changed since"):
        current_fingerprint(NAME)
    assert extract_fingerprint(NAME, processes=1).phases.names == ["arterial", "native"]
    assert current_fingerprint(NAME)[0].phases.pairs == 6


def test_a_pair_on_two_grids_needs_registration(raw):
    write_image(phase_array(0, True, (4, 24, 22)), raw / "imagesTr" / "p1_0_arterial_0000.nii.gz")
    with pytest.raises(DataError, match="longflow_register"):
        extract_fingerprint(NAME, processes=1)
