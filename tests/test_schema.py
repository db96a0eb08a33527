from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from longflow.errors import ConfigurationError
from longflow.schema import MOST_SHOWN, validated


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(ge=1)
    names: list[int] = []


def test_what_fits_becomes_the_model():
    assert validated(Settings, {"epochs": 3}, Path("x.json")) == Settings(epochs=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epochs": 0}, r"epochs: .*greater than or equal to 1 \(found: 0\)"),
        ({}, "epochs: missing"),
        ({"epochs": 1, "epoch": 1}, "epoch: this key is not known; a typo"),
        ([], r"\(top level\)"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(content, message):
    with pytest.raises(ConfigurationError, match=f"(?s)x.json holds values that cannot be used.*{message}"):
        validated(Settings, content, Path("x.json"))


def test_only_the_first_of_many_problems_are_listed():
    with pytest.raises(ConfigurationError, match=r"(?s)names\.19.*and 10 more"):
        validated(Settings, {"epochs": 1, "names": ["x"] * (MOST_SHOWN + 10)}, Path("x.json"))
