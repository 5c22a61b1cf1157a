"""Rehearsals with the real boot script that go wrong, or are interrupted in the midst of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.real_rehearsals import (
    aws,
    bundle,
    here,
    job,
    no_promotions_of_others,
    source,
)
from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.rehearsal import REHEARSALS, rehearse
from toolkit.cloud.status import PromotionFolder
from toolkit.errors import JobError
from toolkit.progress import Silent
from toolkit.runs import Owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from localstack.instance import Instance
    from toolkit.cloud.aws.policy import Policy
    from toolkit.cloud.rehearsal import Rehearsal

__all__ = ["aws", "bundle", "here", "job", "no_promotions_of_others", "source"]


def test_failure_of_the_boot_script_is_told_with_the_end_of_its_log(
    bundle, job, source, storage, here
):
    def without_its_bundle(script: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        return here(script.replace(bundle.identity, "0" * 64), policy=policy)

    with pytest.raises(JobError) as failed:
        rehearsed(bundle, job, source, storage=storage, stand_in=without_its_bundle)
    reason = "The rehearsal failed: The node ended with exit code 1 while fetching the bundle."
    assert failed.value.message.startswith(reason)
    assert "  | " in failed.value.message
    assert "manifest.json: no answer but 404" in failed.value.message
    (machine,) = here.started
    assert str(machine.log) in failed.value.remedy
    assert machine.log.is_file()


def test_boot_script_that_ends_without_a_word_is_not_waited_for(bundle, job, source, storage, here):
    def silent(_: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        log = '"$TOOLKIT_REHEARSAL"/var/log/fruits-toolkit.log'
        script = f"#!/bin/bash\necho quite broken >{log}\nexit 7\n"
        return here(script, policy=policy)

    began = time.monotonic()
    with pytest.raises(JobError, match="script ended with exit code 7") as failed:
        rehearsed(bundle, job, source, storage=storage, stand_in=silent)
    assert "\n  | quite broken" in failed.value.message
    assert time.monotonic() - began < 60


def test_interrupt_ends_the_node_and_removes_what_it_had(bundle, job, source, storage, here):
    def interrupt(line: str) -> None:
        if "[1/5]" in line:  # in the midst of bootstrap.sh
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(bundle, job, source, storage=storage, stand_in=here, on_line=interrupt)
    assert here.processes() == []
    assert not any(storage.objects(storage.location(REHEARSALS)))
    assert not any(storage.objects(storage.location(PROMOTIONS)))


def test_rehearsals_of_dead_processes_are_removed_and_those_that_go_on_are_not(
    bundle, job, source, storage, here
):
    gone = replace(Owner.this_process(), started=1.0)
    for name, owner in {"gone": gone, "going-on": Owner.this_process()}.items():
        place = storage.location(REHEARSALS, name)
        storage.write(place / "owner.json", json.dumps(asdict(owner)).encode())
        storage.write(place / "images" / "1.jpg", b"image")
        storage.write(PromotionFolder(storage, name).file("status.json"), b"{}")
    storage.write(storage.location(REHEARSALS, "half", "images", "1.jpg"), b"image")

    def none(script: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(bundle, job, source, storage=storage, stand_in=none)
    assert storage.folders(storage.location(REHEARSALS)) == ["going-on"]
    assert storage.folders(storage.location(PROMOTIONS)) == ["going-on"]
    storage.delete_all(storage.location(REHEARSALS))
    storage.delete_all(storage.location(PROMOTIONS))


def rehearsed(*what: Any, on_line: Callable[[str], None] = print, **how: Any) -> Rehearsal:
    return rehearse(*what, **how, progress=Silent(), on_line=on_line, images=4)
