import errno
import math
import os
import signal

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from longflow.errors import ConfigurationError, DataError, InUseError, ModelError, NotFoundError
from longflow.files import atomic_write
from longflow.methods.forecasting.cronos import Cronos
from longflow.methods.forecasting.latent_diffusion import LatentDiffusion
from longflow.methods.method import Recipe
from longflow.methods.weights import read_checkpoint
from longflow.plans import read_plans, write_plans
from longflow.preprocessing.series import load_prepared, save_prepared
from longflow.reading import read_json
from longflow.stop import Stopped
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training import checkpoints
from longflow.training import loop as trainer
from longflow.training.logbook import read_progress
from longflow.training.loop import schedule, train_fold
from longflow.training.splits import number_of_folds
from longflow.training.validation import Score
from tests.tasks.segment.test_validation import make_labelled
from tests.tasks.translate.cohort import make_pairs, phase_plans
from tests.training.helpers import conditioned_dataset, job_of, make_dataset, plan_steps


def train(dataset, method="cronos", fold=0, configuration="3d_fullres", overwrite=False, on_progress=None, **settings):
    job = job_of(dataset, method, fold, configuration, **({"iterations": 5} | settings))
    return train_fold(job, overwrite, on_progress or (lambda *_: None))


def stop_at(iteration, number=signal.SIGTERM):
    """What ``on_progress`` does to a run that is to be stopped."""

    def tell(share, state):
        if state.iteration == iteration:
            os.kill(os.getpid(), number)

    return tell


def same(one, other):
    """Two checkpoints, tensor by tensor, bit-identical."""
    one, other = read_checkpoint(one), read_checkpoint(other)
    assert one.header == other.header
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_a_method_that_does_not_use_the_covariates_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = conditioned_dataset()
    train(dataset, "convlstm", iterations=1)
    assert "The method 'convlstm' does not use the covariates of the dataset (age, treatment)" in caplog.text
    caplog.clear()
    train(dataset, "cronos", iterations=1)
    assert "covariates" not in caplog.text


def test_a_finished_fold_has_everything(dataset):
    seen = []
    paths = train(dataset, on_progress=lambda share, state: seen.append((share, state.iteration)))
    assert [iteration for _, iteration in seen] == [1, 2, 3, 4, 5]
    assert paths.final.is_file() and paths.best.is_file() and not paths.latest.exists()
    model = dataset.model("cronos", "longflowPlans", "3d_fullres")
    assert model.finished_folds() == [0]
    assert read_plans(model.plans) == read_plans(dataset.plans())
    assert read_json(model.dataset_json) == read_json(dataset.raw / "dataset.json")
    run = read_json(paths.run)
    assert run["settings"]["iterations"] == 5 and run["seed"] == 0 and run["torch"] == torch.__version__
    records = read_progress(paths.progress_csv)
    assert [(entry.epoch, entry.iteration) for entry in records] == [(1, 2), (2, 4), (3, 5)]
    assert all(math.isfinite(entry.loss) and 0 <= entry.data_wait_share <= 1 for entry in records)
    assert len({entry.found["lci_nrmse"] for entry in records}) == 1
    header = read_checkpoint(paths.final).header
    assert header["validation"]["nrmse"] == min(entry.found["nrmse"] for entry in records)
    assert header["iteration"] in {entry.iteration for entry in records}
    assert header["reduction"] in ("last", "mean")
    log = paths.log.read_text()
    assert "Epoch 1, iteration 2: loss" in log and "Fold finished" in log
    targets = read_json(dataset.validation_targets)["protocols"]["deployment"][0]
    for reduction in ("last", "mean"):
        written = {path.stem for path in paths.validation(reduction).glob("*.json")}
        assert written == {"dataset", *(target["target"] for target in targets)}


