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

MADE = pytest.StashKey[Bundle]()


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
def paper_model() -> PreparedModel:
    """Return a network of which there is nothing but its description."""
    return PreparedModel(
        key="0123456789abcdef",
        folder="/caches/prepared/0123456789abcdef",
        files=("network.xml", "network.bin", "model.json"),
        name=DEFAULT_MODEL,
        engine="openvino",
        precision="f32",
        input_size=(224, 224),
        head="pooled",
        dimensions=1280,
        multiply_adds=400_000_000,
        weights_sha256="5" * 64,
        weights_source="imagenet",
        random_weights=False,
    )


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
def made(
    job: JobDescription, aws: Profile, request: pytest.FixtureRequest, tmp_path_factory
) -> Bundle:
    """Return the bundle of this checkout, made once, for tests that leave it as it is."""
    stash = request.config.stash
    if MADE not in stash:
        folder = tmp_path_factory.mktemp("made") / "bundle"
        stash[MADE] = make_bundle(folder, job, profile=aws)
    return stash[MADE]


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """Return a copy of the bundle, for a test to change."""
    shutil.copytree(made.folder, tmp_path / "bundle")
    return replace(made, folder=tmp_path / "bundle")
