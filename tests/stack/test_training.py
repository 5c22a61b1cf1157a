"""Trainings and predictions that end before a classifier is fitted; tests/e2e has the others."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.trainings import ask, launch_training, split_folder
from toolkit.errors import JobError, RequestError
from toolkit.prediction import PredictRequest, predict
from toolkit.storage import Location
from toolkit.training import TrainRequest, train
from toolkit.trainings import TrainingFolder, find_training

__all__ = ["ask", "launch_training", "split_folder"]


def test_a_training_needs_two_labels(launch_training, tmp_path, sample_files):
    (tmp_path / "one").mkdir()
    shutil.copy(sample_files[0], tmp_path / "one")
    with pytest.raises(RequestError, match="have 1 labels"):
        launch_training(tmp_path)


def test_labels_with_fewer_images_than_folds_are_refused(launch_training, split_folder):
    with pytest.raises(RequestError, match="No label has 5 images to train on"):
        launch_training(split_folder, folds=5)


def test_int8_is_refused_before_anything_starts(profile, storage, split_folder, tmp_path):
    before = storage.folders(storage.location("trained"))
    request = TrainRequest(images=str(split_folder), precision="int8")
    with pytest.raises(RequestError, match="int8 is not for this"):
        train(request, profile, log=tmp_path / "log")  # with no session: none is started
    with pytest.raises(RequestError, match="int8 is not for this"):
        list(predict(PredictRequest(images=[__file__], precision="int8"), profile, log=tmp_path))
    assert storage.folders(storage.location("trained")) == before


def test_a_file_that_cannot_be_read_is_named(ask):
    with pytest.raises(RequestError, match="/proc/self/mem can't be read: Input/output error"):
        ask("/proc/self/mem")


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("no/such/file.jpg", {}, "no file or folder"),
        ("s3a://BUCKET/none/", {}, "no images"),
        (__file__, {"trained": "2000"}, "fits no trainings"),
        (__file__, {"model": "AlexNet"}, "no model named"),
        (__file__, {"weights": "none.h5"}, "no weights file"),
        ("s3a://BUCKET", {"trained": "2000"}, "fits no trainings"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_starts(
    ask, storage, images, options, message
):
    with pytest.raises(RequestError, match=message):
        ask(images.replace("BUCKET", storage.name), **options)


@pytest.mark.parametrize("record", [None, b"{}", b'{"status": "running"}', b'{"status": "failed"}'])
def test_a_training_that_has_not_finished_is_none(storage, record):
    unfinished = TrainingFolder(storage, "unfinished-1")
    storage.write(unfinished.file("features") / "part-0000000.parquet", b"")
    if record is not None:
        storage.write(unfinished.file("train.json"), record)
    try:
        with pytest.raises(RequestError, match="fits no trainings"):
            find_training(storage, "unfinished-1")
    finally:
        storage.delete_all(Location(storage.name, "trained/unfinished-1"))


def test_a_training_that_fails_leaves_a_record_that_says_why(
    launch_training, storage, tmp_path, bad_files
):
    for label in ("one", "other"):
        (tmp_path / "all bad" / label).mkdir(parents=True)
        for name, content in bad_files.items():
            (tmp_path / "all bad" / label / name).write_bytes(content)
    before = set(storage.folders(storage.location("trained")))
    with pytest.raises(JobError, match="could be read") as failure:
        launch_training(tmp_path / "all bad")
    (failed,) = set(storage.folders(storage.location("trained"))) - before
    record = json.loads(storage.read(TrainingFolder(storage, failed).file("train.json")))
    assert (record["status"], record["error"]) == ("failed", failure.value.message)
