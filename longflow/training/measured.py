"""The record of a measured training; nothing here imports torch, so that a cluster's jobs are proposed at once."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from longflow.files import write_json
from longflow.paths import ModelPaths
from longflow.plans import Plans
from longflow.reading import read_json
from longflow.schema import validated

Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]


class MeasuredTraining(BaseModel):
    """What a training costs, as ``longflow_train --measure`` found it.

    :param plan_identity: of the plan that was measured; another plan costs something else.
    :param batch_size: of the plan, for each process.
    :param processes: number of processes.
    :param device: name of the GPU, or "cpu".
    :param steps: number of steps that were measured.
    :param seconds_per_step: the mean over the stages of the method, by their shares of the training.
    :param seconds_per_validation: of all items.
    :param data_wait_share: share of the time of the steps spent waiting for batches.
    :param peak_memory: bytes, as ``run.json`` records it: of tensors on a GPU, or of the process; None: unknown.
    :param main_memory: bytes of main memory of a process and the workers that prepare its batches; None: unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_identity: str
    batch_size: Annotated[int, Field(ge=1)]
    processes: Annotated[int, Field(ge=1)]
    device: str
    steps: Annotated[int, Field(ge=1)]
    seconds_per_step: Positive
    seconds_per_validation: Positive
    data_wait_share: Positive
    peak_memory: Bytes | None
    main_memory: Bytes | None

    def seconds_of(self, iterations: int, plans: Plans) -> float:
        """Expect the seconds of a training, apart from its start and its out-of-fold predictions.

        :param iterations: number of steps.
        :param plans: that say after how many of them a validation comes.
        """
        validations = iterations / plans.training.iterations_per_epoch
        return self.seconds_per_step * iterations + self.seconds_per_validation * validations


def write_measured(found: MeasuredTraining, model: ModelPaths) -> None:
    """Write the record of a model."""
    write_json(found.model_dump(mode="json"), model.measured(found.processes))


def read_measured(model: ModelPaths, processes: int, plans: Plans) -> MeasuredTraining | None:
    """Read the record of a model.

    :param processes: number of processes of the training.
    :param plans: the present ones.
    :returns: the record; None where this plan was not measured with so many processes.
    :raises LongflowError: the file is no such record.
    """
    path = model.measured(processes)
    if not path.is_file() or model.configuration not in plans.configurations:
        return None
    found = validated(MeasuredTraining, read_json(path), path)
    present = plans.identity(model.configuration), plans.configuration(model.configuration).batch_size
    return found if (found.plan_identity, found.batch_size) == present else None
