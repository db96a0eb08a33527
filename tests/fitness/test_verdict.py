import json

import numpy as np
import pytest

from longflow.fitness.reference import Distance, learn_reference
from longflow.fitness.verdict import FINDINGS, MOST_REASONS, UNKNOWN, _finding, judge
from tests.fitness.test_reference import subject


@pytest.fixture(scope="module")
def reference():
    return learn_reference([subject(seed) for seed in range(12)])


def test_a_subject_of_the_kind_is_fit_without_reasons(reference):
    verdict = judge(subject(21), reference)
    assert (verdict.level, verdict.reasons) == ("fit", []) and verdict.score <= reference.doubtful


def test_a_wrong_spacing_is_unfit_with_value_range_and_scan(reference):
    verdict = judge(subject(50, spacing=(5.0, 2.0, 3.0)), reference, ["v1", "v2", "v3"], "days")
    assert verdict.level == "unfit" and len(verdict.reasons) <= MOST_REASONS
    (reason,) = [one for one in verdict.reasons if "voxel size" in one]
    assert "v1: the voxel size along x is 3 mm (training: 1.5 to 1.5 mm)" in reason


def test_intervals_are_named_in_the_unit_of_time_with_the_later_scan(reference):
    verdict = judge(subject(50, times=[0.0, 300.0, 750.0]), reference, ["v1", "v2", "v3"], "days")
    (reason,) = [one for one in verdict.reasons if "interval" in one]
    assert reason.startswith(("v2: the interval", "v3: the interval")) and "days)" in reason


def test_without_a_reference_fitness_is_unknown():
    assert judge(subject(0), None) is UNKNOWN and UNKNOWN.to_json()["verdict"] == "unknown"
    assert json.dumps(UNKNOWN.to_json())


def test_the_fields_of_a_sidecar_state_thresholds_and_attainable_level(reference):
    content = json.loads(json.dumps(judge(subject(21), reference).to_json()))
    assert content["training_subjects"] == 12 and content["false_alarms"] == pytest.approx(1 / 13, abs=1e-4)
    assert 0 < content["score"] <= content["doubtful_above"] <= content["unfit_above"]


def test_every_measure_has_its_words(reference):
    measures = {name for of_kind in reference.spreads.values() for name in of_kind}
    assert {_finding(name) for name in measures} == set(FINDINGS)
    assert _finding("pair mirrored x") == "pair mirrored" and _finding("change of noise 0") == "change of"
    assert np.isfinite(Distance("scan", 0, "noise 0", 1.0, 2.0).score)
