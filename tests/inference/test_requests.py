import pytest

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_scans
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.tasks.forecast.hidden_context import HiddenContext
from longflow.tasks.forecast.requests import forecast_requests
from longflow.tasks.segment.requests import segmentation_requests
from longflow.tasks.translate.requests import translation_requests

DESCRIPTION = DatasetDescription(channel_names={"0": "T1", "1": "T2"}, file_ending=".nii.gz", time_unit="days")


@pytest.fixture
def folder(tmp_path):
    """Subject s has scans at 0, 10, 20 and 30, empty files all; it is wanted at 25 and 40."""
    scans = [Scan(f"s_{time}", "s", float(time), ()) for time in (0, 10, 20, 25, 30, 40)]
    write_scans(scans, tmp_path / "scans.csv")
    for scan in scans:
        for channel in range(2) if scan.time not in (25, 40) else ():
            image_path(tmp_path, scan.case, channel, DESCRIPTION).touch()
    return tmp_path


def found(folder, times=(), context_length=8, hidden=None):
    wanted = forecast_requests(folder, DESCRIPTION, times, context_length, hidden)
    return {item.target.case: ([scan.time for scan in item.context], item.horizon) for item in wanted}


def test_rows_without_images_are_wanted_from_all_scans_before_them(folder):
    assert found(folder) == {"s_25": ([0, 10, 20], 5), "s_40": ([0, 10, 20, 30], 10)}


def test_the_latest_scans_are_the_context(folder):
    assert found(folder, context_length=2) == {"s_25": ([10, 20], 5), "s_40": ([20, 30], 10)}


def test_times_stand_instead_of_rows_each_once(folder):
    assert found(folder, [50, 12.5, 50]) == {"s_t50": ([0, 10, 20, 30], 20), "s_t12.5": ([0, 10], 2.5)}


@pytest.mark.parametrize(
    ("text", "contexts"),
    [
        ("first:1", {"s_25": ([10, 20], 5), "s_40": ([20, 30], 10)}),
        ("last:1", {"s_25": ([0, 10], 15), "s_40": ([10, 20], 20)}),
        ("last:2", {"s_25": ([0], 25), "s_40": ([10], 30)}),
    ],
)
def test_scans_are_hidden_of_what_a_model_takes_and_horizons_count_from_the_rest(folder, text, contexts, caplog):
    assert found(folder, context_length=3, hidden=HiddenContext.of(text)) == contexts
    assert not caplog.text


def test_one_scan_is_left_where_there_are_too_few_and_that_is_said(folder, caplog):
    hidden = HiddenContext.of("first:3")
    assert found(folder, hidden=hidden) == {"s_25": ([20], 5), "s_40": ([30], 10)}
    said = "--hide_context first:3: 1 of 2 targets have no more than 3 context scans (s_25). One scan is left to each"
    assert said in caplog.text


def test_what_was_hidden_stands_in_the_sidecar(folder):
    (one, _) = forecast_requests(folder, DESCRIPTION, (), 8, HiddenContext.of("last:2"))
    described = one.provenance()
    assert described["hide_context"] == "last:2" and described["context"] == ["s_0"] and described["horizon"] == 25
    assert forecast_requests(folder, DESCRIPTION, (), 8)[0].provenance()["hide_context"] is None


def test_long_times_are_told_apart(folder):
    assert list(found(folder, [1_000_001, 1_000_002.5])) == ["s_t1000001", "s_t1000002.5"]


def test_all_that_is_wrong_is_said_at_once(folder):
    image_path(folder, "s_10", 1, DESCRIPTION).unlink()
    with pytest.raises(DataError, match=r"s_10: the file s_10_0001\.nii\.gz is missing") as raised:
        found(folder, [-1])
    assert "s_t-1: subject s is wanted at time -1, but its first scan is at 0" in str(raised.value)


def test_a_channel_too_many_is_an_error_for_every_task(folder):
    image_path(folder, "s_20", 2, DESCRIPTION).touch()
    for ask in (lambda: found(folder), lambda: segmentation_requests(folder, DESCRIPTION)):
        with pytest.raises(DataError, match=r"s_20: s_20_0002\.nii\.gz is one channel too many.*: T1, T2\."):
            ask()


def test_every_scan_that_is_there_is_to_be_segmented(folder, caplog):
    with caplog.at_level("INFO"):
        wanted = segmentation_requests(folder, DESCRIPTION)
    assert [item.target.case for item in wanted] == ["s_0", "s_10", "s_20", "s_30"]
    assert "Rows without an image are left out: s_25, s_40." in caplog.text
    assert wanted[1].provenance()["images"] == ["s_10_0000.nii.gz", "s_10_0001.nii.gz"]


def test_what_cannot_be_segmented(folder, tmp_path):
    image_path(folder, "s_10", 1, DESCRIPTION).unlink()
    with pytest.raises(DataError, match=r"cannot be segmented:\n  s_10: the file s_10_0001\.nii\.gz is missing"):
        segmentation_requests(folder, DESCRIPTION)
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        segmentation_requests(tmp_path / "nowhere", DESCRIPTION)
    other = DESCRIPTION.model_copy(update={"file_ending": ".mha"})
    with pytest.raises(DataError, match=r"none of its images. Looked for s_0_0000.mha"):
        segmentation_requests(folder, other)


PHASES = ["native", "arterial"]
TRANSLATED = DESCRIPTION.model_copy(update={"channel_names": {"0": "CT"}, "task": "translate"})


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


def translations(folder, asked=None):
    return {item.source.case: item.target for item in translation_requests(folder, TRANSLATED, PHASES, asked)}


def test_scans_are_translated_into_the_phase_that_they_are_not_in(phases, caplog):
    folder = phases("native", "arterial", "arterial", "native")
    with caplog.at_level("INFO"):
        found = translations(folder, "native")
    assert [(target.case, target.subject, target.time) for target in found.values()] == [
        ("p1_native", "p", 0.0),
        ("p2_native", "p", 5.0),
    ]
    assert found["p1"].covariates == {"phase": "native", "site": "A"}
    assert "Scans that are in the phase 'native' already are left out: p0, q3." in caplog.text
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
def test_without_a_wish_it_is_the_other_phase(phases, given, other):
    folder = phases(given)
    assert translations(folder)["p0"].phase == other == translations(folder, other)["p0"].phase


def test_rows_without_an_image_are_not_translated(phases, caplog):
    folder = phases("native", "arterial", "native", image=lambda case: case != "p1")
    with caplog.at_level("INFO"):
        assert list(translations(folder)) == ["p0", "p2"]
    assert "Rows without an image are left out: p1." in caplog.text


def test_both_phases_and_no_wish(phases):
    message = r"holds scans of both phases \(1 native, 2 arterial\). Say which .* --to native or --to arterial"
    with pytest.raises(ConfigurationError, match=message):
        translations(phases("native", "arterial", "arterial"))


def test_the_phase_that_the_scans_have(phases):
    folder = phases("native", "", "native", image=lambda case: case != "p1")
    with pytest.raises(ConfigurationError, match=r"in the phase 'native' already \(2 scans\).* other phase is 'arteri"):
        translations(folder, "native")


def test_a_wanted_phase_that_the_model_does_not_know(phases):
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
    with pytest.raises(DataError, match="has a table but none of its images"):
        translations(folder)
    (folder / "p0_0000.nii.gz").touch()
    with pytest.raises(DataError, match=r"cannot be translated:\n  p0: p0_0001.nii.gz is one channel too many"):
        translations(folder)
