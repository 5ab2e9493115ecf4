"""What a run takes on the disk: each model and each corpus once, and what is written while trainings go on."""

from __future__ import annotations

import dataclasses

from runner.schedule.disk import Disk
from tests.runner.test_costs import CELL


def trained(**changes):
    return dataclasses.replace(CELL, task="language-modelling", task_settings={"corpus": "pg19:20MB"}, **changes)


def test_models_and_texts_count_once_and_the_largest_training_for_each_worker():
    disk = Disk()
    for cell, numbers in ((trained(), 2**20), (trained(seed=7), 2**20), (trained(seed=7), 2**20)):
        disk.add(cell, numbers)
    assert disk.told(workers=3) == [
        "about 8.0 MiB for models, 72.0 MiB for trainings in progress, 38.1 MiB for texts on the disk"
    ]


def test_a_trial_keeps_no_model_and_questions_after_the_same_text_keep_one():
    disk, text = Disk(), {"name": "language-modelling", "corpus": "pg19:20MB"}
    disk.add(dataclasses.replace(trained(), kind="trial"), 2**20)
    assert not disk.models and disk.largest
    for depth in (0.25, 0.5):
        asked = {"train_on": text, "length": 64, "depths": (depth,)}
        disk.add(dataclasses.replace(CELL, task="needle", task_settings=asked), 2**20)
    assert len(disk.models) == 1


def test_where_nothing_is_kept_and_nothing_fetched_nothing_is_said():
    disk = Disk()
    disk.add(dataclasses.replace(CELL, task="language-modelling", task_settings={}), None)
    assert disk.told(workers=1) == []
