"""Tasks are objects: found by name, complete, and nowhere compared by name."""

import ast
from pathlib import Path

import pytest

from longflow.errors import NotFoundError
from longflow.task import DEFAULT_TASK, TASKS, all_tasks, get_task, known_task

PACKAGE = Path(__file__).parents[1] / "longflow"
#: where the names of tasks belong
OWN = (PACKAGE / "task.py", *(PACKAGE / "tasks").rglob("*.py"))


def comparisons(source: str, names: set[str]) -> list[int]:
    """Return the lines that compare a value with one of the names, look it up in a dictionary, or match it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            parts += [item for part in parts if isinstance(part, ast.Tuple | ast.List | ast.Set) for item in part.elts]
        elif isinstance(node, ast.Dict):
            # a dictionary of one name can be a row of a table; a choice has several
            parts = [key for key in node.keys if isinstance(key, ast.Constant)]
            parts = parts if sum(key.value in names for key in parts) > 1 else []
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        if any(isinstance(part, ast.Constant) and part.value in names for part in parts):
            found.append(node.lineno)
    return found


def test_no_module_compares_the_name_of_a_task():
    """Engines ask the task for what it does; a fourth task would be forgotten by a comparison."""
    names = {task.name for task in all_tasks()}
    found = {
        f"{path.relative_to(PACKAGE.parent)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in OWN
        for line in comparisons(path.read_text(), names)
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        'x = plans.task == "segment"',
        'x = "segment" != task',
        'x = task in ("forecast", "translate")',
        'x = {"forecast": 1, "segment": 2}[task]',
        'match task:\n    case "forecast":\n        pass',
    ],
)
def test_the_search_finds_a_comparison(line):
    assert comparisons(line, {"forecast", "segment", "translate"}) == [1 if line[0] == "x" else 2]


def test_the_search_ignores_other_uses():
    lines = 'name = "segment"\ncall(task="segment")\nrow = {"forecast": 1, "case": 2}\nx = kind == "labels"\n'
    assert comparisons(lines, {"forecast", "segment", "translate"}) == []


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_a_task_is_complete(task):
    assert get_task(task.name) is task and TASKS.fits(task)
    assert all((task.words.summary, task.words.verb, task.words.one, task.words.several, task.words.needs))
    assert task.default_method and task.usual_configuration in ("2d", "3d_lowres", "3d_fullres")
    assert {"predict", "evaluate", "find_best", "demo"} <= set(task.words.help)


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_everything_that_a_task_names_can_be_imported(task):
    from importlib import import_module

    from longflow.methods.registry import method_class

    places = [*task.samples.values(), *task.validations.values(), *task.metrics.values(), task.predictor_class]
    for place in places:
        module, _, attribute = place.partition(":")
        assert hasattr(import_module(module), attribute), place
    assert method_class(task.default_method).task == task.name
    assert task.predictor()


def test_a_name_is_checked():
    assert known_task(DEFAULT_TASK) == DEFAULT_TASK
    with pytest.raises(ValueError, match="'segmentation' is not a task"):
        known_task("segmentation")
    with pytest.raises(NotFoundError, match="Did you mean 'segment'"):
        get_task("segmnt")
