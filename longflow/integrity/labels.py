"""The integrity of labels: what can be learnt from them, and what cannot."""

from collections.abc import Mapping

from longflow.data.dataset import DatasetDescription
from longflow.errors import ConfigurationError, first_few
from longflow.integrity.problems import Problem, error, note, warning

FILE = "dataset.json"


def description_problems(description: DatasetDescription) -> list[Problem]:
    """Whether nnU-Net's label handling can work with ``labels`` and ``regions_class_order``."""
    from longflow.data.labels import label_manager, structures

    regions = structures(description.labels)
    if not regions:
        return []  # pretraining needs none
    order = description.regions_class_order
    if any(len(values) > 1 for values in regions.values()) and len(order) != len(regions):
        return [
            error(
                FILE,
                "regions_class_order",
                str(order) if order else "missing",
                f"{len(regions)} label values, one for each of {', '.join(regions)}",
                "Where a label is a list (a region), it says which value each of them is written with, in their order; "
                "later ones are written over earlier ones. As in nnU-Net: the largest region first.",
            )
        ]
    try:
        label_manager(description.labels, order)
    except ConfigurationError as problem:
        return [
            error(
                FILE,
                "labels",
                str(dict(description.labels))[:80],
                "'background' with 0, then 1, 2, ...; 'ignore' (if any) the highest",
                f"Correct the labels. {str(problem).splitlines()[0][-120:]}",
            )
        ]
    return []


#: subjects with labels that a fold needs: one to train on, one to validate on
FEWEST_LABELLED = 2


def labelled_scans(cases: Mapping[str, bool], subjects: Mapping[str, str], folder: str) -> list[Problem]:
    """How many of the training scans have a label. Neither few nor none is wrong: the others serve pretraining.

    :param cases: of each case, whether it has one. :param subjects: of each case. :param folder: theirs, for people.
    """
    without = [case for case, is_labelled in cases.items() if not is_labelled]
    labelled = len(cases) - len(without)
    having = {subjects[case] for case, is_labelled in cases.items() if is_labelled}
    if not cases or (not without and len(having) >= FEWEST_LABELLED):
        return []
    if not labelled:
        advice = (
            "Pretraining (longflow_train with -m spatiotemporal) needs none; before it can be trained to segment, at "
            f"least {FEWEST_LABELLED} subjects must have labels: one to train on, one to validate on."
        )
        return [note(folder, "labels", f"none of {len(cases)} scans has one", "label images of some scans", advice)]
    if len(having) < FEWEST_LABELLED:
        return [
            warning(
                folder,
                "labels",
                f"{labelled} of {len(cases)} scans have one, all of subject {next(iter(having))}",
                f"labels of {FEWEST_LABELLED} subjects at least",
                "It can be pretrained, but not yet trained to segment: a fold needs one subject with labels to train "
                "on and another to validate on.",
            )
        ]
    return [
        note(
            folder,
            "labels",
            f"{labelled} of {len(cases)} scans have one ({first_few(without, most=2)} without)",
            "a label image for each scan, or for some",
            "Segmentation is learnt from those; the others serve pretraining and consistency.",
        )
    ]


def single_scans(counts: Mapping[str, int], table: str) -> list[Problem]:
    """Subjects with one scan, in one line.

    :param counts: scans of each subject.
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
            "They are used for supervision, and left out of pairs.",
        )
    ]


def absent_structures(description: DatasetDescription, values: set[int]) -> list[Problem]:
    """Structures of dataset.json that are in no label image of the training scans.

    A warning, not an error: a dataset.json is shared by many selections of scans, and to take a structure out of it all
    label images would have to be renumbered. But its volume will be reported as 0, and that is not a finding.

    :param values: label values that occur.
    """
    from longflow.data.labels import structures

    return [
        warning(
            FILE,
            f"labels.{name}",
            f"{', '.join(map(str, region))} in no label image of the training scans",
            "a structure that occurs",
            "It cannot be learnt: predictions will never hold it, and its volume will be 0. Is its number right?",
        )
        for name, region in structures(description.labels).items()
        if not values & set(region)
    ]


def unused_labels(description: DatasetDescription, values: set[int]) -> list[Problem]:
    """Labels of dataset.json in no label image, where nothing is segmented. :param values: those that occur."""
    unused = sorted(description.label_values - values - {0})
    if not unused:
        return []
    return [
        warning(
            FILE,
            "labels",
            f"{', '.join(map(str, unused))} in no label image",
            "labels that occur",
            "Nothing can be learnt about a label that never occurs; is the number right?",
        )
    ]
