"""Plan a dataset: read the fingerprint, decide, write the plans."""

from dataclasses import dataclass
from pathlib import Path

from longflow.errors import ConfigurationError, LongflowError
from longflow.files import exclusive_lock, write_text
from longflow.fingerprint.fingerprint import Fingerprint, current_fingerprint
from longflow.networks.precision import default_device
from longflow.paths import PLANS_NAME, DatasetPaths, is_file_of_plans, lock_beside, name_of_plans
from longflow.planning.plan import make_plans
from longflow.planning.reference import plans_of_reference
from longflow.plans import Encoder, Plans, write_plans
from longflow.reading import read_json


@dataclass(frozen=True)
class Planned:
    """A fingerprint and the plans that were made of it.

    :param previous: file that keeps earlier plans of this name where they differ, or None.
    """

    fingerprint: Fingerprint
    plans: Plans
    previous: Path | None


def default_preset() -> str:
    """Return M on a machine with a CUDA GPU, tiny elsewhere."""
    return "M" if default_device().type == "cuda" else "tiny"


def plan_dataset(
    dataset_name: str,
    preset: str | None = None,
    gpu_memory: float | None = None,
    plans_name: str = PLANS_NAME,
    encoder: Encoder | None = None,
) -> Planned:
    """Make and write the plans of a dataset, whose fingerprint is updated first.

    :param preset: None: :func:`default_preset`.
    :param gpu_memory: GB; None: the preset's.
    :param plans_name: a name; or the file of a reference plan (``plans/acdc.json``), which names the plans and has its
        own sizes.
    :param encoder: for tasks that choose it; None: plain.
    :param dataset_name: as "Dataset101_Name".
    :returns: fingerprint and plans.
    :raises ConfigurationError: a setting cannot be used.
    :raises InUseError: another process makes plans of this name.
    """
    reference = Path(plans_name) if is_file_of_plans(plans_name) else None
    plans_name = name_of_plans(plans_name)
    if "__" in plans_name or "/" in plans_name or not plans_name:
        raise ConfigurationError(
            f"The plans name '{plans_name}' cannot be used: it becomes part of folder names. Expected a name "
            "that is not empty and has neither '/' nor '__'."
        )
    if gpu_memory is not None and gpu_memory <= 0:
        raise ConfigurationError(f"--gpu_memory is {gpu_memory:g} GB, expected a number above 0.")
    if reference and (preset or gpu_memory or encoder):
        raise ConfigurationError(
            f"{reference} has its own sizes. Remove --preset, --gpu_memory and --encoder, or edit a copy of the file."
        )
    paths = DatasetPaths(dataset_name)
    fingerprint, description = current_fingerprint(dataset_name)
    doing = f"The plans {plans_name} of {dataset_name} are being made"
    with exclusive_lock(lock_beside(paths.plans(plans_name)), doing):
        if reference:
            plans = plans_of_reference(reference, fingerprint, description)
        else:
            plans = make_plans(fingerprint, description, preset or default_preset(), gpu_memory, plans_name, encoder)
        previous = _keep_previous(plans, paths.plans(plans_name), paths.plans(f"{plans_name}_previous"))
        write_plans(plans, paths.plans(plans_name))
    return Planned(fingerprint, plans, previous)


def _keep_previous(plans: Plans, path: Path, previous: Path) -> Path | None:
    """Keep plans that differ from the new ones under another name: they may have been edited by hand."""
    if not path.is_file():
        return None
    try:
        same = read_json(path) == plans.model_dump(mode="json")
    except LongflowError:
        same = False
    if same:
        return None
    write_text(path.read_text(encoding="utf-8", errors="replace"), previous)
    return previous
