"""Submit what is missing of a study: steps to job arrays, with the dependencies between them."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from longflow.cluster import slurm
from longflow.cluster.records import SubmittedJob, last_job_of, read_jobs, write_jobs
from longflow.cluster.request import StudyRequest
from longflow.cluster.resources import resources_of
from longflow.cluster.scripts import Job, script_of, submit_script
from longflow.cluster.settings import ClusterSettings
from longflow.cluster.slurm import Queued, SlurmError, SlurmUnreachableError
from longflow.cluster.steps import Step, depths, unfinished
from longflow.cluster.study import Study
from longflow.files import write_text
from longflow.paths import StudyPaths, is_file_of_plans


@dataclass(frozen=True)
class Missing:
    """What a study lacks, and what of it is under way.

    :param steps: to submit.
    :param under_way: numbers of the array elements of the other unfinished steps.
    :param to_cancel: numbers of jobs that can never start, or that wait for a step that is submitted again.
    """

    steps: list[Step]
    under_way: dict[str, str]
    to_cancel: list[str]


def for_cluster(request: StudyRequest, settings: ClusterSettings) -> StudyRequest:
    """Measure and plan for the GPUs that will train: the node that plans has none, and would choose small networks."""
    train = settings.of("train")
    if request.measures:
        processes = (train.nodes or 1) * (1 if train.gpus is None else max(1, train.gpus))
        request = request.model_copy(update={"measures": processes})
    decided = "--preset" in request.planning or is_file_of_plans(request.plans)
    if decided or train.gpus == 0 or request.paths.plans(request.plans_name).is_file():
        return request
    return request.model_copy(update={"planning": (*request.planning, "--preset", "M")})


def missing(steps: Sequence[Step], jobs: Sequence[SubmittedJob], queue: Mapping[str, Queued]) -> Missing:
    """Find the steps that are neither done nor under way.

    :param jobs: that were submitted.
    :param queue: jobs that wait or run.
    """
    numbers = {name: job.element(index) for name, (job, index) in last_job_of(list(jobs)).items()}
    found = Missing([], {}, [])
    again: set[str] = set()
    for step in unfinished(steps):
        number = numbers.get(step.name, "")
        job = queue.get(number)
        if job and not (slurm.can_never_start(job) or (slurm.waits(job) and again.intersection(step.depends_on))):
            found.under_way[step.name] = number
            continue
        if job:
            found.to_cancel.append(number)
        again.add(step.name)
        found.steps.append(step)
    return found


def job_arrays(lacking: Missing, study: Study, settings: ClusterSettings, longest: int) -> list[Job]:
    """Join steps to arrays: those that stand equally deep and ask for the same.

    :param longest: most steps of an array.
    :returns: the jobs; one stands after those that it depends on.
    :raises ConfigurationError: a setting does not fit a step.
    """
    deep = depths(lacking.steps)
    groups = defaultdict(list)
    for step in lacking.steps:
        groups[deep[step.name], resources_of(step, study, settings)].append(step)
    stamp, jobs = datetime.now().strftime("%m%d%H%M%S"), []
    job_of: dict[str, str] = {}
    for (_, resources), steps in sorted(groups.items(), key=lambda item: item[0][0]):
        for start in range(0, len(steps), longest):
            part = tuple(steps[start : start + longest])
            name = f"lf{study.dataset.id}_{resources.kind}_{stamp}_{len(jobs)}"
            before = dict.fromkeys(dependency for step in part for dependency in step.depends_on)
            depends_on = tuple(dict.fromkeys(job_of[step] for step in before if step in job_of))
            waits_for = tuple(lacking.under_way[step] for step in before if step in lacking.under_way)
            jobs.append(Job(name, part, resources, depends_on, waits_for))
            job_of |= dict.fromkeys((step.name for step in part), name)
    return jobs


def submit_missing(study: Study, settings: ClusterSettings) -> tuple[list[Job], int]:
    """Submit what is missing; all of it or nothing. Call it while the lock of the study is held.

    :returns: the submitted jobs, and the number of steps that are under way already.
    :raises ConfigurationError: Slurm refused a job; those before it are cancelled.
    :raises SlurmUnreachableError: Slurm does not answer any more; those before it are kept and recorded.
    """
    files = study.files
    make_private(files)
    jobs, queue = known_jobs(files), slurm.queue()
    lacking = missing(study.steps, jobs, queue)
    arrays = job_arrays(lacking, study, settings, slurm.longest_array())
    slurm.cancel(lacking.to_cancel)
    numbers: dict[str, str] = {}
    for job in arrays:
        script = files.script(job.name)
        write_text(script_of(job, files), script)
        before = [*(numbers[name] for name in job.depends_on), *job.waits_for]
        entry = SubmittedJob(name=job.name, number=None, steps=tuple(step.name for step in job.steps))
        write_jobs([*jobs, entry], files.jobs)  # a command that is killed now finds the job by its name later
        try:
            numbers[job.name] = slurm.submit(script, before)
        except SlurmUnreachableError:
            raise  # it refused nothing: the jobs before it stay, and the same command submits the others
        except SlurmError as refusal:
            slurm.cancel(numbers.values())
            write_jobs([one for one in jobs if one.name not in numbers], files.jobs)
            raise slurm.explained(refusal, job.resources.kind, settings) from refusal
        jobs.append(entry.model_copy(update={"number": numbers[job.name]}))
        write_jobs(jobs, files.jobs)
    return arrays, len(lacking.under_way)


def known_jobs(files: StudyPaths) -> list[SubmittedJob]:
    """Return the submitted jobs; those whose submission was interrupted are found by their names, or forgotten."""
    jobs = read_jobs(files.jobs)
    if all(job.number for job in jobs):
        return jobs
    numbers = slurm.names_in_queue()
    found = [job if job.number else job.model_copy(update={"number": numbers.get(job.name)}) for job in jobs]
    return [job for job in found if job.number]


def cancel_all(files: StudyPaths) -> int:
    """Cancel the jobs of a study. :returns: how many steps were waiting or running."""
    queue = slurm.queue()
    elements = {job: [job.element(index) for index in range(len(job.steps))] for job in known_jobs(files)}
    active = {job.number: sum(number in queue for number in numbers) for job, numbers in elements.items()}
    slurm.cancel([number for number, count in active.items() if number and count])
    return sum(active.values())


def print_scripts(study: Study, settings: ClusterSettings) -> list[Path]:
    """Write the scripts of everything that is not done, and ``submit.sh``, which submits them in order.

    :returns: the files. Earlier ones are replaced.
    """
    files = study.files
    make_private(files)
    shutil.rmtree(files.printed, ignore_errors=True)
    jobs = job_arrays(Missing(study.unfinished, {}, []), study, settings, slurm.USUAL_ARRAY)
    scripts = [files.printed / f"{job.name}.sh" for job in jobs]
    for job, script in zip(jobs, scripts, strict=True):
        write_text(script_of(job, files), script)
    submit = files.printed / "submit.sh"
    write_text(submit_script(list(zip(jobs, scripts, strict=True))), submit)
    return [*scripts, submit]


def make_private(files: StudyPaths) -> None:
    """Make the folders of a study; nobody else can read or write them: scripts in them run as the user."""
    for folder in (files.folder, files.logs):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
