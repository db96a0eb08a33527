import pytest

from longflow.errors import ConfigurationError
from longflow.files import write_json
from longflow.paths import ModelPaths
from longflow.training.measured import read_measured, write_measured
from tests.cluster.helpers import MEASURED, PLANS


def test_the_record_of_the_plan_and_of_so_many_processes_is_read(tmp_path):
    model = ModelPaths(tmp_path / "cronos__plans__3d_fullres")
    assert read_measured(model, 1, PLANS) is None
    write_measured(MEASURED, model)
    assert read_measured(model, 1, PLANS) == MEASURED and read_measured(model, 2, PLANS) is None
    for name, value in (("batch_size", 7), ("patch_size", [4, 16, 16])):
        other = PLANS.model_copy(deep=True)
        setattr(other.configurations["3d_fullres"], name, value)
        assert read_measured(model, 1, other) is None


def test_a_training_takes_its_steps_and_a_validation_after_each_epoch():
    epoch = PLANS.training.iterations_per_epoch
    assert MEASURED.seconds_of(4 * epoch, PLANS) == 4 * epoch * 0.5 + 4 * 10


def test_another_file_in_its_place_is_refused(tmp_path):
    model = ModelPaths(tmp_path / "cronos__plans__3d_fullres")
    write_json({**MEASURED.model_dump(), "seconds_per_step": "quick", "speed": 3}, model.measured(1))
    with pytest.raises(
        ConfigurationError, match=r"(?s)measured_1\.json.*seconds_per_step.*speed: this key is not known"
    ):
        read_measured(model, 1, PLANS)
