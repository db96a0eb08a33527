import csv
import html
import re
import shutil
from urllib.parse import unquote

import pytest

from longflow.errors import DataError
from longflow.files import write_csv, write_json
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.report.cohort import write_cohort_report
from longflow.report.pages import write_report
from tests.conftest import small_disk
from tests.report.conftest import HOSTILE


def text_of(page) -> str:
    return page.read_text(encoding="utf-8")


def test_the_page_has_what_commands_wrote(studied, evaluated):
    page = text_of(write_cohort_report(studied, evaluated))
    for part in (
        "&lt;b&gt;x&lt;/b&gt;",  # integrity
        "Time scale 3: &lt;the&gt; median.",
        "one acquisition",
        "not used: always 1",
        "0.3125",  # cross-validation
        "0.5 (",  # held-out mean with its interval
        "1 to 2.5 months (2 subjects)",
        "RMSE / range",
        "longflow_compare did not run",
    ):
        assert part in page, part
    assert "<b>x" not in page and "<img src=x" not in page


def test_subjects_are_ordered_and_linked_to_their_pages(studied, evaluated):
    write_report(evaluated)
    page = write_cohort_report(studied, evaluated)
    with open(page.parent / "subjects.csv", newline="", encoding="utf-8") as file:
        assert [row["subject"] for row in csv.DictReader(file)] == ["s1", HOSTILE]
    links = [unquote(html.unescape(link)) for link in re.findall(r'<a href="([^"#]+)"', text_of(page))]
    assert len(links) == 3 and all((page.parent / link).is_file() for link in links)


def test_the_card_on_the_page_is_the_file(studied, evaluated):
    page = write_cohort_report(studied, evaluated)
    card = read_json(page.parent / "model_card.json")
    assert card["training_data"]["subjects"] == 4
    assert card["performance"]["all subjects"]["all"]["nrmse"]["mean"] == 0.5
    shown = html.unescape(text_of(page))
    assert all(sentence in shown for sentence in card["limits"])
    assert HOSTILE not in (page.parent / "model_card.json").read_text(encoding="utf-8")


def test_a_dataset_of_which_nothing_was_made(studied):
    for path in (studied.preprocessed, studied.results):
        shutil.rmtree(path)
    page = text_of(write_cohort_report(studied))
    for command in ("verify", "plan_and_preprocess", "train", "find_best", "predict"):
        assert f"longflow_{command}" in page


def test_results_without_the_raw_dataset(studied, evaluated):
    model = studied.model("cronos", "longflowPlans", "3d_fullres")
    shutil.copy(studied.raw / "dataset.json", model.dataset_json)
    shutil.rmtree(studied.raw)
    assert "The raw dataset is not on this machine" in text_of(write_cohort_report(studied, evaluated))


def test_results_of_an_older_version(studied, evaluated):
    """metrics.json and best.json without the parts that came later."""
    write_json({"overall": {"forecast": {}}}, evaluated / "metrics.json")
    write_json({"candidate": "cronos"}, studied.best)
    page = text_of(write_cohort_report(studied, evaluated))
    assert "<strong>cronos</strong>" in page


def test_predictions_that_were_not_evaluated(studied, evaluated):
    for name in ("metrics.csv", "metrics.json"):
        (evaluated / name).unlink()
    assert "No held-out predictions are evaluated" in text_of(write_cohort_report(studied, evaluated))


def test_a_comparison(studied, evaluated):
    line = {"variant": "<i>tfm</i>", "nrmse": {"mean": 0.25, "interval": [0.125, 0.5], "lci": 1.0}, "runs": ["fold 0"]}
    folder = studied.comparison("methods").folder
    write_json({"budget": "2 h", "table": [{**line, "cost": {"seconds": 3.0}}]}, folder / "comparison.json")
    (folder / "cost.png").write_bytes(b"\x89PNG")
    page = text_of(write_cohort_report(studied, evaluated))
    assert "0.25 (0.125 to 0.5)" in page and "&lt;i&gt;tfm" in page and "data:image/png;base64,iVBORw==" in page


def test_calibration_is_shown_where_it_was_measured(studied, evaluated):
    results = read_json(evaluated / "metrics.json")
    assert "calibration" not in text_of(write_cohort_report(studied, evaluated))
    write_json(
        {**results, "by_structure": {"core": {"calibration_slope": {"slope": 0.875}}}}, evaluated / "metrics.json"
    )
    assert "slope: 0.875" in text_of(write_cohort_report(studied, evaluated))


def test_intervals_of_volumes(studied, evaluated):
    row = {"shortest": 1.0, "longest": 2.5, "subjects": 12, "half_width_ml": 3.125, "lci_half_width_ml": 6.25}
    record = {"level": 0.8, "by_structure": {"core": {"mean_reference_ml": 31.5, "half_widths": [row]}}}
    write_json(record, studied.calibration("Dataset103_Structures") / "calibration.json")
    text = text_of(write_cohort_report(studied, evaluated))
    assert "segmented by Dataset103_Structures" in text
    assert all(number in text for number in ("3.125", "6.25", "31.5", "0.8"))


def test_many_subjects_are_shown_by_the_best_and_the_worst(studied, evaluated):
    rows = [{"case": f"p{n}_1", "subject": f"p{n}", "method": "forecast", "nrmse": n / 100} for n in range(30)]
    write_csv(list(rows[0]), rows, evaluated / "metrics.csv")
    page = text_of(write_cohort_report(studied, evaluated))
    assert all(f">p{n}<" in page for n in (0, 4, 25, 29)) and ">p10<" not in page


def test_the_same_results_give_the_same_page(studied, evaluated):
    first = write_cohort_report(studied, evaluated).read_bytes()
    assert write_cohort_report(studied, evaluated).read_bytes() == first


def test_nothing_runs_and_nothing_is_loaded(studied, evaluated):
    page = text_of(write_cohort_report(studied, evaluated))
    assert "script-src &#39;none&#39;" in page and "<script" not in page and "http" not in page.split("</style>")[1]


def test_a_damaged_file_is_named(studied, evaluated):
    studied.best.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"best\.json"):
        write_cohort_report(studied, evaluated)


def test_a_full_disk(studied, evaluated):
    with small_disk(20_000), pytest.raises(DataError, match="could not be written"):
        write_cohort_report(studied, evaluated)
    assert not (studied.report / "index.html").exists()


def test_a_dataset_that_is_nowhere(studied):
    with pytest.raises(DataError, match=r"dataset\.json"):
        write_cohort_report(DatasetPaths("Dataset102_None"))