@pytest.mark.parametrize(
    ("method", "stops"), [("cronos", (3,)), ("cronos", (2, 4)), ("tfm", (1,)), ("latent_diffusion", (1, 3, 4))]
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(dataset, tmp_path, monkeypatch, method, stops):
    """Stopped within an epoch, at its end, and twice; in each of two stages and between them."""
    few = {"options": {"sampling_steps": 2}} if method == "latent_diffusion" else {}
    whole = train(dataset, method, seed=3, **few)
    expected = tmp_path / "whole"
    whole.folder.rename(expected)
    for iteration in stops:
        with pytest.raises(Stopped):
            train(dataset, method, seed=3, on_progress=stop_at(iteration), **few)
        assert whole.latest.is_file() and not whole.final.exists()
        assert read_checkpoint(whole.latest).header["state"]["iteration"] == iteration
    seen = []
    train(dataset, method, seed=3, on_progress=lambda share, state: seen.append(state.iteration), **few)
    assert seen == list(range(stops[-1] + 1, 6))
    for name in ("checkpoint_final.safetensors", "checkpoint_best.safetensors"):
        assert same(expected / name, whole.folder / name)
    timeless = ("epoch", "iteration", "loss", "learning_rate", "found")
    for one, other in zip(read_progress(expected / "progress.csv"), read_progress(whole.progress_csv), strict=True):
        assert [getattr(one, name) for name in timeless] == [getattr(other, name) for name in timeless]
    written = sorted(path.relative_to(expected) for path in expected.rglob("validation/*/*"))
    assert len(written) > 4
    assert all((expected / name).read_bytes() == (whole.folder / name).read_bytes() for name in written)


@pytest.mark.parametrize(("activity", "last"), [("validating, 2 of 6", 2), ("predicting out of fold, 4 of 6", 5)])
def test_a_run_that_is_stopped_in_a_validation_goes_on_to_the_same_end(dataset, tmp_path, activity, last):
    """Within an item: no further one is begun; the validation is repeated, and finished predictions are kept."""
    whole = train(dataset)
    expected = tmp_path / "whole"
    whole.folder.rename(expected)
    seen = []

    def tell(share, doing):
        seen.append(doing)
        if doing == activity:
            os.kill(os.getpid(), signal.SIGUSR2)

    with pytest.raises(Stopped):
        train_fold(job_of(dataset, iterations=5), on_activity=tell)
    assert seen[-1] == activity and seen.count(activity) == 1
    assert read_checkpoint(whole.latest).header["state"]["iteration"] == last and not whole.final.exists()
    kept = {path: path.stat().st_mtime_ns for path in whole.folder.glob("validation/*/s*.json")}
    assert len(kept) == (0 if last == 2 else 2 * 4)
    seen.clear()
    train_fold(job_of(dataset, iterations=5), on_activity=lambda share, doing: seen.append(doing))
    assert seen.count("validating, 1 of 6") >= (3 if last == 2 else 0)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    for name in ("checkpoint_final.safetensors", "checkpoint_best.safetensors"):
        assert same(expected / name, whole.folder / name)
    epochs = [(one.iteration, one.loss, one.found) for one in read_progress(whole.progress_csv)]
    assert epochs == [(one.iteration, one.loss, one.found) for one in read_progress(expected / "progress.csv")]
    written = [path.relative_to(expected) for path in expected.rglob("validation/*/*")]
    assert all((expected / name).read_bytes() == (whole.folder / name).read_bytes() for name in written)


@pytest.mark.parametrize("method", ["unet", "unet_consistent", "unet_longitudinal", "spatiotemporal", "lne"])
def test_so_does_one_that_segments_or_is_pretrained(tmp_path, monkeypatch, method):
    """With the momentum of SGD, the averages of batch normalisation, a memory bank, the few that are labelled."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset, _ = make_labelled(labelled=lambda subject, scan: scan != 1)
    begun = {"pretrained": str(train(dataset, "context_restoration", iterations=1).final)}
    if method.startswith("unet"):
        begun["labelled_subjects"] = "1"
    if method == "spatiotemporal":
        begun["options"] = {"width": 16}
    whole = train(dataset, method, **begun)
    expected = tmp_path / "whole"
    whole.folder.rename(expected)
    with pytest.raises(Stopped):
        train(dataset, method, on_progress=stop_at(2), **begun)
    assert whole.latest.is_file() and not whole.final.exists()
    seen = []
    train(dataset, method, on_progress=lambda share, state: seen.append(state.iteration), **begun)
    assert seen == [3, 4, 5]
    assert same(expected / "checkpoint_final.safetensors", whole.final)
    for one, other in zip(read_progress(expected / "progress.csv"), read_progress(whole.progress_csv), strict=True):
        assert (one.iteration, one.loss, one.found) == (other.iteration, other.loss, other.found)
    for path in sorted(expected.rglob("validation/*/*.nii.gz")):
        assert path.read_bytes() == (whole.folder / path.relative_to(expected)).read_bytes()


@pytest.mark.parametrize(("method", "dimensions"), [("mfm", 2), ("mfm-unet", 3)])
def test_and_one_that_translates(tmp_path, monkeypatch, method, dimensions):
    """A network named with the method; both directions in a batch; out-of-fold translations included."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    plans = phase_plans(dimensions)
    (configuration,) = plans.configurations
    dataset, _ = make_pairs(plans, subjects=("p1", "p2", "p3"))
    whole = train(dataset, method, configuration=configuration)
    expected = tmp_path / "whole"
    whole.folder.rename(expected)
    with pytest.raises(Stopped):
        train(dataset, method, configuration=configuration, on_progress=stop_at(3))
    assert whole.latest.is_file() and not whole.final.exists()
    train(dataset, method, configuration=configuration)
    assert same(expected / "checkpoint_final.safetensors", whole.final)
    assert read_checkpoint(whole.final).header["method"] == method
    records = read_progress(whole.progress_csv)
    for one, other in zip(read_progress(expected / "progress.csv"), records, strict=True):
        assert (one.iteration, one.loss, one.found) == (other.iteration, other.loss, other.found)
    assert {"ratio", "mae_to_arterial", "input_mae_to_native"} <= set(records[-1].found)
    written = sorted(expected.rglob("validation/translation/*.nii.gz"))
    assert len(written) == 2  # of the one validation subject, both ways
    for path in written:
        assert path.read_bytes() == (whole.folder / path.relative_to(expected)).read_bytes()


def test_the_last_weights_are_those_of_an_uninterrupted_run_too(dataset, monkeypatch):
    """The final weights are the best of several; here it is the whole state, moments of the optimizer included."""
    states = []
    finish = trainer._finish

    def keep(run, *rest):
        states.append(read_checkpoint(run.job.paths.latest))
        return finish(run, *rest)

    monkeypatch.setattr(trainer, "_finish", keep)
    train(dataset)
    with pytest.raises(Stopped):
        train(dataset, overwrite=True, on_progress=stop_at(3))
    # a fold trained from scratch is unfinished: run again without --overwrite, it continues
    assert not dataset.model("cronos", "longflowPlans", "3d_fullres").finished_folds()
    train(dataset)
    one, other = states
    assert len(one.part("optimizer")) > 10 and one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_seed_and_folds_matter_and_nothing_else_does(dataset):
    first = train(dataset)
    tensors = read_checkpoint(first.final).tensors
    train(dataset, overwrite=True)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read_checkpoint(first.final).tensors.items())
    for change in ({"seed": 1}, {"fold": 1}):
        other = read_checkpoint(train(dataset, overwrite=True, **change).final).tensors
        assert any(not torch.equal(tensor, tensors[name]) for name, tensor in other.items())


