from importlib import import_module

import pytest

from longflow.demo.brain import STRUCTURES
from longflow.demo.segmentation import consistency, demo_commands, label_folder, raw_folder, results, slope_errors
from longflow.files import write_csv, write_json

COLUMNS = ["subject", "case", "time", "structure", "volume_ml"]


def volumes(slopes, start=10.0):
    """Two patients with visits at 0, 1 and 3; the volume of every structure grows by a slope of each patient."""
    return [
        {
            "subject": name,
            "case": f"{name}_{time}",
            "time": time,
            "structure": structure,
            "volume_ml": start + slope * time,
        }
        for name, slope in slopes.items()
        for time in (0, 1, 3)
        for structure in STRUCTURES
    ]


def test_commands_give_both_methods_the_same_time_and_are_understood(tmp_path):
    commands = demo_commands(tmp_path, 90)
    for command in commands:
        import_module(f"longflow.cli.{command.name}").parser().parse_args(command.arguments)
    typed = [command.typed for command in commands]
    few = "--lr 3e-3 --labelled_subjects 2"
    assert typed[1] == f"longflow_train 901 3d_fullres 0 -m unet --set adam=on {few} --max_time 90s"
    assert few in typed[3]
    times = [float(one.split("--max_time ")[1].rstrip("s")) for one in typed[2:4]]
    assert (
        sum(times) == pytest.approx(90) and "spatiotemporal" in typed[2] and "--pretrained spatiotemporal" in typed[3]
    )


def test_the_error_of_slopes_against_the_closed_form(tmp_path):
    write_csv(COLUMNS, volumes({"a": 1.0, "b": -3.0}), tmp_path / "raw" / "true_volumes.csv")
    write_csv(COLUMNS, volumes({"a": 1.5, "b": -3.3}, start=12.0), tmp_path / "found" / "volumes.csv")
    expected = (0.5 + 0.3) / (1.0 + 3.0)
    assert slope_errors(tmp_path / "raw", tmp_path / "found") == pytest.approx(dict.fromkeys(STRUCTURES, expected))


def test_consistency_that_is_not_defined_is_not_averaged():
    pairs = {name: {"consistency": {"stcs": {"mean": 0.5}}} for name in STRUCTURES}
    assert consistency({"by_structure": pairs}, "stcs") == 0.5
    pairs[list(STRUCTURES)[-1]] = {"consistency": {"stcs": {"mean": None}}}
    assert consistency({"by_structure": pairs}, "stcs") is None


def test_results_include_the_reference(tmp_path):
    write_csv(COLUMNS, volumes({"a": 1.0, "b": 2.0}), raw_folder(tmp_path) / "true_volumes.csv")
    for method, dice in (("unet", 0.5), ("unet_consistent", 0.75)):
        folder = label_folder(tmp_path, method)
        write_csv(COLUMNS, volumes({"a": 1.0, "b": 2.0}), folder / "volumes.csv")
        pair = {"stcs": {"mean": dice}, "aspc": {"mean": 9.0}, "true_stcs": {"mean": 0.9}, "true_aspc": {"mean": 4.0}}
        metrics = {
            "overall": {"dice": {"mean": dice}},
            "by_structure": {name: {"consistency": pair} for name in STRUCTURES},
        }
        write_json(metrics, folder / "metrics.json")
    found = results(tmp_path)
    assert found.rows == [
        ("labels alone", "0.500", "0.500", "9.000", "0%", "0%", "0%"),
        ("pretrained, consistent", "0.750", "0.750", "9.000", "0%", "0%", "0%"),
        ("the reference labels", "1.000", "0.900", "4.000", "", "", ""),
    ]
