import pytest

from longflow.errors import NotFoundError
from longflow.planning.presets import PRESETS, preset


def test_features_grow_as_in_the_paper():
    assert preset("tiny").features(4) == [16, 16, 32, 64]
    assert preset("M").features(6) == [32, 32, 64, 128, 256, 256]


def test_sizes_grow():
    memory = [PRESETS[name].gpu_memory for name in ("tiny", "S", "M", "L")]
    assert memory == sorted(memory)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(NotFoundError, match="Did you mean 'tiny'"):
        preset("tinny")
