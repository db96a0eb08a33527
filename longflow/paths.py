"""Paths: the only module with the names of folders and result files.

Three folders hold everything, as in nnU-Net: raw datasets, preprocessed datasets, results. They come from the
environment variables ``longflow_raw``, ``longflow_preprocessed`` and ``longflow_results``, else from
``LONGFLOW_HOME`` (with ``raw``, ``preprocessed``, ``results`` below it), else from ``./longflow_data``.
"""

import logging
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from longflow.errors import DataError, NotFoundError, unknown_name

logger = logging.getLogger(__name__)

DATASET_NAME = re.compile(r"Dataset([0-9]{3})_[A-Za-z0-9_\-]+")
DEFAULT_HOME = "longflow_data"
PLANS_NAME = "longflowPlans"
#: environment variables with the folders
VARIABLES = ("LONGFLOW_HOME", "longflow_raw", "longflow_preprocessed", "longflow_results")

#: tables of ``longflow_evaluate``, in the folder of the predictions
METRICS_CSV, METRICS_JSON = "metrics.csv", "metrics.json"
#: ``{name}.json`` in a folder of predictions is not the sidecar of a case
RESERVED_NAMES = ("dataset", "metrics", "lesions")
#: most bytes of a name from a file (a case, a subject, a label), and of the name of a file
LONGEST_NAME, LONGEST_FILE_NAME = 160, 255
#: kinds of Unicode that no name has: control characters, halves of letters, separators of lines and paragraphs
NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")

_said_default_home = False


def is_printable(text: str, longest: int = LONGEST_NAME) -> bool:
    """Tell whether a text of one line can be a name: no control characters, and at most so many bytes."""
    strange = any(unicodedata.category(letter) in NOT_IN_NAMES for letter in text)
    return not strange and len(text.encode("utf-8")) <= longest


def is_name(text: str, longest: int = LONGEST_NAME) -> bool:
    """Tell whether a case, subject or phase can be part of a file's name.

    It must not lead to another folder, hide the file, or be a name that a folder of predictions uses itself.
    """
    safe = bool(text) and text[0] != "." and "/" not in text and "\\" not in text
    return safe and is_printable(text, longest) and text not in RESERVED_NAMES


def path_in(folder: Path, name: str) -> Path:
    """Return the path of a file or folder directly in a folder. Every name from a file becomes a path here.

    :param folder: in which the path is.
    :param name: made of names from tables, dataset.json or plans.
    :returns: the path.
    :raises DataError: the name would lead elsewhere, or no file can have it.
    """
    if name[:1] in ("", ".") or "/" in name or "\\" in name or not is_printable(name, LONGEST_FILE_NAME):
        raise DataError(
            f"{name[:80]!r} cannot be a file name in {folder}. Expected at most {LONGEST_FILE_NAME} bytes without "
            "slashes or control characters, and no point first. Correct the name where it is from: scans.csv, "
            "dataset.json or the plans."
        )
    return folder / name


def _root(kind: str) -> Path:
    global _said_default_home
    if value := os.environ.get(f"longflow_{kind}"):
        return Path(value).expanduser()
    if home := os.environ.get("LONGFLOW_HOME"):
        return Path(home).expanduser() / kind
    if not _said_default_home:
        _said_default_home = True
        logger.warning("Neither LONGFLOW_HOME nor longflow_%s is set: using %s", kind, Path(DEFAULT_HOME).resolve())
    return Path(DEFAULT_HOME) / kind


def raw_root() -> Path:
    """Return the folder of the raw datasets."""
    return _root("raw")


def preprocessed_root() -> Path:
    """Return the folder of fingerprints, plans, splits and preprocessed subjects."""
    return _root("preprocessed")


def results_root() -> Path:
    """Return the folder of trained models."""
    return _root("results")


def folders_below(home: Path) -> dict[str, str]:
    """Return the variables for a process whose folders are all below ``home``."""
    return {"LONGFLOW_HOME": str(home.resolve())}


def folders_with_results(results: Path) -> dict[str, str]:
    """Return the variables for a process with the datasets of this one and another folder of results."""
    roots = {"raw": raw_root(), "preprocessed": preprocessed_root(), "results": results}
    return {f"longflow_{kind}": str(root.resolve()) for kind, root in roots.items()}


