import pytest
import torch
from torch import nn

from longflow.training.run import compiled


def test_compilation_that_fails_is_left_out(monkeypatch, caplog):
    def breaks(module):
        def fast(*_):
            raise RuntimeError("no compiler\nand more")

        return fast

    monkeypatch.setattr(torch, "compile", breaks)
    module = nn.Linear(2, 2)
    step = compiled(module)
    x = torch.ones(1, 2)
    assert torch.equal(step(x), module(x)) and torch.equal(step(x), module(x))
    assert caplog.text.count("Compilation failed (no compiler): training continues without it.") == 1
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step(torch.ones(1, 3))


def test_compilation_that_works_is_used(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module: lambda x: module(x) + 1)
    module = nn.Linear(2, 2)
    x = torch.ones(1, 2)
    assert torch.equal(compiled(module)(x), module(x) + 1)
