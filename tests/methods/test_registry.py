from fractions import Fraction
from importlib.metadata import EntryPoint

import pytest

from longflow import registry
from longflow.errors import ConfigurationError, ModelError, NotFoundError
from longflow.methods import Method
from longflow.methods.registry import (
    build_method,
    checked_options,
    known_methods,
    method_class,
    named_with_network,
    network_of,
    samples_of,
    validation_class_of,
)
from longflow.methods.weights import check_identity
from longflow.task import get_task
from tests.inference.helpers import plans_to_translate
from tests.methods.helpers import minimal_plans


def test_methods_are_named_after_their_files():
    assert {"cronos", "cronos_discrete", "tfm", "lci", "context_mean"} <= set(known_methods())
    assert all(issubclass(method_class(name), Method) for name in known_methods())
    assert all(method_class(name).summary for name in known_methods())


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(NotFoundError, match="Did you mean 'cronos'"):
        method_class("crones")


def test_a_method_for_another_task_is_refused():
    plans = minimal_plans()
    plans.task = "segment"
    with pytest.raises(ConfigurationError, match="'forecast', but Dataset001_Test is planned for 'segment'") as caught:
        build_method("lci", plans, "3d_fullres")
    assert "('unet' is the usual one)" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"), [("os:path", "not a subclass"), ("no_such_package:X", "cannot be loaded")]
)
def test_a_broken_outside_method_is_explained(monkeypatch, target, message):
    point = EntryPoint("broken", target, "longflow.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(ConfigurationError, match=message):
        method_class("broken")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mfm", ("mfm", "")),
        ("mfm-segresnet", ("mfm", "segresnet")),
        ("regression-umamba_bot", ("regression", "umamba_bot")),
        ("mfm-no-such", ("mfm", "no-such")),
        ("no_such-segresnet", ("no_such-segresnet", "")),
        ("cronos", ("cronos", "")),
    ],
)
def test_a_name_is_a_method_and_a_network(name, parts):
    assert network_of(name) == parts


def test_an_outside_method_may_have_a_dash_in_its_name(monkeypatch):
    point = EntryPoint("mfm-other", "longflow.methods.forecasting.lci:METHOD", "longflow.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert network_of("mfm-other") == ("mfm-other", "")
    assert method_class("mfm-other").summary == method_class("lci").summary
    assert named_with_network("mfm-other", None) == "mfm-other"


@pytest.mark.parametrize("network", method_class("mfm").networks)
def test_each_network_has_one_name(network):
    name = named_with_network("mfm", network)
    assert name == ("mfm" if network == "timeresnet" else f"mfm-{network}")
    assert named_with_network(f"mfm-{network}", None) == name == named_with_network(name, None)
    assert method_class(name) is method_class(f"mfm-{network}") is method_class("mfm")


@pytest.mark.parametrize(
    ("name", "network", "error", "message"),
    [
        (
            "mfm",
            "segrasnet",
            NotFoundError,
            r"'segrasnet'. Did you mean 'segresnet'.*\(Networks of the method",
        ),
        ("mfm-segrasnet", None, NotFoundError, "Did you mean 'segresnet'"),
        ("simvp", "unet", ConfigurationError, "'simvp' has one network: leave --network away"),
        ("simvp-unet", None, ConfigurationError, "'simvp' has one network"),
        ("cronos", "unet", NotFoundError, r"no network 'unet'.*Known: .*film_unet.*method 'cronos'"),
        ("mfn", "unet", NotFoundError, "no method 'mfn"),
        ("mfm-unet", "segresnet", ConfigurationError, "'mfm-unet' names a network already: leave --network segresnet"),
    ],
)
def test_networks_that_cannot_be(name, network, error, message):
    with pytest.raises(error, match=message):
        named_with_network(name, network)


def test_a_method_is_built_with_the_network_of_its_name():
    plans = plans_to_translate(dimensions=2)
    kinds = {name: type(build_method(name, plans, "2d").network).__name__ for name in ("mfm", "mfm-segresnet")}
    assert kinds == {"mfm": "TimeResNet", "mfm-segresnet": "TimedSegResNet"}
    built = build_method("ddpm-unet", plans, "2d", {"sampling_steps": "10"})
    assert type(built.network).__name__ == "TimedUNet" and built.options["sampling_steps"] == 10


def test_weights_of_another_network_are_refused(tmp_path):
    plans = plans_to_translate()
    header = {"method": "mfm-segresnet", "plan_identity": plans.identity("3d_fullres")}
    check_identity(header, tmp_path, "mfm-segresnet", plans, "3d_fullres")
    with pytest.raises(ModelError, match="trained by the method 'mfm-segresnet', not by 'mfm'"):
        check_identity(header, tmp_path, "mfm", plans, "3d_fullres")


def test_an_option_of_text_is_one_of_its_words():
    assert checked_options("tfm", {"filling": "masking", "noise": "0.1"}) == {"filling": "masking", "noise": 0.1}
    message = r"There is no filling 'mask'\. Did you mean 'masking'\? Known: locf, masking, none\. \(Option of .* 'tfm'"
    with pytest.raises(NotFoundError, match=message):
        checked_options("tfm", {"filling": "mask"})


@pytest.mark.parametrize("name", known_methods())
def test_choices_are_of_options_of_text_and_hold_their_defaults(name):
    kind = method_class(name)
    assert all(kind.options[option] in words for option, words in kind.choices.items())


@pytest.mark.parametrize("name", known_methods())
def test_every_method_has_samples_and_a_validation(name):
    kind = method_class(name)
    assert callable(samples_of(kind).__getitem__)
    assert callable(validation_class_of(kind).score)


def test_the_default_is_the_first_kind_of_the_task():
    class Trend(Method):
        task = "forecast"

    assert samples_of(Trend) is samples_of(method_class("cronos")) and samples_of(Trend).__name__ == "ForecastSamples"
    assert validation_class_of(Trend).__name__ == "ForecastValidation"


@pytest.mark.parametrize("find", [samples_of, validation_class_of])
def test_an_unknown_kind_names_the_nearest(find):
    class Strange(Method):
        task = "forecast"
        samples = validation = "forcast"

    with pytest.raises(NotFoundError, match=r"no kind of \w+ 'forcast'\. Did you mean 'forecast'"):
        find(Strange)


def test_a_method_names_its_kinds_where_its_task_has_none(monkeypatch):
    class Count(Method):
        task = "forecast"

    monkeypatch.setattr(type(get_task("forecast")), "samples", {})
    with pytest.raises(ConfigurationError, match="'Count' has no attribute 'samples'"):
        samples_of(Count)


def test_a_package_brings_kinds_of_samples_and_validations(monkeypatch):
    class Count(Method):
        task = "forecast"
        samples = validation = "counts"

    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: (
            [EntryPoint("counts", "fractions:Fraction", group)]
            if group in ("longflow.samples", "longflow.validations")
            else []
        ),
    )
    assert samples_of(Count) is validation_class_of(Count) is Fraction
