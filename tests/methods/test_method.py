from importlib.metadata import EntryPoint

import pytest

from longflow.errors import ConfigurationError, NotFoundError
from longflow.methods import Method, method
from longflow.methods.method import build_method, known_methods, method_class
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
    point = EntryPoint("broken", target, method.ENTRY_POINT_GROUP)
    monkeypatch.setattr(method, "entry_points", lambda group: [point])
    with pytest.raises(ConfigurationError, match=message):
        method_class("broken")