def test_killed_in_the_last_validation_its_epoch_is_recorded_all_the_same(dataset, monkeypatch):
    paths = train(dataset)
    expected = [(one.iteration, one.loss, one.learning_rate, one.found) for one in read_progress(paths.progress_csv)]

    def killed(self, method):
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        original = trainer.save_state

        def save_then_kill(run):
            original(run)
            if run.state.iteration == 5:
                patch.setattr(ForecastValidation, "score", killed)

        patch.setattr(trainer, "save_state", save_then_kill)
        train(dataset, overwrite=True)
    assert paths.latest.is_file() and not paths.final.exists()
    train(dataset)
    found = [(one.iteration, one.loss, one.learning_rate, one.found) for one in read_progress(paths.progress_csv)]
    assert found == expected


def test_killed_just_after_its_last_epoch_was_recorded_it_is_recorded_once(dataset):
    paths = train(dataset)
    expected = [(one.iteration, one.loss, one.learning_rate, one.found) for one in read_progress(paths.progress_csv)]

    def killed(folder):
        if read_progress(folder.progress_csv)[-1].iteration == 5:
            raise SystemExit

    with pytest.raises(SystemExit):
        train_fold(job_of(dataset, iterations=5), overwrite=True, after_epoch=killed)
    assert paths.latest.is_file() and not paths.final.exists()
    train(dataset)
    found = [(one.iteration, one.loss, one.learning_rate, one.found) for one in read_progress(paths.progress_csv)]
    assert found == expected


