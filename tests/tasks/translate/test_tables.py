import io

import pytest
from rich.console import Console

from longflow.tasks.translate.tables import show_translations, unit_of
from longflow.tasks.translate.task import TASK


def number(mean, interval=None, undefined=0, p=None, subjects=9):
    found = {"mean": mean, "median": mean, "interval": interval, "subjects": subjects, "undefined": undefined}
    return {**found, "p": p, "p_holm": p}


def direction(body_mae=8.0, difference=(-8.0, [-9.0, -7.0], 0, 0.01), **changes):
    images = {"translation": 1.0, "input": 2.0, "difference": -1.0}
    numbers = {image: {name: number(value) for name in TASK.metrics} for image, value in images.items()}
    numbers["translation"]["body_mae"] = number(body_mae, [7.5, 8.5] if body_mae else None)
    numbers["input"]["body_mae"] = number(16.0)
    numbers["difference"]["body_mae"] = number(*difference)
    return {
        "source_phases": ["arterial"],
        "translations": 4,
        "subjects": 3,
        **numbers,
        "by_label": {},
        "seconds_per_volume": number(12.0),
        "seconds_per_slice": number(0.25),
        **changes,
    }


def shown(one, back=None, **changes):
    results = {"methods": ["mfm"], "ct": [True], "without_truth": [], **changes}
    results |= {"by_direction": {"native": one} if one else {}, "round_trip": {"arterial": back} if back else {}}
    console = Console(file=io.StringIO(), width=150, soft_wrap=True)
    show_translations(results, console)
    return console.file.getvalue()


def test_units_are_those_of_the_requested_phase():
    """MR to CT and back, where no phase has the channel that ``channel_names`` describes."""
    text = shown(direction(), ct=[False], ct_of_phases={"native": [True]})
    assert "MAE in the body [HU]" in text and "input units" not in text
    assert "MAE in the body [input units]" in shown(direction(), ct=[True], ct_of_phases={"native": [False]})
    both = {"ct": [False], "ct_of_phases": {"mr": [False], "ct": [True]}}
    assert (unit_of(both, "mr"), unit_of(both, "ct"), unit_of(both)) == ("input units", "HU", "units of each phase")
    assert (unit_of({"ct": [True]}), unit_of({"ct": [True, False]}, "mr")) == ("HU", "input units")


def test_translation_input_and_difference_side_by_side():
    text = shown(direction())
    assert "arterial to native: 4 scans of 3 subjects" in text
    (row,) = (line for line in text.splitlines() if "MAE in the body [HU]" in line)
    assert row.split()[-3:] == ["8", "16", "-8"]
    assert "7.5 to 8.5" in text and "-9 to -7" in text
    for heading in ("(mfm)", "PSNR as in MFM [dB]", "SSIM as in MFM", "through-plane error [HU/mm]"):
        assert heading in text
    verdict = "better, 95 % interval of the difference -9 to -7, sign-flip test p = 0.01"
    assert f"0.50 x that of the untranslated scan ({verdict})" in text
    assert "0.25 s per slice, 12 s per volume" in text
    assert "3 subjects: intervals over so few are wide" in text


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ((-8.0, None, 0, None, 1), "(too few subjects for a verdict, which takes 6)"),
        ((3.0, [1.0, 5.0], 0, 0.03), "(worse, "),
        ((-1.0, [-3.0, 1.0], 0, 0.3), "(not told apart from it, "),
    ],
)
def test_what_the_difference_means(difference, verdict):
    assert verdict in shown(direction(difference=difference))


def test_there_and_back_is_said_to_be():
    text = shown(direction(), back=direction(source_phases=["native"]))
    assert "There and back, native to arterial" in text
    assert text.index("arterial to native") < text.index("There and back")
    assert "what is lost on the way" in text
    assert text.count("x that of the untranslated scan") == 1


def test_structures_and_what_is_undefined():
    vessel = {"translation": number(20.0, undefined=2), "input": number(200.0), "difference": number(-180.0)}
    text = shown(direction(by_label={"vessel": vessel}))
    (row,) = (line for line in text.splitlines() if "MAE in vessel [HU]" in line)
    assert row.split()[-3:] == ["20", "200", "-180"]
    assert "MAE in vessel: 2" in text


def test_what_other_units_do_not_have_is_not_shown():
    one = direction()
    for image in ("translation", "input", "difference"):
        one[image]["psnr_mfm"] = number(None, undefined=4)
    text = shown(one, ct=[False])
    assert "PSNR as in MFM [dB]" not in text and "MAE in the body [input units]" in text


def test_nothing_is_said_of_time_or_of_a_body_that_are_not_known():
    text = shown(direction(body_mae=None, difference=(None, None), seconds_per_volume=number(None)))
    assert "Time:" not in text and "x that of the untranslated" not in text


def test_translations_without_reference_are_counted():
    assert "without a reference, not evaluated: 2" in shown(direction(), without_truth=["a", "b"])
