"""Period and covariates, before training (longflow_verify) and before prediction."""

import pytest

from longflow.data.dataset import DatasetDescription, Row
from longflow.integrity.conditions import condition_problems
from longflow.integrity.dataset import verify_dataset
from longflow.integrity.prediction import verify_input
from tests.data.helpers import edit_description, write_dataset


def described(**keys):
    return DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="ms", **keys)


def rows(*cells, step=50.0):
    """Two subjects with as many scans each; a line for each dictionary of further cells."""
    half = (len(cells) + 1) // 2
    return [
        Row(line, f"c{line}", "ab"[index // half], str(step * (index % half)), further)
        for index, (line, further) in enumerate(enumerate(cells, start=2))
    ]


def problems(description, lines, is_training=True):
    return condition_problems(description, "scans.csv", lines, is_training)


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_good_conditions_are_no_problem():
    lines = rows(*[{"rr": "150", "age": str(age), "dose": ""} for age in (60, 61, 70, 71, 72, 73)])
    lines[0].covariates["age"] = ""
    description = described(period="rr", covariates=["age"])
    assert problems(description, lines) == problems(description, lines, False) == []
    assert problems(described(), lines) == []


@pytest.mark.parametrize("cell", ["0", "-800", "800 ms", "0,8", "nan", "long"])
@pytest.mark.parametrize("is_training", [True, False])
def test_a_period_that_is_zero_negative_or_text_is_an_error_with_its_line(cell, is_training):
    lines = rows({"rr": "150"}, {"rr": cell}, {"rr": ""}, {"rr": "150"})
    found = only(problems(described(period="rr"), lines, is_training))
    assert (found.severity, found.field, found.found) == ("error", "column rr", f"'{cell}' (line 3)")


@pytest.mark.parametrize("period", [0, -800.0])
def test_a_number_that_is_no_period_is_an_error_of_dataset_json(period, tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny")
    edit_description(raw, period=period)
    found = only(verify_dataset(raw, processes=1))
    assert (found.severity, found.file, found.field, found.found) == ("error", "dataset.json", "period", repr(period))
    assert found.expected.startswith("a number above 0")


def test_a_column_of_the_period_that_is_missing_is_an_error_to_train_and_a_warning_to_predict():
    lines = rows({}, {}, {}, {})
    assert only(problems(described(period="rr"), lines)).severity == "error"
    found = only(problems(described(period="rr"), lines, False))
    assert found.severity == "warning" and "made without a period" in found.advice


def test_an_empty_column_of_the_period_is_a_warning():
    assert only(problems(described(period="rr"), rows(*[{"rr": ""}] * 4))).found == "empty"


@pytest.mark.parametrize("is_training", [True, False])
def test_a_period_longer_than_the_series_is_a_warning(is_training):
    """The scans of one whole beat end an interval before the next: 5 scans 50 ms apart are a beat of 250 ms."""
    lines = rows(*[{}] * 10)
    assert problems(described(period=250), lines, is_training) == []
    found = only(problems(described(period=800), lines, is_training))
    assert found.severity == "warning" and found.field == "period"
    assert found.found == "longer than the series of 2 of 2 subjects (a: 200, period 800, b: 200, period 800)"


def test_periods_of_a_column_are_compared_with_the_series_of_their_subject():
    lines = rows(*[{"rr": "250"}] * 5, *[{"rr": "900"}] * 5)
    assert only(problems(described(period="rr"), lines)).found.startswith(
        "longer than the series of 1 of 2 subjects (b"
    )


def test_a_covariate_that_is_missing_is_an_error_to_train_and_a_warning_to_predict():
    lines = rows({"age": "1"}, {"age": "2"})
    description = described(covariates=["age", "treatment"])
    found = only(problems(description, lines))
    assert (found.severity, found.field, found.found) == ("error", "covariate treatment", "missing")
    found = only(problems(description, lines, False))
    assert found.severity == "warning" and "not known for every scan" in found.advice


@pytest.mark.parametrize("is_training", [True, False])
def test_text_is_an_error_that_says_to_write_code_words_as_numbers(is_training):
    lines = rows(*[{"treatment": word} for word in ("yes", "no", "", "1")])
    found = only(problems(described(covariates=["treatment"]), lines, is_training))
    assert found.severity == "error" and found.found == "2 cells: 'yes' (line 2), 'no' (line 3)"
    assert "0 for untreated and 1 for treated" in found.advice


@pytest.mark.parametrize(("cell", "shown"), [("1", "1 in every line"), ("", "no value in any line")])
def test_a_constant_covariate_is_a_warning_to_train_and_nothing_to_predict(cell, shown):
    lines = rows(*[{"treatment": cell}] * 4)
    found = only(problems(described(covariates=["treatment"]), lines))
    assert (found.severity, found.found) == ("warning", shown) and "excluded" in found.advice
    assert problems(described(covariates=["treatment"]), lines, False) == []


def test_tasks_without_conditions_warn_of_covariates_and_may_have_a_period():
    found = only(problems(described(covariates=["age"], period=5, task="segment"), rows({}, {})))
    assert (found.severity, found.file, found.field) == ("warning", "dataset.json", "covariates")


def test_both_checks_are_part_of_verification_and_of_prediction(tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny")
    edit_description(raw, covariates=["age"], period="rr")
    fields = {(one.severity, one.field) for one in verify_dataset(raw, processes=1)}
    assert fields == {("error", "covariate age"), ("error", "column rr")}
    description = described(covariates=["age"], period="rr").model_copy(update={"time_unit": "days"})
    fields = {(one.severity, one.field) for one in verify_input(raw / "imagesTr", description)}
    assert fields == {("warning", "covariate age"), ("warning", "column rr")}
