"""Trainings and predictions in the shared session."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from toolkit.prediction import PredictRequest, predict
from toolkit.training import TrainRequest, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.prediction import ImagePrediction
    from toolkit.profiles import Profile
    from toolkit.trainings import TrainingRecord

GRID = {"regParam": (0.01,)}


@pytest.fixture(scope="module")
def launch_training(
    spark: SparkSession, profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TrainingRecord]:
    """Return a function that trains in the shared session."""
    log = tmp_path_factory.mktemp("train") / "driver.log"

    def call(images: object, **options: object) -> TrainingRecord:
        request = TrainRequest(images=str(images), **{"grid": GRID, "folds": 2, **options})
        return train(request, profile, log=log, spark=spark)

    return call


@pytest.fixture
def ask(
    spark: SparkSession, profile: Profile, tmp_path: Path
) -> Callable[..., list[ImagePrediction]]:
    """Return a function that predicts in the shared session."""

    def call(*images: object, **options: object) -> list[ImagePrediction]:
        request = PredictRequest(images=[str(image) for image in images], **options)
        return list(predict(request, profile, log=tmp_path / "driver.log", spark=spark))

    return call


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory: pytest.TempPathFactory, sample_files: list[Path]) -> Path:
    """Return a folder of Training/ and Test/, whose labels are crossed in Test/, with a third."""
    root = tmp_path_factory.mktemp("split") / "two fruits"
    first, second, third = sample_files[:4], sample_files[4:8], sample_files[8:9]
    training = {"one": first, "other": second}
    test = {"one": second[:2], "other": first[:2], "stranger": third}
    for part, folders in (("Training", training), ("Test", test)):
        for label, files in folders.items():
            (root / part / label).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root / part / label)
    return root
