import logging
from collections import Counter

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, image_path, series_of_folder, write_scans
from longflow.errors import ConfigurationError, DataError
from longflow.files import write_json
from longflow.paths import protocol_path
from longflow.reading import read_json
from longflow.tasks.forecast.hidden_context import HiddenContext
from longflow.tasks.forecast.protocol import (
    ProtocolSettings,
    draw_protocol,
    protocol_misfit,
    protocol_of_folder,
    read_protocol,
    write_protocol,
)
from longflow.tasks.forecast.requests import forecast_requests

DESCRIPTION = DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="days")


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def write_images(raw, counts, without=()):
    """imagesTs with subjects of so many scans; files of the cases in ``without`` are not there. Returns the series."""
    images = raw / "imagesTs"
    images.mkdir(parents=True, exist_ok=True)
    scans = [
        Scan(f"{subject}_{index}", subject, 10.0 * index, (image_path(images, f"{subject}_{index}", 0, DESCRIPTION),))
        for subject, count in counts.items()
        for index in range(count)
    ]
    for scan in scans:
        scan.images[0].unlink(missing_ok=True)
        if scan.case not in without:
            scan.images[0].touch()
    write_scans(scans, images / "scans.csv")
    return series_of_folder(images, DESCRIPTION)


def position(case):
    return int(case.split("_")[1])


@pytest.mark.parametrize("contexts", ["random", "all"])
@pytest.mark.parametrize("gap", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3])
def test_contexts_are_of_the_same_subject_and_at_least_the_gap_before_the_target(raw, contexts, gap, count):
    series = write_images(raw, {f"s{number}": 3 + number for number in range(6)})
    protocol = draw_protocol(series, ProtocolSettings(contexts, gap, count))
    longer = [one for one in series if len(one.scans) > gap]
    of_subjects = Counter(target.subject for target in protocol.targets)
    assert of_subjects == {one.subject: min(count, len(one.scans) - gap) for one in longer}
    assert len({target.target for target in protocol.targets}) == len(protocol.targets)
    for target in protocol.targets:
        positions = [position(case) for case in target.context]
        latest = position(target.target) - gap
        assert {case.split("_")[0] for case in (*target.context, target.target)} == {target.subject}
        assert positions and positions == sorted(set(positions)) and positions[-1] <= latest
        assert contexts == "random" or positions == list(range(latest + 1))


def test_random_contexts_keep_each_scan_with_probability_one_half(raw):
    """400 draws of 8 scans: the share of one position is within 4 standard deviations, 0.1, of 1/2."""
    series = write_images(raw, {f"s{number:03d}": 9 for number in range(400)}, [f"s{n:03d}_8" for n in range(400)])
    targets = draw_protocol(series, ProtocolSettings()).targets
    given = np.array([[f"{target.subject}_{place}" in target.context for place in range(8)] for target in targets])
    assert len(targets) == 400 and np.abs(given.mean(0) - 0.5).max() < 0.1
    assert np.abs(np.corrcoef(given.T) - np.eye(8)).max() < 0.2


def test_drawn_targets_are_spread_over_the_series(raw):
    series = write_images(raw, {f"s{number:02d}": 7 for number in range(12)})
    found = Counter(position(target.target) for target in draw_protocol(series, ProtocolSettings()).targets)
    assert found == dict.fromkeys(range(1, 7), 2)


def test_rows_without_an_image_are_the_targets(raw):
    """As of an import, whose targets are in targetsTs; no requested scan is ever given."""
    series = write_images(raw, {"a": 6, "b": 4}, ["a_4", "a_5", "b_3"])
    targets = draw_protocol(series, ProtocolSettings("all", least_gap=2)).targets
    assert {target.target: target.context for target in targets} == {
        "a_4": ("a_0", "a_1", "a_2"),
        "a_5": ("a_0", "a_1", "a_2", "a_3"),
        "b_3": ("b_0", "b_1"),
    }


def test_series_too_short_for_the_gap_are_named(raw, caplog):
    series = write_images(raw, {"a": 6, "b": 3})
    assert {target.subject for target in draw_protocol(series, ProtocolSettings(least_gap=4)).targets} == {"a"}
    assert "no scan is 4 or more before a target: b." in caplog.text
    requested = write_images(raw, {"a": 6, "b": 3}, ["a_5", "b_2"])
    assert [target.target for target in draw_protocol(requested, ProtocolSettings(least_gap=4)).targets] == ["a_5"]
    assert "no scan is 4 or more before a target: b_2." in caplog.text
    with pytest.raises(DataError, match=r"No test subject .* --least_gap 6: it needs a scan at least 6 before"):
        draw_protocol(series, ProtocolSettings(least_gap=6))


def test_it_is_stored_once_and_stays(raw):
    write_images(raw, {f"s{number}": 8 for number in range(5)})
    path, drawn = write_protocol(raw, DESCRIPTION, ProtocolSettings())
    content, age = path.read_bytes(), path.stat().st_mtime_ns
    assert path == protocol_path(raw) and read_protocol(path) == drawn
    assert write_protocol(raw, DESCRIPTION, ProtocolSettings()) == (path, drawn)
    with pytest.raises(ConfigurationError, match=r"holds another protocol .*seed 12345.*would be drawn with .*seed 1"):
        write_protocol(raw, DESCRIPTION, ProtocolSettings(seed=1))
    write_images(raw, {f"s{number}": 8 for number in range(6)})
    with pytest.raises(ConfigurationError, match=r"holds another protocol \(other scans\)"):
        write_protocol(raw, DESCRIPTION, ProtocolSettings())
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, age)
    path.unlink()
    assert write_protocol(raw, DESCRIPTION, ProtocolSettings(seed=1))[1].targets != drawn.targets


