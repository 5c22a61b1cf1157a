"""A training and its predictions, on the standalone cluster and MinIO."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel

from tests.support.trainings import ask, launch_training, split_folder
from toolkit import prediction
from toolkit.errors import JobError, RequestError
from toolkit.prediction import PredictRequest, predict
from toolkit.sparkdl import ImageSchema
from toolkit.sparkdl.image import imageIO
from toolkit.storage import Location
from toolkit.training import TrainRequest, train
from toolkit.trainings import TrainingFolder, find_training

__all__ = ["ask", "launch_training", "split_folder"]


@pytest.fixture(scope="module")
def training(launch_training, mixed_folder):
    """Return the record of one training that several tests look at."""
    return launch_training(mixed_folder, grid={"regParam": (0.01,), "maxIter": (1, 30)})


def test_every_image_is_trained_on_held_out_or_quarantined(training, bad_files):
    # Six labels of four images each: one of each is held out.
    assert training.counts == {"training": 18, "held_out": 6, "quarantined": len(bad_files)}
    assert len(training.labels) == 6
    assert np.array(training.confusion).sum(axis=1).tolist() == [1] * 6
    right = np.trace(training.confusion)
    assert training.accuracy == pytest.approx(right / 6)
    assert training.accuracy > 0.8


def test_all_combinations_are_tried_and_the_best_comes_first(training):
    tried = [candidate.params for candidate in training.candidates]
    assert len(tried) == 2
    assert {"regParam": 0.01, "maxIter": 1} in tried
    accuracies = [candidate.accuracy for candidate in training.candidates]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_record_is_kept_with_the_model(training, storage):
    folder = find_training(storage, training.training_id[:-2])
    assert folder == TrainingFolder(storage, training.training_id)
    kept = json.loads(storage.read(folder.file("train.json")))
    assert kept == json.loads(training.to_json())
    assert set(training.uris) == {"training", "model", "features", "quarantine"}


def test_the_model_is_a_pipeline_that_takes_files_and_structs_and_drops_what_it_cannot_read(
    spark, training, sample_files, bad_files
):
    model = PipelineModel.load(training.uris["model"])
    rows = [(file.parent.name, file.read_bytes()) for file in sample_files]
    rows += [(name, content) for name, content in bad_files.items()]
    files = spark.createDataFrame(rows, "label string, image binary").coalesce(2)
    predicted = model.transform(files).select("label", "predicted").collect()
    assert len(predicted) == len(sample_files)
    right = sum(row.label == row.predicted for row in predicted)
    assert right >= 0.9 * len(sample_files)

    root = sample_files[0].parent
    model.transform(ImageSchema.readImages(str(root))).createOrReplaceTempView("told")
    query = "SELECT predicted, count(*) AS n FROM told GROUP BY predicted ORDER BY n DESC"
    assert spark.sql(query).first().predicted == root.name


def test_held_out_images_that_cannot_be_read_are_told(launch_training, tmp_path, sample_files):
    for label, file in (("a", sample_files[0]), ("b", sample_files[4])):
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / "Training" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "Training" / label / name)
    (tmp_path / "Test" / "a").mkdir(parents=True)
    (tmp_path / "Test" / "a" / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(JobError, match="no held-out images"):
        launch_training(tmp_path)


def test_files_folders_and_objects_are_told_with_probabilities(
    ask, training, mixed_folder, storage, sample_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(prediction, "_BYTES_AT_ONCE", 1)  # each file of this machine by itself
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    single = f"{training.images}/{sample_files[0].parent.name}/{sample_files[0].name}"
    folder = mixed_folder / sample_files[4].parent.name
    told = ask(sample_files[0], bad, single, folder, trained=training.training_id, top=2)
    by_origin = {each.origin: each for each in told}
    assert len(told) == 3 + 4
    for origin, label in ((str(sample_files[0]), sample_files[0]), (single, sample_files[0])):
        labels = by_origin[origin].labels
        assert labels[0][0] == label.parent.name
        assert [len(labels), sorted(p for _, p in labels)] == [2, [p for _, p in labels][::-1]]
        assert 0 < labels[1][1] < labels[0][1] <= 1
    assert by_origin[str(bad)].labels == ()
    assert by_origin[str(bad)].reason.startswith("not an image")
    folder_labels = [each.labels[0][0] for each in told if f"/{folder.name}/" in each.origin]
    assert folder_labels.count(folder.name) >= 3


def test_without_a_training_the_classes_are_those_of_imagenet(ask, sample_files):
    (granny,) = [file for file in sample_files if "Granny" in file.parent.name][:1]
    (told,) = ask(granny)
    assert told.labels[0][0] == "Granny_Smith"
    assert len(told.labels) == 3


def test_the_commands_train_and_predict_and_never_train_on_the_held_out_folder(
    toolkit_on_spark, split_folder, sample_files
):
    trained = toolkit_on_spark(
        "train", str(split_folder), "--grid", "regParam=0.01", "--folds", "2", "--json"
    )
    assert trained.returncode == 0, trained.stderr
    record = json.loads(trained.stdout)
    assert record["counts"] == {"training": 8, "held_out": 5, "quarantined": 0}
    assert record["held_out"] == f"5 images in {record['images']}/Test/"
    # Each of its images stands under the other label: had it been trained on, some were right.
    # A label that only held-out images have is told wrong.
    assert record["labels"] == ["one", "other", "stranger"]
    assert record["confusion"][:2] == [[0, 2, 0], [2, 0, 0]]
    assert record["confusion"][2] in ([1, 0, 0], [0, 1, 0])
    assert record["accuracy"] == 0
    stranger = {"label": "stranger", "images": 1, "precision": None, "recall": 0.0}
    assert record["scores"][2] == stranger

    told = toolkit_on_spark("predict", str(sample_files[0]), "--trained", record["training_id"])
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"{sample_files[0]}: one ")
    assert "Images to classify: 1" in told.stderr
    bad = toolkit_on_spark("predict", str(Path(__file__)), "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)[0]["labels"] == []


def test_arrays_are_predicted_as_structs(spark, training):
    model = PipelineModel.load(training.uris["model"])
    struct = imageIO.imageArrayToStruct(np.full((100, 100, 3), 250, np.uint8), "white")
    frame = spark.createDataFrame([(struct,)], ImageSchema.imageSchema)
    assert model.transform(frame).first().predicted in training.labels


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
