from io import StringIO

from rich.console import Console

from longflow.tasks.forecast.calibration_table import show_calibration

WIDTH = {"shortest": 10.0, "longest": 30.0, "subjects": 9, "attainable_level": 0.9}
RECORD = {
    "dataset": "Dataset101_Tiny",
    "time_unit": "days",
    "level": 0.8,
    "targets": 12,
    "subjects": 9,
    "folds": [0, 1],
    "subjects_of_segmenter_training": [],
    "by_structure": {
        "core": {
            "reference": "labels",
            "mean_reference_ml": 31.25,
            "half_widths": [{**WIDTH, "half_width_ml": 1.5, "lci_half_width_ml": 2.75}],
        }
    },
}


def shown(record):
    console = Console(file=StringIO(), width=150)
    show_calibration(record, console)
    return " ".join(console.file.getvalue().split())


def test_the_table_and_the_promise():
    text = shown(RECORD)
    assert "Dataset101_Tiny: intervals of 80% from 12 out-of-fold forecasts of 9 subjects, folds 0, 1" in text
    for cell in ("core", "10 to 30", "90.0%", "31.25", "1.5", "2.75", "[days]"):
        assert cell in text
    assert "about 80% or more have their volume in the interval: the volume that a rater draws in the scan" in text
    assert "trained on" not in text


def test_subjects_of_the_segmenter():
    text = shown({**RECORD, "subjects_of_segmenter_training": ["s1", "s2"]})
    assert "was trained on 2 of the subjects: the intervals may be too narrow" in text


def test_the_repeatability_is_shown_where_it_is_known():
    assert "epeatability" not in shown(RECORD)
    noise = {
        "within_sd": 0.5,
        "within_sd_from": 0.4,
        "within_sd_to": 0.8,
        "coefficient": 1.5,
        "subjects": 9,
        "pairs": 9,
    }
    core = {**RECORD["by_structure"]["core"], "repeatability": noise}
    text = shown({**RECORD, "by_structure": {"core": core}})
    assert "repeatability" in text and "1.2 to 2.4" in text and "(9 subjects)" in text
    assert "differs by more than the repeatability" in text
