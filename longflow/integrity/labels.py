"""The integrity of labels: whether a task that uses labels can learn from them."""

from collections.abc import Mapping

from longflow.data.dataset import DatasetDescription
from longflow.errors import ConfigurationError, first_few
from longflow.integrity.problems import DATASET_JSON, Problem, error, note, warning


def description_problems(description: DatasetDescription) -> list[Problem]:
    """Check that nnU-Net's label handling accepts ``labels`` and ``regions_class_order``.

    :param description: dataset.json.
    :returns: at most one problem.
    """
    from longflow.data.labels import label_manager, structures

    regions = structures(description.labels)
    if not regions:
        return []  # pretraining needs none
    order = description.regions_class_order
    if any(len(values) > 1 for values in regions.values()) and len(order) != len(regions):
        return [
            error(
                DATASET_JSON,
                "regions_class_order",
                str(order) if order else "missing",
                f"{len(regions)} label values, one for each of {', '.join(regions)}",
                "A label that is a list is a region. regions_class_order gives, in the order of the labels, the value "
                "that each region is written with. Later regions overwrite earlier ones, so as in nnU-Net, name the "
                "largest region first.",
            )
        ]
    try:
        label_manager(description.labels, order)
    except ConfigurationError as problem:
        return [
            error(
                DATASET_JSON,
                "labels",
                str(dict(description.labels))[:80],
                "'background' with 0, then 1, 2, ...; 'ignore' (if any) the highest",
                f"Correct the labels. {str(problem).splitlines()[0][-120:]}",
            )
        ]
    return []


#: fewest subjects with labels: a fold needs one to train on and one to validate on
FEWEST_LABELLED = 2


def labelled_scans(cases: Mapping[str, bool], subjects: Mapping[str, str], folder: str) -> list[Problem]:
    """Report how many training scans have a label. Few or none are no error: the others serve pretraining.

    :param cases: for each case, whether it has a label.
    :param subjects: subject of each case.
    :param folder: folder of the labels in messages.
    :returns: at most one problem.
    """
    without = [case for case, is_labelled in cases.items() if not is_labelled]
    labelled = len(cases) - len(without)
    having = {subjects[case] for case, is_labelled in cases.items() if is_labelled}
    if not cases or (not without and len(having) >= FEWEST_LABELLED):
        return []
    if not labelled:
        advice = (
            "Pretraining (longflow_train with -m spatiotemporal) needs no labels. For training with labels, at least "
            f"{FEWEST_LABELLED} subjects must have labels: one to train on, one to validate on."
        )
        return [note(folder, "labels", f"none of {len(cases)} scans has one", "label images of some scans", advice)]
    if len(having) < FEWEST_LABELLED:
        return [
            warning(
                folder,
                "labels",
                f"{labelled} of {len(cases)} scans have one, all of subject {next(iter(having))}",
                f"labels of {FEWEST_LABELLED} subjects at least",
                "Pretraining is possible, training with labels is not yet: a fold needs one subject with labels to "
                "train on and another to validate on.",
            )
        ]
    return [
        note(
            folder,
            "labels",
            f"{labelled} of {len(cases)} scans have one ({first_few(without, most=2)} without)",
            "a label image for each scan, or for some",
            "Labelled scans are used for supervision; the others serve pretraining and consistency.",
        )
    ]


def single_scans(counts: Mapping[str, int], table: str) -> list[Problem]:
    """Report the subjects with one scan, in one line.

    :param counts: number of scans of each subject.
    :param table: path of the table in messages.
    :returns: at most one problem.
    """
    single = [subject for subject, scans in sorted(counts.items()) if scans == 1]
    if not single:
        return []
    return [
        note(
            table,
            "subjects",
            f"{len(single)} of {len(counts)} have one scan ({first_few(single, most=2)})",
            "any number of scans",
            "They are used for supervision and excluded from pairs.",
        )
    ]


def absent_structures(description: DatasetDescription, values: set[int]) -> list[Problem]:
    """Find structures of dataset.json that are in no label image of the training scans.

    This is a warning: one dataset.json may serve several selections of scans, and removing a structure would mean to
    renumber all label images. The user must know, since its volume will be reported as 0, which is no finding.

    :param description: dataset.json.
    :param values: label values that occur.
    :returns: one problem for each such structure.
    """
    from longflow.data.labels import structures

    return [
        warning(
            DATASET_JSON,
            f"labels.{name}",
            f"{', '.join(map(str, region))} in no label image of the training scans",
            "a structure that occurs",
            "It cannot be learned: predictions will never contain it, and its volume will be 0. Check its number.",
        )
        for name, region in structures(description.labels).items()
        if not values & set(region)
    ]


def unused_labels(description: DatasetDescription, values: set[int]) -> list[Problem]:
    """Find labels of dataset.json that are in no label image, for a task that does not use labels.

    :param description: dataset.json.
    :param values: label values that occur.
    :returns: at most one problem.
    """
    unused = sorted(description.label_values - values - {0})
    if not unused:
        return []
    return [
        warning(
            DATASET_JSON,
            "labels",
            f"{', '.join(map(str, unused))} in no label image",
            "labels that occur",
            "Nothing can be learned about a label that never occurs. Check its number.",
        )
    ]