def known_datasets() -> list[str]:
    """List the names of all datasets that exist raw, preprocessed or trained, sorted."""
    names = set()
    for root in (raw_root(), preprocessed_root(), results_root()):
        if root.is_dir():
            folders = (entry.name for entry in root.iterdir() if entry.is_dir())
            names.update(name for name in folders if DATASET_NAME.fullmatch(name))
    return sorted(names)


def resolve_dataset_name(name_or_id: str | int) -> str:
    """Find the full name of an existing dataset.

    :param name_or_id: ``101``, ``"101"`` or ``"Dataset101_Cine"``.
    :returns: the full name.
    :raises NotFoundError: there is none (the message has the nearest match), or several have the id.
    """
    known = known_datasets()
    text = str(name_or_id)
    if text.isdecimal():
        matches = [name for name in known if int(name[7:10]) == int(text)]
        if len(matches) == 1:
            return matches[0]
        if len(matches) > 1:
            raise NotFoundError(f"The id {text} is used by several datasets: {', '.join(matches)}. Give the full name.")
    elif text in known:
        return text
    raise unknown_name("dataset", text, known, hint=f"Datasets are looked for in {raw_root().resolve()}.")


def protocol_path(raw: Path) -> Path:
    """Return the test protocol of a raw dataset: the targets of ``imagesTs`` and their context scans."""
    return raw / "test_protocol.json"


def review_folder(raw: Path) -> Path:
    """Return the folder next to a raw dataset for what identifies patients: tables and key of an import of DICOM."""
    return raw.with_name(f"review_{raw.name}")


def cluster_settings() -> Path:
    """Return the settings of ``longflow_run --cluster`` that hold for all datasets, where no other file is given."""
    return results_root() / "cluster.json"


def lock_in(folder: Path) -> Path:
    """Return the lock that is held while the files of a folder are written."""
    return folder / ".lock"


def lock_beside(path: Path) -> Path:
    """Return the lock that is held while a file is decided on, or a folder is made that is replaced as a whole."""
    return path.with_name(f".{path.name}.lock")


def is_file_of_plans(plans: str) -> bool:
    """Tell whether ``-p`` names a file, as ``plans/acdc.json``, and not plans of the dataset, as ``longflowPlans``."""
    return plans.endswith(".json")


def name_of_plans(plans: str) -> str:
    """Return the name of the plans that ``-p`` requests, by name or by file.

    >>> name_of_plans("longflowPlans"), name_of_plans("plans/acdc.json")
    ('longflowPlans', 'acdc')
    """
    return Path(plans).stem if is_file_of_plans(plans) else plans


