import pytest

from longflow.data.dataset import Scan, Series
from longflow.errors import DataError
from longflow.fingerprint.covariates import covariate_fingerprints

CELLS = {"anna": ("40", ""), "bert": ("61", "1"), "carl": ("82", "1")}


def series(cells):
    return [
        Series(subject, (Scan(f"{subject}_0", subject, 0.0, (), covariates={"age": age, "treatment": treatment}),))
        for subject, (age, treatment) in cells.items()
    ]


def test_known_scans_mean_deviation_and_range():
    age, treatment, dose = covariate_fingerprints(series(CELLS), ["age", "treatment", "dose"])
    assert (age.name, age.scans, age.known, age.minimum, age.maximum) == ("age", 3, 3, 40, 82)
    assert age.mean == pytest.approx(61) and age.standard_deviation == pytest.approx((2 * 21**2 / 3) ** 0.5)
    assert (treatment.known, treatment.mean, treatment.standard_deviation) == (2, 1, 0)
    assert (dose.known, dose.mean, dose.minimum) == (0, None, None)


def test_no_subject_is_named():
    written = str([one.model_dump() for one in covariate_fingerprints(series(CELLS), ["age"])])
    assert not any(subject in written for subject in CELLS)


def test_text_is_refused():
    with pytest.raises(DataError, match=r"case bert_0 .*'old'"):
        covariate_fingerprints(series({**CELLS, "bert": ("old", "1")}), ["age"])
