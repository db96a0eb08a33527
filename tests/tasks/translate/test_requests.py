import pytest

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_scans
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.tasks.translate.requests import translation_requests
from tests.inference.helpers import PHASES

TRANSLATED = DatasetDescription(channel_names={"0": "CT"}, file_ending=".nii.gz", time_unit="days", task="translate")


@pytest.fixture
def phases(tmp_path):
    """A function that writes an input folder: subject p at times 0 and 5, q at 0; each scan in the given phase."""

    def write(*given, image=lambda case: True):
        moments = (("p", 0.0), ("p", 0.0), ("p", 5.0), ("q", 0.0))
        scans = [
            Scan(f"{subject}{number}", subject, time, (), covariates={"phase": phase, "site": "A"})
            for number, ((subject, time), phase) in enumerate(zip(moments, given, strict=False))
        ]
        write_scans(scans, tmp_path / "scans.csv")
        for scan in scans:
            if image(scan.case):
                image_path(tmp_path, scan.case, 0, TRANSLATED).touch()
        return tmp_path

    return write


def translations(folder, requested=None):
    return {item.source.case: item.target for item in translation_requests(folder, TRANSLATED, PHASES, requested)}


def test_scans_are_translated_into_the_phase_that_they_are_not_in(phases, caplog):
    folder = phases("native", "arterial", "arterial", "native")
    with caplog.at_level("INFO"):
        found = translations(folder, "native")
    assert [(target.case, target.subject, target.time) for target in found.values()] == [
        ("p1_native", "p", 0.0),
        ("p2_native", "p", 5.0),
    ]
    assert found["p1"].covariates == {"phase": "native", "site": "A"}
    assert "Scans that are in the phase 'native' already are excluded: p0, q3." in caplog.text
    assert list(translations(folder, "arterial")) == ["p0", "q3"]


def test_what_is_translated_is_described(phases):
    (item,) = translation_requests(phases("arterial"), TRANSLATED, PHASES, None)
    assert item.provenance() == {
        "case": "p0_native",
        "subject": "p",
        "time": 0.0,
        "source": "p0",
        "source_phase": "arterial",
        "target_phase": "native",
        "images": ["p0_0000.nii.gz"],
    }


@pytest.mark.parametrize(("given", "other"), [("native", "arterial"), ("arterial", "native")])
def test_without_a_request_it_is_the_other_phase(phases, given, other):
    folder = phases(given)
    assert translations(folder)["p0"].phase == other == translations(folder, other)["p0"].phase


def test_rows_without_an_image_are_not_translated(phases, caplog):
    folder = phases("native", "arterial", "native", image=lambda case: case != "p1")
    with caplog.at_level("INFO"):
        assert list(translations(folder)) == ["p0", "p2"]
    assert "Rows without an image are excluded: p1." in caplog.text


def test_both_phases_without_a_request(phases):
    message = r"holds scans of both phases \(1 native, 2 arterial\). Request a phase with --to native or --to arterial"
    with pytest.raises(ConfigurationError, match=message):
        translations(phases("native", "arterial", "arterial"))


def test_the_phase_that_the_scans_have(phases):
    folder = phases("native", "", "native", image=lambda case: case != "p1")
    with pytest.raises(ConfigurationError, match=r"in the phase 'native' already \(2 scans\).* other phase is 'arteri"):
        translations(folder, "native")


def test_a_requested_phase_that_the_model_does_not_know(phases):
    with pytest.raises(NotFoundError, match=r"no phase 'artrial'. Did you mean 'arterial'\? .* \(--to, the phases"):
        translations(phases("native"), "artrial")


def test_every_scan_has_a_phase_that_the_model_knows(phases):
    with pytest.raises(DataError, match="Correct the column 'phase'") as raised:
        translations(phases("native", "Arterial", "", "native"), "native")
    lines = str(raised.value).splitlines()[1:]
    assert lines == [
        "  p1 (line 3): its phase is 'Arterial', expected native or arterial.",
        "  p2 (line 4): it has no phase, expected native or arterial.",
    ]


def test_a_table_without_the_column_phase(phases):
    folder = phases("")
    table = folder / "scans.csv"
    for text in (table.read_text(), "case,subject,time\np0,p,0\n"):
        table.write_text(text)
        with pytest.raises(DataError, match=r"gives no phase: its column 'phase' is missing or empty, .*line 2 .*p0"):
            translations(folder, "native")


def test_what_cannot_be_translated(phases):
    folder = phases("native", image=lambda case: False)
    (folder / "p0_0001.nii.gz").touch()
    with pytest.raises(DataError, match=r"translated:\n  p0_\*\.nii\.gz: channels: found 0001; expected 0000\."):
        translations(folder)
    (folder / "p0_0000.nii.gz").touch()
    with pytest.raises(DataError, match=r"translated:\n  p0_\*\.nii\.gz: channels: found 0000, 0001; expected 0000\."):
        translations(folder)
