import pytest

from longflow.cluster.settings import ClusterSettings, StepSettings, read_settings, seconds_of, write_defaults
from longflow.errors import ConfigurationError, DataError
from longflow.files import write_json
from longflow.paths import cluster_settings
from longflow.reading import read_json


def test_the_defaults_are_explained_and_can_be_read(tmp_path):
    path = tmp_path / "cluster.json"
    write_defaults(path)
    assert read_settings(path) == ClusterSettings(
        comments=read_json(path)["comments"], steps={"train": StepSettings(), "predict": StepSettings()}
    )
    assert set(read_json(path)["comments"]) == {*StepSettings.model_fields, "steps"}
    with pytest.raises(ConfigurationError, match="exists"):
        write_defaults(path)


def test_settings_of_a_step_override_the_common_ones():
    settings = ClusterSettings(partition="cpu", account="p1", steps={"train": {"partition": "gpu", "gpus": 2}})
    assert settings.of("train") == StepSettings(partition="gpu", account="p1", gpus=2)
    assert settings.of("predict") == StepSettings(partition="cpu", account="p1")
    places = [settings.place_of(kind, "partition") for kind in ("train", "predict")]
    assert places == ["steps.train.partition", "partition"]
    assert settings.place_of("train", "time") == "steps.train.time"


def test_a_comparison_has_the_settings_of_predictions_where_it_has_none():
    settings = ClusterSettings(account="p1", steps={"predict": {"partition": "gpu", "gpus": 0}, "compare": {"gpus": 1}})
    assert settings.of("compare") == StepSettings(account="p1", partition="gpu", gpus=1)
    places = [settings.place_of("compare", key) for key in ("gpus", "partition", "account", "time")]
    assert places == ["steps.compare.gpus", "steps.predict.partition", "account", "steps.compare.time"]


def test_a_measurement_has_the_settings_of_a_training_apart_from_its_time():
    train = {"partition": "gpu", "gpus": 2, "time": "24h"}
    settings = ClusterSettings(account="p1", memory=9, steps={"train": train, "measure": {"memory": 5}})
    assert settings.of("measure") == StepSettings(partition="gpu", account="p1", gpus=2, memory=5)
    assert ClusterSettings(time="2h", steps={"train": train}).of("measure").time == "2h"
    places = [settings.place_of("measure", key) for key in ("partition", "memory", "account", "time", "qos")]
    assert places == [
        "steps.train.partition",
        "steps.measure.memory",
        "account",
        "steps.measure.time",
        "steps.measure.qos",
    ]


def test_without_a_file_the_defaults_count(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    assert read_settings(None) == ClusterSettings()
    write_json({"partition": "gpu"}, cluster_settings())
    assert read_settings(None).partition == "gpu"
    with pytest.raises(DataError, match="does not exist"):
        read_settings(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"partitoin": "gpu"}, "partitoin: this key is not known; a typo"),
        ({"steps": {"trian": {}}}, "steps.trian"),
        ({"steps": {"train": {"gpu": 1}}}, "steps.train.gpu: this key is not known"),
        ({"time": "24"}, "expected 30m, 24h or 2d"),
        ({"time": "10s"}, "expected 30m, 24h or 2d"),
        ({"memory": 0}, "memory"),
        ({"partition": "gpu --wrap=x"}, "expected one word"),
        ({"setup": ["a\nb"]}, "one line of the shell"),
        ({"scratch": " "}, "null means none"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, content, message):
    path = tmp_path / "cluster.json"
    write_json(content, path)
    with pytest.raises(ConfigurationError, match=message):
        read_settings(path)


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("24h", 86400), ("1.5d", 129600)])
def test_time_limits(text, seconds):
    assert seconds_of(text) == seconds
