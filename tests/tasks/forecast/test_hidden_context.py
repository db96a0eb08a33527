import pytest

from longflow.errors import ConfigurationError
from longflow.tasks.forecast.hidden_context import HiddenContext


@pytest.mark.parametrize(
    ("text", "rest"),
    [("first:1", "bcd"), ("first:3", "d"), ("first:9", "d"), ("last:1", "abc"), ("last:3", "a"), ("last:4", "a")],
)
def test_what_is_left_of_a_context(text, rest):
    hidden = HiddenContext.of(text)
    assert hidden.rest("abcd") == tuple(rest) and str(hidden) == text
    assert hidden.is_too_many("abcd") == (hidden.count > 3)


def test_a_single_scan_is_never_hidden():
    assert HiddenContext.of("first:1").rest(["a"]) == HiddenContext.of("last:1").rest(["a"]) == ("a",)


@pytest.mark.parametrize("text", ["", "2", "first", "first:", "first:0", "last:-1", "last:1.5", "Last:1", "last:2 "])
def test_what_it_cannot_be(text):
    with pytest.raises(ConfigurationError, match=f"--hide_context is '{text}', expected first:K or last:K"):
        HiddenContext.of(text)
