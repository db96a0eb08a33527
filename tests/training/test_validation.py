import hashlib

import torch

from longflow.inference.models import LoadedMember, Models
from longflow.inference.selection import Member, Selection
from longflow.methods.registry import build_method
from longflow.training.validation import out_of_fold_digests, out_of_fold_settings
from tests.training.helpers import finished_model, job_of


def test_out_of_fold_predictions_name_what_those_of_longflow_predict_name(dataset):
    job = job_of(dataset, fold=2)
    method = build_method(job.method, job.plans, job.configuration)
    member = Member(job.model, (2,))
    selection = Selection(dataset, (member,))
    models = Models(selection, torch.device("cpu"), [LoadedMember(member, job.plans, [method])], method.mirrors)
    assert out_of_fold_settings(job, method) == {"time_unit": "days", **models.settings()}


def test_digests_of_out_of_fold_predictions(dataset):
    job = job_of(dataset)
    finished_model(dataset, job.plans)
    job.paths.final.rename(job.paths.best)
    image = dataset.raw / "imagesTr" / "s0_0_0000.nii.gz"
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (image, job.model.plans, job.paths.best)]
    assert out_of_fold_digests(job, [image]) == {
        "inputs": {image.name: expected[0]},
        "plans": [expected[1]],
        "weights": [[expected[2]]],
    }
