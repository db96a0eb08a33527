import logging

from longflow.tasks.forecast.folds import fold_warning, report_folds


def test_one_message_for_all_forecasts(caplog):
    with caplog.at_level(logging.WARNING):
        report_folds([("s1", 0.0), ("s2", 0.0004), ("s3", 0.02), ("s3", 0.001)])
    (record,) = caplog.records
    assert "folds in 3 of 4 forecasts, at worst in 2 % of the voxels (s3)" in record.message
    assert "longflow_register" in record.message


def test_nothing_where_nothing_folds(caplog):
    report_folds([])
    report_folds([("s1", 0.0)])
    assert not caplog.records


def test_the_warning_of_a_forecast():
    assert fold_warning(0.0) == []
    (warning,) = fold_warning(0.00123)
    assert "folds in 0.12 % of the voxels" in warning
