"""The dataset of the tests of training."""

from tests.training.conftest import _heard, _one_thread, dataset, template  # noqa: F401
