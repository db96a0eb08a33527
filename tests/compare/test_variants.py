import re

import pytest

from longflow.compare.variants import (
    EVALUATIONS,
    NOISES,
    STUDIES,
    StudySettings,
    Variant,
    variants_of_methods,
    variants_of_study,
)
from longflow.errors import ConfigurationError, NotFoundError
from longflow.methods.registry import build_method, checked_options, method_class
from longflow.tasks.forecast.hidden_context import HiddenContext
from tests.methods.helpers import minimal_plans


def of_study(name, *methods, **settings):
    lci, *found = variants_of_study(name, methods, StudySettings(**{"context_scans": 4} | settings))
    assert lci == Variant("lci", "lci")
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_can_be_made_and_has_a_name_of_its_own(name):
    found = of_study(name)
    assert len({variant.name for variant in found}) == len({variant.folder for variant in found}) == len(found)
    assert (len(found) == 1) == bool(STUDIES[name].draw)  # a study varies something, or looks at a method as it is
    for variant in found:
        method = build_method(variant.method, minimal_plans(), "3d_fullres", variant.options)
        assert method.options == {**type(method).options, **variant.options}
        assert variant.reduction in (None, *type(method).reductions)
        # only deviations from the defaults are options: the default method has one training
        assert not any(type(method).options[name] == value for name, value in variant.options.items())
        if variant.hidden:
            assert str(HiddenContext.of(variant.hidden)) == variant.hidden


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_cites_its_table_or_figure(name):
    assert re.search(r"(CRONOS|TFM) (table|figure) \d", STUDIES[name].source)


def test_methods_with_their_defaults_each_once():
    assert variants_of_methods(["tfm", "lci", "tfm"]) == [Variant("tfm", "tfm"), Variant("lci", "lci")]


def test_a_default_network_is_not_part_of_the_name_of_a_model():
    """``longflow_train`` names the folder so."""
    default, other = method_class("tfm").networks[:2]
    found = variants_of_methods([f"tfm-{default}", f"tfm-{other}"])
    assert [variant.name for variant in found] == [f"tfm-{default}", f"tfm-{other}"]
    assert [variant.training for variant in found] == ["tfm", f"tfm-{other}"]


def test_masking_hides_the_first_or_the_last_scans_of_one_trained_model():
    found = of_study("masking")
    assert [variant.hidden for variant in found] == [None, *(f"{e}:{k}" for e in ("first", "last") for k in (1, 2, 3))]
    assert {variant.training for variant in found} == {"cronos"}
    whole = found[0]
    assert whole.x == 0 and len(whole.lines) == 2
    assert [variant.x for variant in found if whole.lines[1] in variant.lines] == [0, 1, 2, 3]


def test_evaluations_are_euler_steps_of_one_trained_model():
    assert [(variant.solver, variant.steps) for variant in of_study("nfe")] == [("euler", n) for n in EVALUATIONS]
    few = of_study("nfe", "tfm", evaluations=(2, 4))
    assert [variant.x for variant in few] == [2, 4] and {variant.training for variant in few} == {"tfm"}


def test_noise_is_a_training_and_0_is_the_default_method():
    found = of_study("noise")
    assert [variant.x for variant in found] == list(NOISES)
    assert [variant.training for variant in found][:2] == ["cronos", "cronos,noise=0.01"]


def test_features_are_a_training_each():
    found = of_study("features")
    assert [variant.x for variant in found] == [8, 16, 32, 64] and {one.method for one in found} == {"cronos_discrete"}
    assert [variant.options for variant in found] == [{"features": features} for features in (8, 16, 32, 64)]


def test_both_reductions_of_one_trained_model():
    found = of_study("reduction")
    assert {variant.reduction for variant in found} == {"last", "mean"}
    assert {variant.training for variant in found} == {"cronos_discrete"}


def test_filling_context_and_time_are_trained_apart():
    assert [variant.training for variant in of_study("filling")] == [
        "cronos_discrete",
        "cronos_discrete,filling=masking",
        "cronos_discrete,filling=none",
    ]
    assert [variant.training for variant in of_study("context")] == ["tfm", "tfm,context=last"]
    assert [variant.training for variant in of_study("time")] == [
        "cronos",
        "cronos,mixing=False",
        "cronos,target_code=False",
        "cronos,recurrence=False",
        "cronos,mixing=False,recurrence=False,target_code=False",
        "cronos,explicit_time=False",
        "cronos_discrete",
    ]


def test_options_are_understood_as_longflow_train_reads_them():
    for name in STUDIES:
        for variant in of_study(name):
            typed = {option: str(value) for option, value in variant.options.items()}
            assert checked_options(variant.method, typed) == variant.options


def test_variants_that_several_methods_share_occur_once():
    assert of_study("time", "cronos", "cronos") == of_study("time")
    both = of_study("context", "tfm", "cronos")
    assert [variant.method for variant in both] == ["tfm", "tfm", "cronos", "cronos"]


@pytest.mark.parametrize(
    ("study", "method", "message"),
    [
        ("nfe", "lci", "integrates no flow"),
        ("velocity", "convlstm", "has no velocity to show"),
        ("noise", "lci", "has no option 'noise', which this study varies. It has: none"),
        ("filling", "cronos", r"has no option 'filling'.* It has: .*noise"),
        ("reduction", "context_mean", "makes one volume"),
        ("masking", "spatiotemporal", "makes no predictions"),
    ],
)
def test_a_method_that_lacks_the_setting(study, method, message):
    with pytest.raises(ConfigurationError, match=message):
        of_study(study, method)


def test_unknown_names():
    with pytest.raises(NotFoundError, match="Did you mean 'masking'"):
        variants_of_study("maskin")
    with pytest.raises(NotFoundError, match="Did you mean 'cronos'"):
        variants_of_methods(["crono"])
    with pytest.raises(ConfigurationError, match="makes no predictions"):
        variants_of_methods(["spatiotemporal"])


def test_baselines_do_not_train():
    assert Variant("", "cronos").trains == method_class("cronos").trains and not Variant("", "lci").trains
