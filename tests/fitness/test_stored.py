import subprocess
import sys

import pytest
from pydantic import ValidationError

from longflow.fitness.stored import FitnessReference, Spread

SPREAD = {"mean": 0.0, "deviation": 1.0, "usual": 2.0, "low": -1.0, "high": 1.0}
REFERENCE = {"subjects": 4, "doubtful": 1.0, "unfit": 2.0, "false_alarms": 0.2, "spreads": {}, "templates": {}}


@pytest.mark.parametrize("wrong", [{"deviation": 0.0}, {"usual": -1.0}, {"subject": "p01"}])
def test_spreads_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        Spread.model_validate({**SPREAD, **wrong})


@pytest.mark.parametrize("wrong", [{"subjects": 3}, {"doubtful": 0.0}, {"false_alarms": 1.0}, {"names": ["p01"]}])
def test_references_that_cannot_be_are_refused(wrong):
    assert FitnessReference.model_validate(REFERENCE).subjects == 4
    with pytest.raises(ValidationError):
        FitnessReference.model_validate({**REFERENCE, **wrong})


def test_reading_plans_needs_no_numpy():
    code = "import sys, longflow.plans; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
