"""Where stacks live, and that those of two checkouts do not meet."""

from pathlib import Path

import pytest

from localstack import LocalStackError, StackSettings
from localstack.home import stack_name


def test_two_checkouts_of_the_same_name_have_different_stacks(tmp_path):
    names = {stack_name(tmp_path / owner / "fruits") for owner in ("ann", "bob")}
    assert len(names) == 2
    assert all(name.startswith("fruits-") and len(name) == len("fruits-") + 8 for name in names)


def test_a_checkout_keeps_its_stack(tmp_path):
    assert stack_name(tmp_path / "fruits") == stack_name(tmp_path / "." / "fruits")


def test_a_folder_with_odd_characters_still_names_a_stack():
    name = stack_name(Path("/home/me/Früchte & Co"))
    assert StackSettings(name=name).name == name


def test_environment_moves_state_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    settings = StackSettings(name="mine")
    assert settings.home == tmp_path / "state" / "mine"
    assert settings.cache == tmp_path / "cache"


@pytest.mark.parametrize("name", ["", "..", "../other", "/", "a/b", ".hidden"])
def test_a_name_that_leads_out_of_the_root_is_refused(name):
    with pytest.raises(LocalStackError, match="cannot name a stack"):
        StackSettings(name=name)


@pytest.mark.parametrize("size", [{"cores": 0}, {"memory_mib": 100}])
def test_a_worker_too_small_to_live_is_refused(size):
    with pytest.raises(LocalStackError, match="A Spark worker cannot"):
        StackSettings(**size)