@dataclass(frozen=True)
class DatasetPaths:
    """All files and folders of one dataset.

    :param name: full name, as ``Dataset101_Cine``.
    """

    name: str

    @property
    def id(self) -> str:
        """Return the id as on the command line: 101 of ``Dataset101_Cine``."""
        return self.name[7:10]

    @property
    def raw(self) -> Path:
        return raw_root() / self.name

    @property
    def preprocessed(self) -> Path:
        return preprocessed_root() / self.name

    @property
    def results(self) -> Path:
        return results_root() / self.name

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "dataset_fingerprint.json"

    @property
    def integrity(self) -> Path:
        """Return the table of problems that ``longflow_verify`` found."""
        return self.preprocessed / "integrity.csv"

    @property
    def splits(self) -> Path:
        return self.preprocessed / "splits_final.json"

    @property
    def validation_targets(self) -> Path:
        return self.preprocessed / "validation_targets.json"

    def plans(self, plans_name: str = PLANS_NAME) -> Path:
        return path_in(self.preprocessed, f"{plans_name}.json")

    def cache(self, plans_name: str, data_identifier: str) -> Path:
        """Return the folder of the preprocessed subjects of one resolution."""
        return path_in(self.preprocessed, f"{plans_name}_{data_identifier}")

    @property
    def best(self) -> Path:
        """Return the record of ``longflow_find_best``."""
        return self.results / "best.json"

    @property
    def best_table(self) -> Path:
        return self.results / "best.csv"

    @property
    def best_solvers(self) -> Path:
        """Return the table of solvers that ``longflow_find_best`` compared."""
        return self.results / "best_solvers.csv"

    @property
    def calibrations(self) -> Path:
        """Return the folder of ``longflow_calibrate``, with one folder for each model that segments."""
        return self.results / "calibration"

    def calibration(self, segmenter: str) -> Path:
        """Return the folder of one calibration. :param segmenter: dataset of the model that segments."""
        return path_in(self.calibrations, segmenter)

    def comparison(self, name: str) -> "ComparisonPaths":
        """Return the results of ``longflow_compare`` of a name."""
        return ComparisonPaths(path_in(self.results / "comparisons", name))

    def submitted_comparisons(self) -> list["ComparisonPaths"]:
        """List the comparisons that ``longflow_compare --cluster`` submitted, sorted by name."""
        comparisons = self.results / "comparisons"
        folders = sorted(comparisons.iterdir()) if comparisons.is_dir() else []
        return [paths for paths in map(ComparisonPaths, folders) if paths.study.request.is_file()]

    def trained_to_compare(self, budget: str, training: str, seed: int) -> Path:
        """Return the folder of results in which ``longflow_compare`` trains a variant; all comparisons share it.

        :param budget: its name.
        :param training: name of method and options.
        :param seed: of the training.
        :returns: the folder.
        """
        return self.results / "comparisons" / f"trained_{budget}" / training / f"seed_{seed}"

    def of_seed(self, seed: int) -> Path:
        """Return the folder of results in which ``longflow_run --seeds`` trains another seed than the first one."""
        return self.results / "seeds" / f"seed_{seed}"

    @property
    def predictions(self) -> Path:
        """Return the folder in which ``longflow_run`` predicts the test scans (``imagesTs``)."""
        return self.results / "predictions"

    @property
    def report(self) -> Path:
        """Return the folder of the cohort's report: index.html, model_card.json, subjects.csv."""
        return self.results / "report"

    @property
    def study(self) -> "StudyPaths":
        """Return the files of ``longflow_run``."""
        return StudyPaths(self.results / "study")

    def model(self, method: str, plans_name: str, configuration: str, results: Path | None = None) -> "ModelPaths":
        """Return the folder of a model. :param results: folder of results; None: the usual one."""
        folder = self.results if results is None else results / self.name
        return ModelPaths(path_in(folder, f"{method}__{plans_name}__{configuration}"))

    def models(self) -> list["ModelPaths"]:
        """List the models of this dataset with at least one finished fold, sorted by name."""
        if not self.results.is_dir():
            return []
        candidates = sorted(entry for entry in self.results.iterdir() if entry.is_dir() and entry.name.count("__") == 2)
        return [model for entry in candidates if (model := ModelPaths(entry)).finished_folds()]


@dataclass(frozen=True)
class ModelPaths:
    """The folder of one method, plan and configuration: ``{method}__{plans}__{configuration}``."""

    folder: Path

    @property
    def method(self) -> str:
        return self.folder.name.split("__")[0]

    @property
    def plans_name(self) -> str:
        return self.folder.name.split("__")[1]

    @property
    def configuration(self) -> str:
        return self.folder.name.split("__")[2]

    @property
    def plans(self) -> Path:
        return self.folder / "plans.json"

    @property
    def dataset_json(self) -> Path:
        return self.folder / "dataset.json"

    def measured(self, processes: int) -> Path:
        """Return the record of a measured training. :param processes: that trained together."""
        return self.folder / f"measured_{processes}.json"

    def fold(self, fold: int) -> "FoldPaths":
        return FoldPaths(self.folder / f"fold_{fold}")

    def finished_folds(self) -> list[int]:
        """List the folds whose training has finished, sorted."""
        if not self.folder.is_dir():
            return []
        folds = [
            int(entry.name[5:])
            for entry in self.folder.iterdir()
            if re.fullmatch(r"fold_[0-9]+", entry.name) and FoldPaths(entry).final.is_file()
        ]
        return sorted(folds)


