import numpy as np
import pytest

from longflow.errors import DataError
from longflow.evaluation.references import dataset_folders
from longflow.tasks.forecast.pairs import find_pairs, forecasts_of_folder
from tests.tasks.conftest import SHAPE

SCAN = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def folders(paths, write_scan, write_table):
    """Subject s1 has three scans; the third is requested."""
    for position in range(2):
        write_scan(paths.raw / "imagesTs", f"s1_{position}", SCAN + position)
    table = [("s1_0", "s1", 0.0), ("s1_1", "s1", 1.0), ("s1_2", "s1", 2.0)]
    write_table(paths.raw / "imagesTs" / "scans.csv", *table)
    write_scan(paths.raw / "targetsTs", "s1_2", SCAN + 2)
    return dataset_folders(paths.raw)


def test_folders_of_a_dataset_in_order(folders):
    assert [folder.name for folder in folders] == ["targetsTs", "imagesTs", "imagesTr"]


def test_reference_by_case_and_context_in_order_of_time(tmp_path, folders, description, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_1", "s1_0"], context_times=[1.0, 0.0])
    (pair,), without = find_pairs(forecasts_of_folder(tmp_path / "out", description), folders, description)
    assert pair.reference[0].parent.name == "targetsTs"
    assert [files[0].name for files in pair.context_images] == ["s1_0_0000.nii.gz", "s1_1_0000.nii.gz"]
    assert not without


def test_reference_by_subject_and_time(tmp_path, folders, description, write_forecast):
    write_forecast(tmp_path / "out", "s1_t2.0", SCAN, ["s1_0", "s1_1"], target_time=2.0)
    (pair,), _ = find_pairs(forecasts_of_folder(tmp_path / "out", description), folders, description)
    assert pair.reference == (folders[0] / "s1_2_0000.nii.gz",)


def test_large_times_a_day_apart_are_two_scans(tmp_path, paths, description, write_scan, write_table, write_forecast):
    write_scan(paths.raw / "imagesTs", "s1_0", SCAN)
    write_scan(paths.raw / "imagesTs", "s1_1", SCAN)
    write_table(paths.raw / "imagesTs" / "scans.csv", ("s1_0", "s1", 9_738_000.0), ("s1_1", "s1", 9_738_001.0))
    write_forecast(tmp_path / "out", "s1_t9738001", SCAN, ["s1_0"], target_time=9_738_001.0)
    (pair,), _ = find_pairs(forecasts_of_folder(tmp_path / "out", description), dataset_folders(paths.raw), description)
    assert pair.reference[0].name == "s1_1_0000.nii.gz"


@pytest.mark.parametrize(
    ("method", "expected"), [("tfm", "tfm"), (["tfm"], "tfm"), (["cronos", "tfm"], "cronos + tfm"), (None, "forecast")]
)
def test_name_of_the_method(tmp_path, description, write_forecast, method, expected):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0"], method=method)
    assert forecasts_of_folder(tmp_path / "out", description)[0].method == expected


def test_reference_folder_comes_first(tmp_path, folders, description, write_forecast, write_scan):
    write_scan(tmp_path / "mine", "s1_2", SCAN)
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0"])
    forecasts = forecasts_of_folder(tmp_path / "out", description)
    (pair,), _ = find_pairs(forecasts, [tmp_path / "mine", *folders], description)
    assert pair.reference[0].parent == tmp_path / "mine"


def test_forecasts_without_reference_are_named(tmp_path, folders, description, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0"])
    write_forecast(tmp_path / "out", "s1_t9", SCAN, ["s1_0"], target_time=9.0)
    pairs, without = find_pairs(forecasts_of_folder(tmp_path / "out", description), folders, description)
    assert len(pairs) == 1
    assert without == ["s1_t9"]


def test_a_forecast_is_not_its_own_reference(tmp_path, description, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_2"])
    with pytest.raises(DataError, match="None of the 1 forecasts"):
        find_pairs(forecasts_of_folder(tmp_path / "out", description), [tmp_path / "out"], description)


def test_no_reference_at_all(tmp_path, folders, description, write_forecast):
    write_forecast(tmp_path / "out", "s9_0", SCAN, ["s1_0"])
    with pytest.raises(DataError, match=r"None of the 1 forecasts.*s9_0 .*imagesTr\. .*-r FOLDER"):
        find_pairs(forecasts_of_folder(tmp_path / "out", description), folders, description)


def test_context_that_is_nowhere(tmp_path, folders, description, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0", "elsewhere"])
    with pytest.raises(DataError, match=r"context scans elsewhere of the forecast s1_2 .*-r FOLDER"):
        find_pairs(forecasts_of_folder(tmp_path / "out", description), folders, description)


def test_folder_that_does_not_exist(tmp_path, description):
    with pytest.raises(DataError, match="nowhere does not exist"):
        forecasts_of_folder(tmp_path / "nowhere", description)


def test_folder_without_forecasts(tmp_path, description):
    (tmp_path / ".unfinished-1-a_0000.nii.gz").touch()
    with pytest.raises(DataError, match=r"holds no forecasts: found no file \{case\}_0000.nii.gz"):
        forecasts_of_folder(tmp_path, description)


def test_forecast_without_sidecar(tmp_path, description, write_scan):
    write_scan(tmp_path, "s1_2", SCAN)
    with pytest.raises(DataError, match=r"s1_2.json does not exist. Each forecast needs its sidecar"):
        forecasts_of_folder(tmp_path, description)


def test_sidecar_with_a_key_missing(tmp_path, description, write_forecast):
    write_forecast(tmp_path, "s1_2", SCAN, ["s1_0"], horizon=None)
    with pytest.raises(DataError, match=r"s1_2.json has no horizon"):
        forecasts_of_folder(tmp_path, description)


def test_sidecar_without_context(tmp_path, description, write_forecast):
    write_forecast(tmp_path, "s1_2", SCAN, [])
    with pytest.raises(DataError, match="names no context scan"):
        forecasts_of_folder(tmp_path, description)


@pytest.mark.parametrize("case", ["../imagesTr/s1_0", "/etc/s1_0", 3])
def test_sidecar_whose_context_leads_elsewhere(tmp_path, description, write_forecast, case):
    write_forecast(tmp_path, "s1_2", SCAN, [case])
    with pytest.raises(DataError, match=f"names the context scan '{case}', expected a case"):
        forecasts_of_folder(tmp_path, description)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_time": "soon"}, "must be numbers"),
        ({"context_times": 3}, "must be numbers"),
        ({"context_times": [0.0, 1.0]}, "a time for each scan"),
        ({"context_times": [2.0], "target_time": 2.0}, "all before target_time"),
    ],
)
def test_sidecar_whose_times_cannot_be(tmp_path, description, write_forecast, changes, message):
    """A context scan at or after the target would be a forecast that has seen the future."""
    write_forecast(tmp_path, "s1_2", SCAN, ["s1_0"], **changes)
    with pytest.raises(DataError, match=f"s1_2.json: .*{message}"):
        forecasts_of_folder(tmp_path, description)


def test_forecast_with_a_channel_missing(tmp_path, description, write_forecast):
    two = description.model_copy(update={"channel_names": {"0": "T1", "1": "T2"}})
    write_forecast(tmp_path, "s1_2", SCAN, ["s1_0"])
    with pytest.raises(DataError, match="not hold all 2 channels of the forecast s1_2"):
        forecasts_of_folder(tmp_path, two)


def test_the_conditions_of_a_forecast_are_read(tmp_path, description, write_forecast):
    conditions = {"period": 812.5, "covariates": {"age": 61, "treatment": None}}
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0"], **conditions)
    write_forecast(tmp_path / "out", "s1_3", SCAN, ["s1_0"])
    told, without = forecasts_of_folder(tmp_path / "out", description)
    assert (told.period, told.covariates) == (812.5, {"age": 61, "treatment": None})
    assert (without.period, without.covariates) == (None, {})


@pytest.mark.parametrize("covariates", [["age"], {"age": "old"}, {"age": [1]}])
def test_covariates_that_are_no_numbers(tmp_path, description, write_forecast, covariates):
    write_forecast(tmp_path / "out", "s1_2", SCAN, ["s1_0"], covariates=covariates)
    with pytest.raises(DataError, match=r"covariates is .*, expected a number or null by name"):
        forecasts_of_folder(tmp_path / "out", description)


def test_weights_of_scans_that_repeat_are_read(tmp_path, description, write_forecast):
    write_forecast(tmp_path, "s1_2", SCAN, ["s1_0", "s1_1"], recurrence={"period": 5.0, "weights": {"s1_1": 0.75}})
    (told,) = forecasts_of_folder(tmp_path, description)
    assert told.recurrence == {"s1_1": 0.75}


@pytest.mark.parametrize(
    "recurrence", [3, {"period": 5.0}, {"weights": {"s9_0": 1.0}}, {"weights": {"s1_0": "much"}}, {"weights": [1.0]}]
)
def test_damaged_weights_are_refused(tmp_path, description, write_forecast, recurrence):
    write_forecast(tmp_path, "s1_2", SCAN, ["s1_0"], recurrence=recurrence)
    with pytest.raises(DataError, match=r"s1_2.json: recurrence is .*expected a weight"):
        forecasts_of_folder(tmp_path, description)
