import pytest

from longflow.data.covariates import covariates_of, covariates_used
from longflow.data.dataset import DatasetDescription, Scan
from longflow.errors import DataError


def scan(**cells):
    return Scan("a_0", "a", 0.0, (), covariates=cells)


def described(**keys):
    return DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="days", **keys)


def test_values_are_numbers_by_name_and_none_where_the_cell_is_empty_or_the_column_missing():
    found = covariates_of(scan(age="63.5", treatment="", sex="1", other="word"), ["age", "treatment", "sex", "dose"])
    assert found == {"age": 63.5, "treatment": None, "sex": 1, "dose": None}


@pytest.mark.parametrize("cell", ["yes", "1,5", "nan", "inf", "2019_01", "63 years"])
def test_a_cell_that_is_not_a_number_is_refused_with_case_column_and_remedy(cell):
    message = rf"case a_0 \(column 'age' of scans.csv\) is '{cell}', expected a number. Write words as numbers"
    with pytest.raises(DataError, match=message):
        covariates_of(scan(age=cell), ["age"])


def test_tasks_that_use_no_conditions_have_no_covariates():
    assert covariates_used(described(covariates=["age"])) == ["age"]
    assert covariates_used(described(covariates=["age"], task="segment")) == []


@pytest.mark.parametrize(
    "names", [["age", "age"], ["time"], ["subject"], ["phase"], [""], "age", [f"c{n}" for n in range(101)]]
)
def test_names_that_cannot_be_covariates_are_refused_in_dataset_json(names):
    with pytest.raises(ValueError, match="covariates"):
        described(covariates=names)


@pytest.mark.parametrize("period", [0, -800, "", " "])
def test_a_period_of_zero_or_below_is_refused_in_dataset_json(period):
    with pytest.raises(ValueError, match=r"a number above 0 in the dataset's time unit|the name of a column"):
        described(period=period)