def test_ctrl_c_stops_alike_and_signals_are_given_back(dataset):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        train(dataset, on_progress=stop_at(1, signal.SIGINT))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_finished_fold_is_left_alone_without_overwrite(dataset, caplog):
    paths = train(dataset)
    before = {path: path.stat().st_mtime_ns for path in paths.folder.rglob("*") if path.is_file()}
    with caplog.at_level("INFO"):
        train(dataset, iterations=50)
    assert "is finished" in caplog.text and "--overwrite" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in paths.folder.rglob("*") if path.is_file()} == before
    train(dataset, overwrite=True)
    assert paths.final.stat().st_mtime_ns > before[paths.final]


def test_a_fold_that_another_process_trains_is_left_to_it(dataset, monkeypatch):
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)

    def lockf(file, _):
        assert file.name == str(paths.lock)
        raise BlockingIOError

    monkeypatch.setattr("fcntl.lockf", lockf)
    for overwrite in (False, True):
        with pytest.raises(InUseError, match="Fold 0 of cronos__longflowPlans__3d_fullres is being trained by another"):
            train(dataset, overwrite=overwrite)
    assert [path.name for path in paths.folder.iterdir()] == [".lock"]


def test_what_another_process_trained_until_the_lock_was_free_is_kept(dataset, monkeypatch):
    """Both found the fold unfinished; the second one gets the lock when the first has finished."""
    paths = job_of(dataset).paths
    plan, plans_made = trainer.plan_start, []

    def finish_meanwhile(*arguments):
        plans_made.append(arguments)
        if len(plans_made) == 1:
            train(dataset)
        return plan(*arguments)

    monkeypatch.setattr(trainer, "plan_start", finish_meanwhile)
    steps = []
    train(dataset, iterations=50, on_progress=lambda share, state: steps.append(state.iteration))
    assert steps == [] and read_json(paths.run)["settings"]["iterations"] == 5


def test_a_planted_link_in_the_place_of_the_lock_is_refused(dataset, tmp_path):
    target, paths = tmp_path / "target", job_of(dataset).paths
    target.write_text("precious")
    paths.folder.mkdir(parents=True)
    paths.lock.symlink_to(target)
    with pytest.raises(DataError, match=r"\.lock is a link or no regular file"):
        train(dataset)
    assert target.read_text() == "precious"


def test_a_fold_trained_from_scratch_keeps_no_predictions_of_the_training_before(dataset):
    """Their subjects may be trained on now: by other splits."""
    paths = train(dataset)
    left = paths.validation("last") / "old_0000.nii.gz"
    left.write_bytes(b"")
    train(dataset, iterations=50)
    assert left.is_file()  # the fold is finished
    with pytest.raises(Stopped):
        train(dataset, overwrite=True, on_progress=stop_at(2))
    assert not left.exists()


def test_a_checkpoint_of_another_plan_is_not_gone_on_with(dataset):
    with pytest.raises(Stopped):
        train(dataset, on_progress=stop_at(2))
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    before = paths.latest.read_bytes()
    plans = read_plans(dataset.plans())
    plans.temporal.time_scale = 20
    write_plans(plans, dataset.plans())
    with pytest.raises(ModelError, match="trained with another plan"):
        train(dataset)
    assert paths.latest.read_bytes() == before
    assert read_plans(dataset.model("cronos", "longflowPlans", "3d_fullres").plans).temporal.time_scale == 10
    train(dataset, overwrite=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fold": 5}, NotFoundError, "There is no fold 5: .* has the folds 0 to 4"),
        ({"method": "crones"}, NotFoundError, "Did you mean 'cronos'"),
        ({"configuration": "3d_fulres"}, NotFoundError, "Did you mean '3d_fullres'"),
        ({"method": "lci"}, ConfigurationError, "'lci' has nothing to train"),
        ({"method": "unet"}, ConfigurationError, "'unet' is for the task 'segment', but .* planned for 'forecast'"),
    ],
)
def test_what_does_not_exist(dataset, change, error, message):
    with pytest.raises(error, match=message):
        train(dataset, **change)
    assert not dataset.results.exists()


