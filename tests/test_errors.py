import inspect
import pickle

from longflow import errors
from longflow.errors import DataError, LongflowError, NotFoundError, unknown_name


def test_unknown_name_names_the_nearest_and_all():
    error = unknown_name("configuration", "3d_fulres", ["3d_lowres", "2d", "3d_fullres"], hint="in the plans of X")
    assert isinstance(error, NotFoundError)
    assert str(error) == (
        "There is no configuration '3d_fulres'. Did you mean '3d_fullres'? Known: 2d, 3d_fullres, 3d_lowres. "
        "in the plans of X"
    )


def test_unknown_name_without_anything_near_or_known():
    assert "Did you mean" not in str(unknown_name("fold", "9", ["all"]))
    assert str(unknown_name("dataset", "101", [])) == "There is no dataset '101'. None exists yet."


def test_all_errors_are_longflow_errors_and_survive_the_way_back_from_a_worker():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {LongflowError, NotFoundError, DataError} < set(kinds)
    for kind in kinds:
        assert issubclass(kind, LongflowError)
        assert kind.__module__ == errors.__name__ and inspect.cleandoc(kind.__dict__["__doc__"] or "").endswith(".")
        again = pickle.loads(pickle.dumps(kind("what, where")))
        assert type(again) is kind and str(again) == "what, where"


def test_the_parts_of_a_file_error_survive_the_way_back_from_a_worker():
    made = errors.file_error("a.nii", "spacing", "0", "a number above 0", "Write it again.", "has no spacing")
    again = pickle.loads(pickle.dumps(made))
    assert str(again) == "a.nii has no spacing, expected a number above 0. Write it again."
    assert (again.field, again.found, again.expected, again.advice) == (
        "spacing", "0", "a number above 0", "Write it again.",
    )  # fmt: skip
