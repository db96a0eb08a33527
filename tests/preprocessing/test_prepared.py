import json

import pytest

from longflow.errors import DataError
from longflow.preprocessing.series import RawSeries, SeriesProperties, prepare_volumes
from tests.preprocessing.helpers import make_plans, make_volume


@pytest.fixture
def properties():
    plans = make_plans(spacing=(1.0, 4.0, 2.0), transpose=(1, 0, 2))
    return prepare_volumes(RawSeries("s", ["a"], [1.25], [make_volume(border=2)]), plans, "3d_fullres").properties


def test_json_there_and_back(properties):
    content = json.loads(json.dumps(properties.to_json()))
    assert SeriesProperties.from_json(content) == properties
    del content["digest"]
    assert SeriesProperties.from_json(content).digest == ""


@pytest.mark.parametrize("content", [{}, [], {"subject": "s"}])
def test_a_missing_key_is_an_error(content):
    with pytest.raises(DataError, match="Properties of a prepared series hold"):
        SeriesProperties.from_json(content)


def test_an_unknown_key_is_an_error(properties):
    with pytest.raises(DataError, match="colour"):
        SeriesProperties.from_json({**properties.to_json(), "colour": "red"})


def test_the_files_grid_along_the_prepared_axes(properties):
    assert properties.transposed_crop_shape == [16, 2, 20]
    assert properties.transposed_spacing == [1.0, 4.0, 1.0]
    assert properties.shape == [16, 2, 10]


def test_pairs_are_scans_of_one_time_in_both_phases(properties):
    properties.times = [0.0, 0.0, 3.0, 5.0, 5.0, 5.0]
    properties.phases = ["arterial", "native", "native", "arterial", "native", "venous"]
    assert properties.pairs(["native", "arterial"]) == [(1, 0), (4, 3)]
    assert properties.pairs(["arterial", "native"]) == [(0, 1), (3, 4)]
    assert properties.pairs(["arterial", "venous"]) == [(3, 5)]
    assert properties.pairs(["native", "delayed"]) == []
