from dataclasses import replace
from pathlib import Path

from longflow.dicom.choice import choose
from longflow.dicom.headers import Frame, Instance
from longflow.dicom.phases import Guess
from longflow.dicom.stacks import Stack
from longflow.dicom.survey import Finding

FRAME = Frame(Instance(Path("x")), (0, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1))


def finding(name, subject="P001", time=0.0, description="CT", modality="CT", phase="", unit="days", use=""):
    instance = Instance(Path(name), description=description, modality=modality)
    stack = Stack(((FRAME,),), unit=unit)
    return Finding(
        name, ("", ""), instance, 1, use=use, subject=subject, time=time, phase=Guess(phase, ""), stack=stack
    )


def uses(findings, by_phase=False, wanted=""):
    return "".join(one.use[0] for one in choose(findings, by_phase, wanted))


def test_the_only_series_of_each_visit_is_used():
    assert uses([finding("a"), finding("b", time=3), finding("c", subject="P002")]) == "yyy"


def test_the_series_that_more_visits_have_is_used():
    found = [finding("a", description="thin 1"), finding("b", description="thick 5"), finding("c", "P2", 3, "thin 2")]
    assert uses(found) == "yny"
    assert "'thin 1' is used" in choose(found, False)[1].reason


def test_ties_are_asked():
    found = [finding("a", description="soft"), finding("b", description="bone")]
    assert uses(found) == "aa" and uses(found, wanted="SOFT") == "yn"
    assert "2 series of this visit could be the scan" in choose(found, False)[0].reason


def test_earlier_decisions_stay():
    assert uses([finding("a", use="no"), finding("b"), finding("c", use="ask")]) == "nya"
    assert uses([finding("a", use="no", description="x"), finding("b")], wanted="ct") == "ny"


def test_one_modality():
    assert uses([finding("a"), finding("b", time=1), finding("c", time=2, modality="MR")]) == "yyn"
    assert uses([finding("a"), finding("b", time=1, modality="MR")]) == "aa"


def test_one_unit_of_time():
    assert uses([finding("a"), finding("b", unit="ms")]) == "aa"
    assert uses([finding("a", unit="ms"), finding("b", unit="ms")]) == "aa"
    assert uses([finding("a", unit="ms"), finding("b", "P002", unit="ms")]) == "yy"


def three_phases(subject, phases=("native", "arterial", "venous")):
    return [finding(f"{subject}{phase}", subject, description=phase, phase=phase) for phase in phases]


def test_a_translation_pairs_the_two_phases_that_most_visits_have():
    found = three_phases("P1") + three_phases("P2", ("native", "venous"))
    assert uses(found, by_phase=True) == "ynyyy"
    # of pairs that are as frequent, one with native counts, and two of these are asked
    assert uses(three_phases("P1", ("arterial", "native", "venous")), by_phase=True) == "aaa"


def test_an_unknown_phase_is_asked_for_a_translation_alone():
    found = [*three_phases("P1", ("native", "venous")), finding("x", "P2")]
    assert uses(found, by_phase=True) == "yya"
    assert uses([finding("x")]) == "y"


def test_labels_of_an_unused_series_are_not_used():
    label = replace(finding("l", use="yes"), stack=None, labels_of=("a", 0))
    assert uses([finding("a", use="no"), finding("b"), label]) == "nyn"
    assert uses([finding("a"), label]) == "yy"
