import pytest


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Workers take longer to start than the work of these tests."""
    monkeypatch.setattr("longflow.parallel.available_cores", lambda: 1)