def test_without_preprocessed_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=2, prepare=False)
    with pytest.raises(DataError, match=r"holds no preprocessed subject. Run longflow_preprocess"):
        train(dataset)


def test_subjects_with_one_scan_serve_other_tasks(dataset, caplog):
    cache = dataset.cache("longflowPlans", "3d_fullres")
    series = load_prepared(cache, "s1")
    series.properties.subject, series.properties.cases = "s0", ["s0_0"]
    for key in ("times", "labelled", "offset", "scale"):
        setattr(series.properties, key, getattr(series.properties, key)[:1])
    series.images, series.coarse = series.images[:1], series.coarse[:1]
    save_prepared(series, cache)
    with caplog.at_level("INFO"):
        train(dataset, iterations=1)
    assert "the task 'forecast' needs at least 2 scans of a subject: 1 subjects (s0)." in caplog.text
    assert all("s0" not in (*split["train"], *split["val"]) for split in read_json(dataset.splits))


def test_a_loss_that_is_not_a_number_is_explained(dataset, monkeypatch):
    monkeypatch.setattr(Cronos, "training_step", lambda self, batch: self.network.head.weight.sum() * math.nan)
    with pytest.raises(DataError, match=r"The loss became nan at iteration 0. Look for extreme intensities"):
        train(dataset)


def test_a_stage_begins_from_the_averaged_weights_and_everything_else_from_scratch(dataset, monkeypatch):
    """The first stage is made to have the best validation."""
    runs, averages, rates = [], [], []
    begin, restart, rate = LatentDiffusion.begin_stage, trainer.restart_average, trainer.schedule

    def begin_noting(method, stage, batch):
        averages.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
        begin(method, stage, batch)

    def restart_noting(run):
        before = {name: tensor.clone() for name, tensor in run.average.items()}
        assert all(torch.equal(tensor, before[name]) for name, tensor in averages[0].items())
        restart(run)
        assert before["scale"] == 1 and run.average["scale"] == run.method.scale != 1
        assert not run.optimizer.state and run.state.best_value is None
        assert all(parameter.grad is None for parameter in run.method.parameters())
        runs.append(run)

    def rate_noting(progress, recipe):
        rates.append(progress)
        return rate(progress, recipe)

    def score(self, method):
        return Score(float(method.stage), {"nrmse": float(method.stage)}, "")

    monkeypatch.setattr(LatentDiffusion, "begin_stage", begin_noting)
    monkeypatch.setattr(trainer, "restart_average", restart_noting)
    monkeypatch.setattr(trainer, "schedule", rate_noting)
    monkeypatch.setattr(ForecastValidation, "score", score)
    paths = train(dataset, "latent_diffusion", iterations=8, options={"sampling_steps": 1})
    (run,) = runs
    assert (run.state.stage, run.state.stage_iteration, run.state.best_value) == (1, 4, 1)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75] * 2)
    header = read_checkpoint(paths.final).header
    assert header["stage"] == 1 and header["iteration"] > 4
    frozen = {name for name in averages[0] if name.startswith("autoencoder.")}
    kept = read_checkpoint(paths.final).part("weights")
    assert all(torch.equal(kept[name], averages[0][name]) for name in frozen)
    records = [entry.found for entry in read_progress(paths.progress_csv)]
    assert ["loss_kl" in found and found["loss_kl"] is not None for found in records] == [True, True, False, False]
    assert [found["loss_noise"] is not None for found in records] == [False, False, True, True]


