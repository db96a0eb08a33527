"""The commands of the forecasting demo, and the error of its law."""

from importlib import import_module

import numpy as np

from longflow.data.dataset import image_path, read_description, series_of_folder
from longflow.data.images import read_scan
from longflow.demo.cohort import DATASET_NAME
from longflow.demo.forecasting import attainable_nrmse, demo_commands
from longflow.tasks.forecast.metrics import nrmse


def test_commands_are_shown_as_a_user_types_them(tmp_path):
    typed = [command.typed for command in demo_commands(tmp_path, 5)]
    assert typed == [
        "longflow_plan_and_preprocess -d 900 --preset tiny",
        "longflow_train 900 3d_fullres 0 --max_time 5s",
        "longflow_find_best -d 900",
        f"longflow_predict -i {tmp_path}/raw/Dataset900_Phantom/imagesTs -o {tmp_path}/forecasts",
        f"longflow_evaluate -d 900 -i {tmp_path}/forecasts",
        f"longflow_report -d 900 -i {tmp_path}/forecasts",
    ]


def test_commands_are_understood(tmp_path):
    for command in demo_commands(tmp_path, 5):
        import_module(f"longflow.cli.{command.name}").parser().parse_args(command.arguments)


def test_the_law_is_a_better_forecast_than_the_last_scan(phantom_dataset):
    raw = phantom_dataset / "raw" / DATASET_NAME
    description = read_description(raw / "dataset.json")
    errors = []
    for series in series_of_folder(raw / "imagesTs", description):
        last = read_scan(series.with_images().scans[-1].images).array
        for scan in (scan for scan in series.scans if not scan.exists):
            target = read_scan((image_path(raw / "targetsTs", scan.case, 0, description),)).array
            errors.append(nrmse(last, target))
    assert len(errors) == 4
    assert attainable_nrmse(raw) < 0.6 * np.mean(errors)
