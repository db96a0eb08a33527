"""A study of the phantom, and results as its steps would leave them; jobs of a real Slurm that are waited for."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from longflow.cluster import slurm
from longflow.cluster.request import StudyData, StudyRequest
from longflow.cluster.slurm import Queued, SlurmError, SlurmUnreachableError
from longflow.cluster.steps import Step
from longflow.files import write_csv, write_json, write_text
from longflow.plans import read_plans, write_plans
from longflow.training.measured import MeasuredTraining, write_measured

NAME = "Dataset900_Phantom"
PENDING = Queued("PENDING", "Dependency", "1:00", 0, "")
#: read from a file: the helpers of methods import torch, for which the jobs of these tests would wait
PLANS = read_plans(Path(__file__).parents[2] / "plans" / "phantom_tiny.json")
MEASURED = MeasuredTraining(
    plan_identity=PLANS.identity("3d_fullres"),
    batch_size=PLANS.configuration("3d_fullres").batch_size,
    processes=1,
    device="cpu",
    steps=10,
    seconds_per_step=0.5,
    seconds_per_validation=10.0,
    data_wait_share=0.1,
    peak_memory=2_000_000_000,
    main_memory=4_000_000_000,
)
#: seconds that the jobs of a test may take
PATIENCE = 600


def request_of(**changes) -> StudyRequest:
    """Two folds of a method on the phantom."""
    values = {"dataset": NAME, "methods": ("cronos",), "configurations": ("3d_fullres",), "folds": (0, 1)}
    return StudyRequest(**{**values, **changes})


def finish(step: Step, request: StudyRequest, data: StudyData, **cost) -> None:
    """Write what a step leaves on the disk, as far as its end is read from it.

    :param cost: of a training.
    """
    paths = request.paths
    if step.kind == "prepare":
        write_plans(PLANS, paths.plans(request.plans_name))
        write_json({}, paths.fingerprint)
    elif step.kind == "preprocess":
        words = step.commands[0].arguments
        part, parts = map(int, words[words.index("--part") + 1].split("/")) if "--part" in words else (1, 1)
        for subject in sorted(data.subjects)[part - 1 :: parts]:
            write_json(
                {"cases": data.subjects[subject]}, paths.cache(request.plans_name, "3d_fullres") / f"{subject}.json"
            )
    elif step.kind == "measure":
        write_measured(
            MEASURED.model_copy(update={"processes": request.measures}),
            paths.model(step.model[0], request.plans_name, step.model[1]),
        )
    elif step.kind == "train":
        words = step.commands[0].arguments
        settings = {
            name: words[words.index(f"--{name}") + 1] for name in ("seed", "pretrained") if f"--{name}" in words
        }
        write_json({"settings": {**settings, "seed": int(settings["seed"])}, "cost": cost}, step.fold.run)
        step.fold.final.write_bytes(bytes(1000))
    elif step.kind == "find_best":
        write_json({}, paths.best)
    elif step.kind == "predict":
        rows = [{"case": f"x{number}", "subject": "x", "time": number} for number in range(data.requested)]
        for row in rows:
            write_json({}, paths.predictions / f"{row['case']}.json")
        write_csv(["case", "subject", "time"], rows, paths.predictions / "scans.csv")
    elif step.kind == "evaluate":
        write_json({}, paths.predictions / "metrics.json")
    else:
        write_text("", paths.report / "index.html")


class ListedJobs:
    """A Slurm that takes jobs into its queue and never starts one.

    :ivar refuses: a part of the names of scripts that are refused. :ivar silent: likewise; there is no answer.
    """

    def __init__(self, monkeypatch, longest=1001):
        self.waiting, self.after, self.cancelled = {}, {}, []
        self.refuses = self.silent = ""
        for name in ("queue", "submit", "cancel", "names_in_queue"):
            monkeypatch.setattr(slurm, name, getattr(self, name))
        monkeypatch.setattr(slurm, "longest_array", lambda: longest)
        monkeypatch.setattr(slurm, "ended", lambda jobs: {})

    def queue(self):
        return dict(self.waiting)

    def submit(self, script, after):
        number = str(100 + len(self.after))
        if self.silent and self.silent in script.name:
            raise SlurmUnreachableError("The scheduler does not answer.")
        if self.refuses and self.refuses in script.name:
            raise SlurmError("sbatch: error: invalid partition specified: gpuu")
        self.after[number] = list(after)
        (array,) = [line for line in script.read_text().splitlines() if "--array=" in line]
        for index in range(int(array.split("-")[-1].split("%")[0]) + 1):
            self.waiting[f"{number}_{index}"] = PENDING
        return number

    def cancel(self, jobs):
        self.cancelled += jobs
        self.waiting = {
            number: job for number, job in self.waiting.items() if not {number, number.split("_")[0]} & set(jobs)
        }

    def names_in_queue(self):
        return {"interrupted": "55"}


def wait_until(condition: Callable, seconds: float = PATIENCE, told: Callable[[], object] = slurm.queue):
    """Wait for something. :returns: its value. :param told: what is shown where it does not come."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, told()
        time.sleep(0.3)
    return value


def start_now(number: str) -> None:
    """Let a job that was put back into the queue begin soon; by itself it waits for two minutes.

    At once would be too soon: a node refuses the credential of a job that ended in the same second.
    """
    wait_until(lambda: number in slurm.queue() and slurm.waits(slurm.queue()[number]))
    time.sleep(2)
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)


def empty_queue() -> None:
    """Cancel what is still in the queue at the end of a test."""
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until(lambda: not slurm.queue())
