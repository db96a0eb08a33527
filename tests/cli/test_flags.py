import argparse

import pytest

from longflow.cli import flags
from longflow.errors import ConfigurationError
from longflow.task import all_tasks


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1.5d", 129_600), ("45", 45), (" 3 m ", 180)]
)
def test_durations(text, seconds):
    assert flags.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 hours", "-5m", "0", "0s", "1h30m", "nan"])
def test_impossible_durations(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time; examples: 90s, 20m, 2h"):
        flags.duration(text)


@pytest.mark.parametrize("text", ["0", "-2", "nan", "many", "", "1_0", "inf"])
def test_impossible_numbers(text):
    for kind in (int, float):
        with pytest.raises(argparse.ArgumentTypeError):
            flags.positive(kind)(text)
    assert flags.positive(int)("3") == 3 and flags.positive(float)("0.5") == 0.5


def test_counts_begin_at_zero():
    assert flags.count("0") == 0 and flags.count("4") == 4
    with pytest.raises(argparse.ArgumentTypeError, match="-1 is not above zero"):
        flags.count("-1")


def test_an_unknown_device():
    assert flags.checked_device("cpu") == "cpu"
    with pytest.raises(ConfigurationError):
        flags.checked_device("cuda:99")


def test_a_file_of_plans_means_its_name_except_for_planning():
    made, used = argparse.ArgumentParser(), argparse.ArgumentParser()
    flags.add_plans(made, planning=True)
    flags.add_plans(used)
    assert made.parse_args(["-p", "plans/acdc.json"]).plans == "plans/acdc.json"
    assert used.parse_args(["-p", "plans/acdc.json"]).plans == "acdc"
    assert used.parse_args([]).plans == made.parse_args([]).plans == "longflowPlans"


def test_tasks_add_their_sentences_to_the_help_of_a_command():
    said = flags.task_help("predict")
    assert all(task.words.help["predict"] in said for task in all_tasks())
    assert flags.task_help("no_such_command") == ""


def test_dicom_is_written_as_binary_segments_and_with_letters_by_default():
    parser = argparse.ArgumentParser()
    flags.add_dicom_settings(parser)
    assert vars(parser.parse_args([])) == {"label_map": False, "no_burned_in_text": False}


def test_a_segmenter_has_two_spellings():
    parser = argparse.ArgumentParser()
    flags.add_segmenter(parser, required=True)
    assert [parser.parse_args([flag, "103"]).segmenter for flag in ("--structures", "--segmenter")] == ["103", "103"]
    with pytest.raises(SystemExit):
        parser.parse_args([])
