"""Planning a dataset: read the fingerprint, decide, write the plans."""

from dataclasses import dataclass

from longflow.errors import ConfigurationError
from longflow.fingerprint.fingerprint import Fingerprint, current_fingerprint
from longflow.networks.precision import default_device
from longflow.paths import PLANS_NAME, DatasetPaths
from longflow.planning.plan import make_plans
from longflow.plans import Plans, write_plans


@dataclass(frozen=True)
class Planned:
    """A fingerprint and the plans that were made of it."""

    fingerprint: Fingerprint
    plans: Plans


def default_preset() -> str:
    """M on a machine with a CUDA GPU, tiny elsewhere."""
    return "M" if default_device().type == "cuda" else "tiny"


def plan_dataset(
    dataset_name: str, preset: str | None = None, gpu_memory: float | None = None, plans_name: str = PLANS_NAME
) -> Planned:
    """Make and write the plans of a dataset whose fingerprint is up to date.

    :param preset: None: :func:`default_preset`. :param gpu_memory: GB; None: the preset's.
    """
    if "__" in plans_name or "/" in plans_name or not plans_name:
        raise ConfigurationError(
            f"The plans name '{plans_name}' cannot be used: it becomes part of folder names, so it must "
            "not be empty nor hold '/' or '__'."
        )
    if gpu_memory is not None and gpu_memory <= 0:
        raise ConfigurationError(f"--gpu_memory is {gpu_memory:g} GB, expected a number above 0.")
    fingerprint, description = current_fingerprint(dataset_name)
    plans = make_plans(fingerprint, description, preset or default_preset(), gpu_memory, plans_name)
    write_plans(plans, DatasetPaths(dataset_name).plans(plans_name))
    return Planned(fingerprint, plans)
