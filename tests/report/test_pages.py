import base64
import hashlib
import html
import json
import re
import shutil
from collections import Counter
from urllib.parse import unquote

import pytest

from longflow.data.dataset import Scan, read_rows, write_scans
from longflow.errors import DataError
from longflow.files import write_json
from longflow.reading import read_json
from longflow.report.cohort import write_cohort_report
from longflow.report.frames import MOST_SCANS, Content
from longflow.report.pages import MARGIN, _Axis, phases_of, write_report
from longflow.report.rendering import HERE, policy_for
from longflow.report.timeline import Moment, Predicted, Subject
from tests.conftest import small_disk
from tests.report.conftest import HOSTILE


def test_the_viewer_is_the_published_one():
    described = read_json(HERE / "vendor" / "niivue.json")
    viewer = (HERE / "vendor" / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(viewer).hexdigest() == described["sha256"]
    assert b"</script" not in viewer and b"\r" not in viewer  # it is a script of the page as it is
    assert "BSD 2-Clause" in (HERE / "vendor" / "niivue.LICENSE").read_text()


def test_one_file_for_each_subject_and_an_index(evaluated):
    index = write_report(evaluated)
    links = re.findall(r'<a href="([^"]+)"', index.read_text())
    assert sorted(unquote(link) for link in links) == sorted(path.name for path in index.parent.glob("subject_*.html"))
    assert len(links) == 2


def test_the_policy_has_the_hash_of_every_script_that_runs(evaluated):
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    policy = html.unescape(policy)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert policy.startswith("default-src 'none'")
    assert policy_for([]).count("script-src 'none'") == 1


def test_names_and_cells_are_text(evaluated):
    write_report(evaluated)
    page = (evaluated / "report" / f"subject_{HOSTILE}.html").read_text()
    assert "<img src=x" not in page and "<b>long</b>" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in (evaluated / "report" / "index.html").read_text()


def test_numbers_are_those_of_the_files(evaluated):
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert "<td>0.12346</td>" in page
    content = json.loads(re.search(r'id="page">(.*?)</script>', page, re.DOTALL)[1])
    assert content["tables"][0]["csv"].splitlines() == ["case,subject,method,rmse", "s1_4,s1,forecast,0.1234567890123"]
    assert "root mean squared error" in page


@pytest.mark.parametrize("recorded, shown", [(False, "was trained on"), ([0], "is not recorded"), (None, "is not rec")])
def test_a_horizon_that_is_inside_or_not_recorded(evaluated, recorded, shown):
    path = evaluated / "s1_4.json"
    write_json(read_json(path) | {"horizon_outside_training": recorded}, path)
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert shown in page and "NOT trained on" not in page


def test_warnings_are_on_top(evaluated):
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert page.index("The horizon is &lt;b&gt;long") < page.index("time-heading")
    assert "NOT trained on" in page
    assert "research only, not for clinical decisions" in page


@pytest.mark.parametrize("verdict, on_top", [("unfit", True), ("doubtful", True), ("fit", False)])
def test_the_verdict_on_the_scans_is_on_the_page_and_in_the_index(evaluated, verdict, on_top):
    path = evaluated / "s1_4.json"
    write_json(read_json(path) | {"fitness": {"verdict": verdict, "reasons": ["Voxels are <b>thick</b>."]}}, path)
    index = write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text().split("time-heading")[0]
    assert f'<strong class="verdict">{verdict}</strong>' in page
    assert (f"its scans are {verdict} for the model. Voxels are &lt;b&gt;thick" in page) is on_top
    cells = re.findall(r"<td>(.*?)</td>", index.read_text())
    assert verdict in cells and "not judged" in cells


def test_index_and_study_link_to_each_other(evaluated, studied):
    index = write_report(evaluated)
    assert '<p id="study"></p>' in index.read_text()
    study = write_cohort_report(studied, evaluated)
    for _ in range(2):  # the link is made by the second report, whichever it is
        (link,) = re.findall(r'<p id="study"><a href="([^"]+)"', index.read_text())
        assert (index.parent / unquote(link)).resolve() == study.resolve()
        write_report(evaluated)
    (back,) = set(re.findall(r'href="([^"#]+index\.html)"', study.read_text()))
    assert (study.parent / unquote(back)).resolve() == index.resolve()


def test_a_scan_that_was_not_found_is_on_the_axis(evaluated):
    (evaluated.parent / "raw" / "Dataset101_Tiny" / "imagesTs" / "s1_0_0000.nii.gz").unlink()
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert 'aria-label="0 months: scan that was not found, s1_0"' in page
    assert 'aria-label="4 months: acquired scan, with labels, s1_4"' in page


def test_scans_of_one_time_are_side_by_side():
    """As those of contrast phases: no mark hides another one."""
    scans = tuple(Moment(case=f"s_{phase}", time=0.0, phase=phase, images=("x",)) for phase in ("native", "arterial"))
    predicted = Predicted(case="s_p", time=0.0, phase="native", images=("x",))
    marks = _Axis(Subject("s", scans, (predicted,), ())).marks([*scans, predicted], "days")
    assert [(one["kind"], one["shift"]) for one in marks] == [("acquired", 0), ("acquired", 1), ("prediction", 0)]


def test_the_phases_that_are_shown_side_by_side():
    frames = [{"phase": phase} for phase in ("", "native", "arterial", "native")]
    assert phases_of(Content(frames=frames)) == ["native", "arterial"]
    assert phases_of(Content(frames=frames[:2])) == [""]


@pytest.mark.parametrize("gone", ["evaluation", "references", "sidecars", "a prediction"])
def test_a_page_with_what_there_is(evaluated, gone):
    """Not evaluated, without acquired scans at the forecast time, of an older version, half predicted."""
    raw = evaluated.parent / "raw" / "Dataset101_Tiny"
    files = {
        "evaluation": evaluated.glob("metrics.*"),
        "references": raw.glob("*/*_4*.nii.gz"),
        "sidecars": evaluated.glob("*_4.json"),
        "a prediction": evaluated.glob("<img*_4_0000.nii.gz"),
    }
    for path in list(files[gone]):
        path.unlink()
    index = write_report(evaluated).read_text()
    page = (evaluated / "report" / "subject_s1.html").read_text()
    content = json.loads(re.search(r'id="page">(.*?)</script>', page, re.DOTALL)[1])
    assert len(content["tables"]) == (gone != "evaluation")
    assert (content["targets"][0]["reference"] is None) is (gone in ("references", "sidecars"))
    assert ("Requested, but not predicted" in index) is (gone == "a prediction")
    assert ("s1_4.json does not exist" in page) is (gone == "sidecars")


def test_the_same_predictions_give_the_same_page(evaluated):
    page = evaluated / "report" / "subject_s1.html"
    write_report(evaluated)
    first = page.read_bytes()
    write_report(evaluated)
    assert page.read_bytes() == first


def test_a_page_without_any_scan(evaluated, monkeypatch):
    """Nothing but damaged forecasts: the page says so, and has the tables."""
    monkeypatch.setenv("LONGFLOW_HOME", str(evaluated / "nowhere"))
    for path in evaluated.glob("*.nii.gz"):
        path.write_bytes(b"no image")
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert "s1_4 is not shown." in page and "<canvas" not in page and "<td>0.12346</td>" in page


def test_pages_of_subjects_that_are_gone_are_removed(evaluated):
    index = write_report(evaluated)
    old = index.with_name("subject_s9.html")
    old.write_text("old")
    (index.parent / "notes.txt").write_text("mine")
    write_report(evaluated)
    assert not old.exists() and (index.parent / "notes.txt").exists()
    assert index.with_name("subject_s1.html").exists()


def test_a_full_disk(evaluated):
    with small_disk(100_000), pytest.raises(DataError) as error:
        write_report(evaluated)
    assert "could not be written" in str(error.value)
    assert not list((evaluated / "report").glob("*"))


def test_the_page_has_the_notices_of_all_that_the_viewer_contains(evaluated):
    write_report(evaluated)
    text = (evaluated / "report" / "subject_s1.html").read_text(encoding="utf-8")
    assert "BSD 2-Clause" in text and "nifti-reader-js 0.8: Copyright" in text and "ISC licence" in text


def test_a_subject_with_one_scan(evaluated):
    """Its context is one scan, at the time of the prediction."""
    sidecar = evaluated / "s1_4.json"
    write_json({**read_json(sidecar), "context": ["s1_0"], "context_times": [4.0]}, sidecar)
    for path in (evaluated.parent / "raw").glob("*/*/s1_*.nii.gz"):
        path.unlink()
    write_report(evaluated)
    shown = (evaluated / "report" / "subject_s1.html").read_text(encoding="utf-8").split("<script", 1)[0]
    assert "s1_4" in shown and not re.search(r"\bnan\b", shown, re.IGNORECASE)


def test_five_hundred_scans(evaluated):
    """All are on the axis; the viewer shows some, the forecast, and what it is compared with."""
    raw = evaluated.parent / "raw" / "Dataset101_Tiny" / "imagesTs"
    scans = [Scan(f"s1_n{number}", "s1", 5.0 + number**2, ()) for number in range(500)]
    for one in scans:
        shutil.copy(raw / "s1_0_0000.nii.gz", raw / f"{one.case}_0000.nii.gz")
    given = [Scan(row.case, row.subject, float(row.time), ()) for row in read_rows(raw / "scans.csv")]
    write_scans([*given, *scans], raw / "scans.csv")
    write_report(evaluated)
    page = (evaluated / "report" / "subject_s1.html").read_text()
    assert page.count('<button type="button" class="mark') == 504
    content = json.loads(re.search(r'id="page">(.*?)</script>', page, re.DOTALL)[1])
    kinds = Counter(frame["kind"] for frame in content["frames"])
    assert kinds == {"acquired": MOST_SCANS + 2, "prediction": 1, "difference": 1}
    assert f"The viewer shows {MOST_SCANS + 2} of 503 scans" in page


def test_five_hundred_scans_are_in_order_on_the_axis():
    scans = tuple(Moment(case=f"s_{number}", time=float(number**2)) for number in range(500))
    axis = _Axis(Subject("s", scans, (), ()))
    places = [axis.left(scan.time) for scan in scans]
    assert places[0] == MARGIN and places[-1] == 100 - MARGIN and places == sorted(places)