def test_a_run_that_ends_before_the_last_stage_says_so(dataset, caplog):
    paths = train(dataset, "latent_diffusion", iterations=1)
    assert "ended in stage 1 of the 2 stages" in caplog.text
    assert read_checkpoint(paths.final).header["stage"] == 0
    caplog.clear()
    train(dataset, "cronos", iterations=1)
    assert "stage" not in caplog.text


def test_the_rate_rises_and_then_falls_as_a_cosine():
    cosine = Recipe(schedule="cosine", warmup=0.1)
    assert 0 < schedule(0, cosine) < 0.02
    assert [schedule(share, cosine) for share in (0.025, 0.05, 0.1)] == pytest.approx([0.25, 0.5, 1])
    for share in (0.2, 0.5, 0.9):
        assert schedule(share, cosine) == pytest.approx(math.cos(math.pi / 2 * (share - 0.1) / 0.9) ** 2)
    assert schedule(1, cosine) == pytest.approx(0) and schedule(0, Recipe(schedule="cosine")) == 1


def test_the_other_schedules_fall_as_they_are_named():
    for share in (0, 0.25, 0.9, 1):
        assert schedule(share, Recipe(schedule="linear")) == pytest.approx(1 - share)
        assert schedule(share, Recipe(schedule="polynomial")) == pytest.approx((1 - share) ** 0.9)
    assert schedule(1.01, Recipe(schedule="polynomial")) == 0  # a time budget is overrun by part of a step


def test_the_schedule_is_nnunets(monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-2)
    theirs = PolyLRScheduler(optimizer, 1e-2, 50)
    for epoch in (0, 7, 49):
        theirs.step(epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            1e-2 * schedule(epoch / 50, Recipe(schedule="polynomial"))
        )


def test_the_averaged_weights_are_what_is_scored_and_kept(dataset, monkeypatch):
    scored = []
    original = ForecastValidation.score

    def note(self, method):
        scored.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
        return original(self, method)

    monkeypatch.setattr(ForecastValidation, "score", note)
    averages = []
    update = trainer.update_average

    def follow(average, *rest):
        update(average, *rest)
        averages.append({name: tensor.clone() for name, tensor in average.items()})

    monkeypatch.setattr(trainer, "update_average", follow)
    plan_steps(dataset, 1)  # more than one would be compared with fewer
    train(dataset)
    assert len(scored) == 3  # after iterations 2, 4 and 5; the last is not scored twice
    for found, expected in zip(scored, (averages[1], averages[3], averages[4]), strict=True):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_checkpoints_by_time(dataset, monkeypatch):
    saved = []
    original = trainer.save_state
    monkeypatch.setattr(trainer, "save_state", lambda run: (saved.append(run.state.iteration), original(run)))
    train(dataset, checkpoint_every=0.0)
    assert saved == [1, 2, 3, 4, 5, 5, 5]  # by time, before the last validation, and after it


def test_a_full_disk_stops_and_the_same_command_goes_on(dataset, monkeypatch):
    """The checkpoint after the third iteration cannot be written; the one before is gone on from."""
    original = checkpoints.write_checkpoint

    def full(checkpoint, path):
        if checkpoint.header.get("state", {}).get("iteration") == 3:
            with atomic_write(path) as temporary:
                temporary.write_text("half")
                raise OSError(errno.ENOSPC, "No space left on device")
        original(checkpoint, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_checkpoint", full)
        with pytest.raises(DataError, match=r"checkpoint_latest.safetensors could not be written: No space left"):
            train(dataset, checkpoint_every=0.0)
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    assert read_checkpoint(paths.latest).header["state"]["iteration"] == 2
    seen = []
    train(dataset, on_progress=lambda share, state: seen.append(state.iteration))
    assert seen == [3, 4, 5] and paths.final.is_file() and not list(paths.folder.glob(".unfinished-*"))


def test_number_of_folds(dataset):
    assert number_of_folds(dataset, read_plans(dataset.plans())) == 5


def test_in_2d_and_with_two_channels(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=3, scans=3, channels=2, dimensions=2)
    paths = train(dataset, "cronos_discrete", configuration="2d", iterations=2)
    assert len(list(paths.validation("last").glob("*_0001.nii.gz"))) > 0
