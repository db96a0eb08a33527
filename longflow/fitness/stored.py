"""What plans keep of the training subjects for the fitness gate. It is read by every command, so it needs no NumPy."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

#: fewer subjects say nothing about their spread
FEWEST_SUBJECTS = 4

#: a number whose last digits depend on the machine and say nothing
Rounded = Annotated[float, AfterValidator(lambda value: round(value, 6))]


class Spread(BaseModel):
    """How a measure spreads among the training subjects; every subject counts the same."""

    model_config = ConfigDict(extra="forbid")

    mean: Rounded
    deviation: Rounded = Field(gt=0)
    usual: Rounded = Field(gt=0, description="largest deviation of a training subject from the others, in deviations")
    low: Rounded = Field(description="smallest value of a training subject")
    high: Rounded


class FitnessReference(BaseModel):
    """What new subjects are compared with. It names no subject.

    Kinds of observations are "scan" (with the contrast phase where there is one: "scan native"), "pair", "course",
    "interval", "horizon" and "series".
    """

    model_config = ConfigDict(extra="forbid")

    subjects: int = Field(ge=FEWEST_SUBJECTS)
    doubtful: Rounded = Field(gt=0, description="score above which a subject is doubtful")
    unfit: Rounded = Field(gt=0, description="score above which a subject is unfit")
    false_alarms: float = Field(gt=0, lt=1, description="share of subjects of this kind that the rank rule allows")
    spreads: dict[str, dict[str, Spread]] = Field(description="by kind of observation and measure")
    templates: dict[str, str] = Field(description="mean picture by kind of scan, 12 x 12 x 12, base64 of int16")
