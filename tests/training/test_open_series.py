import pickle

import numpy as np
import pytest

from longflow.errors import DataError
from longflow.training.open_series import OpenSeries


def test_a_series_stays_open_and_does_not_travel(dataset):
    series = OpenSeries(dataset.cache("longflowPlans", "3d_fullres"))
    assert series["s1"] is series["s1"] and series["s1"].properties.subject == "s1"
    elsewhere = pickle.loads(pickle.dumps(series))
    assert elsewhere["s1"] is not series["s1"]
    assert np.array_equal(elsewhere["s1"].images[:], series["s1"].images[:])


def test_an_unknown_subject(dataset):
    with pytest.raises(DataError, match="s9 is not prepared"):
        OpenSeries(dataset.cache("longflowPlans", "3d_fullres"))["s9"]
