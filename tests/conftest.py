"""How the tests run: markers from folders, workers, and the end of the stack they share."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from localstack.home import state_folder
from tests.support.stack_home import STACK_HOME, empty_buckets, end_stack, settings_of_tests

# Some machines forbid bytecode. Here every process would compile all it imports: the workers of
# pytest and of Spark, and every command that a test starts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

FIXTURES = ("stack", "cli", "images", "moto")
"""Modules of `tests.support` whose fixtures all tests may use."""

TIERS = ("spark", "tensorflow", "release", "e2e", "aws", "stack", "unit")
"""Folders of tests, and their markers, in the order in which they run."""

KEPT_STACK = state_folder() / "tests"
"""Home of the stack that `--reuse-stack` keeps."""

LOCK = pytest.StashKey[IO[bytes]]()
"""The lock file that a pytest holds while it uses the kept stack."""

GROUPS = {"spark": "spark", "tensorflow": "spark", "aws": "aws"}
"""Folders whose tests share something costly -> the group of it, which one worker runs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reuse-stack",
        action="store_true",
        help="keep the stack running for the next pytest with this option",
    )
    parser.addoption("--end-stack", action="store_true", help="end the kept stack after the tests")


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return 2 to 4 workers for whole folders; run single files here, for debuggers."""
    if any(argument.partition("::")[0].endswith(".py") for argument in config.args):
        return 0
    return max(2, min(4, os.cpu_count() or 2))


def pytest_configure(config: pytest.Config) -> None:
    # With moto and botocore in the process, a full collection looks through 700,000 objects: half a
    # second each time, a quarter of the tests of AWS by Python's own threshold.
    gc.set_threshold(50_000)
    # Clean up when ended by SIGTERM as when ended by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Let Ctrl-C reach what tests start: a shell's background jobs begin with it ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for tier in TIERS:
        config.addinivalue_line("markers", f"{tier}: in the folder tests/{tier}")
    if _is_worker(config):
        config.stash[STACK_HOME] = Path(config.workerinput["stack_home"])
    elif config.option.reuse_stack:
        config.stash[STACK_HOME] = KEPT_STACK
    else:
        own = tempfile.mkdtemp(prefix="toolkit-stack-")
        config.add_cleanup(partial(shutil.rmtree, own, ignore_errors=True))
        config.stash[STACK_HOME] = Path(own)
    options = config.option
    only_shows = options.collectonly or options.showfixtures or options.show_fixtures_per_test
    if _is_worker(config) or only_shows or not options.numprocesses:
        for name in FIXTURES:  # a controller of workers has no use for them, and they take a second
            config.pluginmanager.import_plugin(f"tests.support.{name}")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Empty the buckets of a stack that an earlier run has kept, before workers start."""
    config = session.config
    if config.option.reuse_stack and not _is_worker(config):
        KEPT_STACK.mkdir(parents=True, exist_ok=True)
        config.stash[LOCK] = (KEPT_STACK / "in-use.lock").open("wb")
        try:
            fcntl.flock(config.stash[LOCK], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise pytest.UsageError(
                "Another pytest uses the kept stack. Wait for it, or leave out --reuse-stack."
            ) from None
        empty_buckets(settings_of_tests(KEPT_STACK))


def pytest_configure_node(node) -> None:
    node.workerinput["stack_home"] = str(node.config.stash[STACK_HOME])


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in this hook, too
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folders, and run them tier by tier."""

    def tier(item: pytest.Item) -> str:
        return item.path.relative_to(config.rootpath / "tests").parts[0]

    items.sort(key=lambda item: TIERS.index(tier(item)))
    for item in items:
        item.add_marker(tier(item))
        if group := GROUPS.get(tier(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give out groups as a whole, and other tests file by file."""
    from xdist.scheduler import LoadGroupScheduling

    class GroupsAndFiles(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).partition("::")[0]

    return GroupsAndFiles(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the stack after all workers have gone, and fail if anything of it is left."""
    config = session.config
    if _is_worker(config):
        return
    homes = [] if config.option.reuse_stack else [config.stash[STACK_HOME]]
    if config.option.end_stack:
        homes.append(KEPT_STACK)
    for home in homes:
        if left := end_stack(home):
            config.get_terminal_writer().line(f"\nThe stack left processes: {left}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