@dataclass(frozen=True)
class FoldPaths:
    """The folder of one trained fold."""

    folder: Path

    @property
    def latest(self) -> Path:
        """Return the state to continue training: weights, averaged weights, optimizer, position."""
        return self.folder / "checkpoint_latest.safetensors"

    @property
    def best(self) -> Path:
        """Return the averaged weights at the best validation so far (or the last, depending on the method)."""
        return self.folder / "checkpoint_best.safetensors"

    @property
    def final(self) -> Path:
        """Return the weights that prediction uses; the file exists once training has finished."""
        return self.folder / "checkpoint_final.safetensors"

    @property
    def run(self) -> Path:
        """Return the record of flags, versions and machine of the run."""
        return self.folder / "run.json"

    @property
    def pretrained(self) -> Path:
        """Return the record of the initial weights: which tensors were loaded, which skipped and why."""
        return self.folder / "pretrained.json"

    @property
    def labelled_subjects(self) -> Path:
        """Return the list of subjects whose labels were used in training, where they were selected."""
        return self.folder / "labelled_subjects.json"

    @property
    def lock(self) -> Path:
        """Return the lock that is held while the fold is trained."""
        return lock_in(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / "training.log"

    @property
    def progress_csv(self) -> Path:
        return self.folder / "progress.csv"

    @property
    def progress_png(self) -> Path:
        return self.folder / "progress.png"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def validations(self) -> Path:
        """Return the folder of the out-of-fold predictions, with a folder for each reduction."""
        return self.folder / "validation"

    def validation(self, reduction: str) -> Path:
        """Return the folder of the out-of-fold predictions of the validation targets with one reduction."""
        return self.validations / reduction


@dataclass(frozen=True)
class ComparisonPaths:
    """The folder of a comparison: its tables and figures, and their sources."""

    folder: Path

    @property
    def table_csv(self) -> Path:
        return self.folder / "comparison.csv"

    @property
    def table_json(self) -> Path:
        return self.folder / "comparison.json"

    @property
    def targets_csv(self) -> Path:
        """Return the table of numbers of every target with every variant."""
        return self.folder / "targets.csv"

    @property
    def study(self) -> "StudyPaths":
        """Return the files of ``longflow_compare --cluster``."""
        return StudyPaths(self.folder / "study")

    def figure(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def targets(self, fold: int) -> Path:
        """Return the input of ``longflow_predict``: context scans of the validation targets of a fold."""
        return self.folder / "targets" / f"fold_{fold}"

    def model(self, variant: str, fold: int, seed: int) -> Path:
        """Return the folder of results from which a variant predicts: its model, and the record of the best one."""
        return self.folder / "models" / variant / f"fold_{fold}_seed_{seed}"

    def made_from(self, variant: str, fold: int, seed: int) -> Path:
        """Return the record of the sources of a variant's forecasts."""
        return self.model(variant, fold, seed) / "made_from.json"

    def predictions(self, variant: str, fold: int, seed: int) -> Path:
        """Return the folder of the forecasts of a variant."""
        return self.folder / "predictions" / variant / f"fold_{fold}_seed_{seed}"


@dataclass(frozen=True)
class StudyPaths:
    """The folder of ``longflow_run``, or of a comparison on a cluster: request, submitted jobs, their scripts and logs.

    What is done is never read from here, but from the results themselves.
    """

    folder: Path

    @property
    def request(self) -> Path:
        """Return the request of the last command, from which ``longflow_status`` lists the steps."""
        return self.folder / "study.json"

    @property
    def jobs(self) -> Path:
        """Return the record of the jobs that were submitted: their numbers, and the steps of each."""
        return self.folder / "jobs.json"

    @property
    def lock(self) -> Path:
        """Return the lock that is held while steps are run on this machine or submitted."""
        return lock_in(self.folder)

    @property
    def printed(self) -> Path:
        """Return the folder of the scripts that ``--print`` writes."""
        return self.folder / "scripts_to_submit"

    def script(self, job_name: str) -> Path:
        """Return the batch script of a job."""
        return path_in(self.folder / "scripts", f"{job_name}.sh")

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, job_name: str, index: int | str) -> Path:
        """Return the log of a step of a job. :param index: of the step in the job's array."""
        return path_in(self.logs, f"{job_name}_{index}.log")
