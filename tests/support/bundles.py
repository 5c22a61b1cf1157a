"""What tests of a promotion share: the account, the server in front of it, a job, a bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import CHECKOUT
from tests.support.aws_proxy import leading_through, opened
from toolkit.cloud.bundle import Bundle, make_bundle
from toolkit.cloud.job import JobDescription
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, PreparedModel, model_spec, prepare, resolve_weights
from toolkit.profiles import Profile, load_profile

if TYPE_CHECKING:
    from pathlib import Path

BUILT_FROM = (
    *("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh"),
    *("README.md", "LICENSE", ".gitignore"),
)


@pytest.fixture
def account(moto):
    return moto.account()


@pytest.fixture
def direct(moto):
    """Return the account past the server in front of it, for whatever somebody else may do."""
    return opened(moto.account())


@pytest.fixture
def front(moto, direct):
    with leading_through(moto) as server:
        yield server


@pytest.fixture(scope="session")
def model() -> PreparedModel:
    """Return the default model out of the user's cache."""
    spec = model_spec(DEFAULT_MODEL)
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    return prepare(spec, weights, cache=cache_folder())


@pytest.fixture(scope="session")
def aws() -> Profile:
    return load_profile("aws", options={"s3": {"region": "eu-west-3"}})


@pytest.fixture(scope="session")
def job(model: PreparedModel, aws: Profile) -> JobDescription:
    images = "s3a://fruits/images/sample_images"
    return JobDescription.of(model, aws, images=images, weights="imagenet", limit=24)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what a bundle is made from, for a test to change."""
    copy = tmp_path / "my checkout"
    shutil.copytree(
        CHECKOUT / "toolkit", copy / "toolkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in BUILT_FROM:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(CHECKOUT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def made(job: JobDescription, aws: Profile, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of this checkout, for tests that leave it as it is."""
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle", job, profile=aws)


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """Return a copy of the bundle, for a test to change."""
    shutil.copytree(made.folder, tmp_path / "bundle")
    return replace(made, folder=tmp_path / "bundle")
