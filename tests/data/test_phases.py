import pytest

from longflow.data.dataset import DatasetDescription, Scan, Series
from longflow.data.phases import in_pairs, phase_pairs, phases_of_dataset
from longflow.errors import DataError


def series(*scans, subject="s"):
    """Scans as (time, phase)."""
    return Series(
        subject,
        tuple(Scan(f"{subject}_{time}_{phase}", subject, time, (), None, {"phase": phase}) for time, phase in scans),
    )


def description(*phases):
    return DatasetDescription(
        channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate", phases=list(phases)
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("arterial", "native"), ["native", "arterial"]),
        (("T1", "T1c"), ["T1", "T1c"]),
        (("Contrast", "NCCT"), ["NCCT", "Contrast"]),
        (("venous", "late"), ["late", "venous"]),
    ],
)
def test_the_phase_without_contrast_is_the_first(found, expected):
    assert phases_of_dataset(description(), [series((0, found[0]), (0, found[1]))]) == expected


def test_dataset_json_has_the_last_word():
    three = [series((0, "native"), (0, "arterial"), (0, "venous"))]
    assert phases_of_dataset(description("venous", "native"), three) == ["venous", "native"]
    with pytest.raises(
        DataError, match=r"'portal', but the column 'phase' of scans.csv holds arterial, native, venous"
    ):
        phases_of_dataset(description("native", "portal"), three)
    with pytest.raises(DataError, match=r"holds arterial, native, venous; expected two .* Name two of them in"):
        phases_of_dataset(description(), three)


@pytest.mark.parametrize(("phases", "holds"), [(("native",), "holds native"), (("",), "is missing or empty")])
def test_fewer_than_two_phases(phases, holds):
    with pytest.raises(DataError, match=f"{holds}; expected two contrast phases. Enter for every scan the phase"):
        phases_of_dataset(description(), [series(*((0, phase) for phase in phases))])


def test_pairs_share_their_time():
    one = series((0, "arterial"), (0, "native"), (3, "native"), (5, "arterial"), (5, "native"), (5, "venous"))
    pairs = phase_pairs(one, ["native", "arterial"])
    assert [(pair.first.case, pair.second.case) for pair in pairs] == [
        ("s_0_native", "s_0_arterial"),
        ("s_5_native", "s_5_arterial"),
    ]
    assert [scan.case for scan in in_pairs(one, ["native", "arterial"]).scans] == [
        *("s_0_arterial", "s_0_native"),
        *("s_5_arterial", "s_5_native"),
    ]
    assert in_pairs(one, ["native", "late"]) == Series("s", ())


def test_a_phase_is_part_of_names_of_files():
    with pytest.raises(DataError, match=r"phase 'w/o contrast' in the column 'phase' .* cannot be part of a file's"):
        phases_of_dataset(description(), [series((0, "w/o contrast"), (0, "arterial"))])