@pytest.mark.parametrize("wrong", [{"least_gap": 0}, {"targets_per_subject": 0}, {"seed": -1}])
def test_settings_out_of_range(raw, wrong):
    write_images(raw, {"a": 3})
    with pytest.raises(ConfigurationError, match="expected a gap of 1 or more"):
        write_protocol(raw, DESCRIPTION, ProtocolSettings(**wrong))


def test_there_must_be_test_subjects(raw):
    with pytest.raises(DataError, match="has no imagesTs"):
        write_protocol(raw, DESCRIPTION, ProtocolSettings())


def test_requests_are_those_of_the_protocol(raw, caplog):
    write_images(raw, {"a": 6, "b": 6})
    drawn = write_protocol(raw, DESCRIPTION, ProtocolSettings(targets_per_subject=2))[1]
    with caplog.at_level(logging.INFO):
        requests = forecast_requests(raw / "imagesTs", DESCRIPTION, ())
    assert [(one.target.case, tuple(scan.case for scan in one.context)) for one in requests] == [
        (target.target, target.context) for target in drawn.targets
    ]
    assert "test protocol: random contexts, least gap 1, seed 12345." in caplog.text
    assert requests[0].provenance()["test_protocol"] == "random contexts, least gap 1, seed 12345"
    # a context ends before its target, whose image is there
    assert all(one.target.exists and one.context[-1].time < one.target.time for one in requests)


def test_requested_times_and_other_folders_know_no_protocol(raw, tmp_path):
    write_images(raw, {"a": 6})
    write_protocol(raw, DESCRIPTION, ProtocolSettings())
    (request,) = forecast_requests(raw / "imagesTs", DESCRIPTION, [100.0])
    assert len(request.context) == 6 and not request.protocol
    (raw / "imagesTs").rename(raw / "others")
    assert protocol_of_folder(raw / "others", series_of_folder(raw / "others", DESCRIPTION)) is None
    with pytest.raises(DataError, match=r"requests no forecast.*longflow_verify --test_protocol"):
        forecast_requests(raw / "others", DESCRIPTION, ())


def test_a_protocol_that_does_not_fit_is_refused(raw):
    series = write_images(raw, {"a": 6, "b": 6})
    path, drawn = write_protocol(raw, DESCRIPTION, ProtocolSettings("all", least_gap=2))
    assert protocol_misfit(raw, DESCRIPTION) is None
    target = drawn.targets[0]
    next_one = f"a_{position(target.target) - 1}"
    for context, message in [
        (("a_5",), "and its context are not in the table"),
        ((target.target,), "and its context are not in the table"),
        (("b_0",), "and its context are not in the table"),
        ((), "has no context scan"),
        ((next_one,), f"{next_one} is nearer to {target.target} than the gap allows"),
    ]:
        changed = [{**vars(target), "context": context}, vars(drawn.targets[1])]
        write_json({**read_json(path), "targets": changed}, path)
        with pytest.raises(DataError, match=f"does not fit .*{message}.*delete the file and draw another"):
            forecast_requests(raw / "imagesTs", DESCRIPTION, ())
        assert message in protocol_misfit(raw, DESCRIPTION)
    write_json({**read_json(path), "targets": [vars(target)] * 2}, path)
    with pytest.raises(DataError, match=f"{target.target} is a target twice"):
        protocol_of_folder(raw / "imagesTs", series)


def test_scans_that_changed_after_the_draw(raw, caplog):
    write_images(raw, {"a": 6})
    target = write_protocol(raw, DESCRIPTION, ProtocolSettings())[1].targets[0]
    series = write_images(raw, {"a": 6, "c": 4})
    assert protocol_of_folder(raw / "imagesTs", series) is not None
    assert "Not forecast, since test_protocol.json has no target of them: c." in caplog.text
    series = write_images(raw, {"a": 6}, [target.context[0]])
    with pytest.raises(DataError, match=f"{target.context[0]}, which {target.target} is forecast from, has no image"):
        protocol_of_folder(raw / "imagesTs", series)
    series = write_images(raw, {"a": 7}, ["a_6"])
    with pytest.raises(DataError, match="a_6 is requested, but no target"):
        protocol_of_folder(raw / "imagesTs", series)


@pytest.mark.parametrize(
    "change",
    [{"format": 0}, {"contexts": "some"}, {"seed": "1"}, {"targets": [1]}, {"targets": None}, {"least_gap": None}],
)
def test_a_file_that_is_no_protocol(raw, change):
    write_images(raw, {"a": 6})
    path, _ = write_protocol(raw, DESCRIPTION, ProtocolSettings())
    content = {**read_json(path), **change}
    write_json({name: value for name, value in content.items() if value is not None}, path)
    with pytest.raises(DataError, match=r"is not a test protocol of this version of longflow\. Restore the file"):
        read_protocol(path)
    assert "is not a test protocol" in protocol_misfit(raw, DESCRIPTION)


def test_hidden_scans_are_hidden_of_those_that_the_protocol_gives(raw):
    write_images(raw, {"a": 6}, ["a_5"])
    write_protocol(raw, DESCRIPTION, ProtocolSettings("all", least_gap=3))
    (request,) = forecast_requests(raw / "imagesTs", DESCRIPTION, (), HiddenContext.of("last:1"))
    assert [scan.case for scan in request.context] == ["a_0", "a_1"]
