"""The commands of the translation demo, its table, and its lowest possible error."""

from importlib import import_module

import numpy as np
import pytest

from longflow.data.images import read_scan
from longflow.demo.abdomen_cohort import write_abdomen_cohort
from longflow.demo.translation import demo_commands, knowable_numbers, raw_folder, results, translation_folder
from longflow.files import write_json

SHAPE = (6, 48, 64)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_abdomen_cohort(raw_folder(home), subjects=1, test_subjects=2, shape=SHAPE)
    return home


def test_commands_are_shown_as_a_user_types_them_and_understood(tmp_path):
    commands = demo_commands(tmp_path, 5)
    images, out = f"{tmp_path}/raw/Dataset902_AbdomenPhantom/imagesTs", f"{tmp_path}/translations"
    assert [command.typed for command in commands] == [
        "longflow_plan_and_preprocess -d 902 --preset tiny",
        "longflow_train 902 2d 0 --max_time 5s",
        f"longflow_predict -d 902 -i {images} -o {out}/to_native --to native",
        f"longflow_evaluate -d 902 -i {out}/to_native",
        f"longflow_report -d 902 -i {out}/to_native",
        f"longflow_predict -d 902 -i {images} -o {out}/to_arterial --to arterial",
        f"longflow_evaluate -d 902 -i {out}/to_arterial",
        f"longflow_report -d 902 -i {out}/to_arterial",
    ]
    for command in commands:
        import_module(f"longflow.cli.{command.name}").parser().parse_args(command.arguments)


@pytest.mark.parametrize("phase", ["native", "arterial"])
def test_the_knowable_scan_is_better_than_the_input(home, phase):
    images = raw_folder(home) / "imagesTs"
    untranslated = []
    for name in ("abdomen001", "abdomen002"):
        scans = [read_scan((images / f"{name}_{one}_0000.nii.gz",)).array for one in ("native", "arterial")]
        body = scans[0][0] > -500
        untranslated.append(np.abs(scans[0] - scans[1])[0][body].mean())
    assert knowable_numbers(raw_folder(home), phase)["body_mae"] < 0.5 * np.mean(untranslated)


def test_results_show_both_directions_and_the_input(home):
    for target, mae in (("native", 6.0), ("arterial", 8.0)):
        numbers = {
            image: {"body_mae": {"mean": value}, "psnr": {"mean": 30.0}, "ssim": {"mean": 0.9}}
            for image, value in (("input", 16.0), ("translation", mae))
        }
        write_json({"by_direction": {target: numbers}}, translation_folder(home, target) / "metrics.json")
    found = results(home)
    assert found.rows[0] == ("arterial, as it is", "16.0", "1.00 x", "30.0", "0.900")
    assert found.rows[1] == ("translated to native", "6.0", "0.38 x", "30.0", "0.900")
    assert found.rows[4] == ("translated to arterial", "8.0", "0.50 x", "30.0", "0.900")
    best = knowable_numbers(raw_folder(home), "arterial")
    assert found.rows[5][1] == f"{best['body_mae']:.1f}" and float(found.rows[5][1]) < 10
    assert len({len(row) for row in found.rows} | {len(found.header)}) == 1
