"""Spark for a notebook or a script: the session of a profile, for as long as the process runs.

>>> from toolkit.notebook import start_spark
>>> spark = start_spark()
"""

from __future__ import annotations

import atexit
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cli.output import say
from toolkit.cli.place import image_source, local_path, open_place
from toolkit.errors import RequestError
from toolkit.images.listing import mirror_folder
from toolkit.session import spark_session
from toolkit.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.profiles import Profile

__all__ = ["import_images", "start_spark", "stop_spark"]


@dataclass(frozen=True)
class _Running:
    """A started session; closing `ending` stops it and ends its JVM."""

    profile: Profile
    session: SparkSession
    ending: ExitStack


_running: list[_Running] = []  # one at the most


def start_spark(profile: str | None = None) -> SparkSession:
    """Start Spark on a profile, and the local stack first where the profile needs it.

    What goes on is said on stderr. The session runs until the process ends or `stop_spark` is
    called, and holds its cores of the cluster as long: another application waits for them.

    Parameters
    ----------
    profile
        Name of the profile; None: ``local``, or the one that is running.

    Returns
    -------
    SparkSession
        A second call returns the same one.

    Raises
    ------
    RequestError
        There is no such profile or it is wrong; or a session runs that is another profile's, or
        that this function did not start.
    JobError
        The local stack or Spark does not start.
    """
    current = _current()
    if current is None:
        current = _start(profile)
    elif profile not in {None, current.profile.name}:
        raise RequestError(
            f"This process has a session of the profile {current.profile.name!r}, not {profile!r}.",
            remedy="Call toolkit.notebook.stop_spark() first.",
        )
    return current.session


def stop_spark() -> None:
    """Stop the session that `start_spark` started, if there is one; the local stack stays up."""
    while _running:
        _running.pop().ending.close()


def import_images(folder: str | Path | None = None, *, name: str | None = None) -> str:
    """Mirror a folder of images to ``images/NAME`` of the bucket, uploading only what changed.

    Does what ``toolkit images import`` does, with the store of the session.

    Parameters
    ----------
    folder
        Folder on this machine; None: the sample images of the checkout.
    name
        Name in the bucket; None: the folder's.

    Returns
    -------
    str
        Where they are now, ``s3a://bucket/images/NAME``.

    Raises
    ------
    RequestError
        No session runs; or the folder is not there, or holds no images.
    JobError
        The store can't be reached, or refuses.
    """
    current = _current()
    if current is None:
        raise RequestError("No session runs.", remedy="Call toolkit.notebook.start_spark() first.")
    path = local_path(image_source(None) if folder is None else str(folder))
    storage = Storage(current.profile.s3)
    target = storage.location("images", name or path.name)
    listing, mirrored = mirror_folder(path, storage, location=target)
    say(f"{len(listing)} images in {target.uri}, {mirrored.uploaded} of them uploaded now")
    return target.uri


def _current() -> _Running | None:
    """Return the session that runs; what is left of one that the user has stopped goes."""
    # PySpark has no public way to ask whether a session was stopped.
    if _running and _running[0].session.sparkContext._jsc is None:  # noqa: SLF001
        stop_spark()
    return _running[0] if _running else None


def _start(profile: str | None) -> _Running:
    from pyspark import SparkContext

    # A process has one context. Starting a second would fail, and end the JVM of the first.
    if SparkContext._active_spark_context is not None:  # noqa: SLF001
        raise RequestError(
            "This process has a Spark session that toolkit.notebook did not start.",
            remedy="Stop it first: spark.stop().",
        )
    place = open_place(profile, say=say)
    ready = _with_full_compiler(place.profile)
    with ExitStack() as exits:
        session = exits.enter_context(
            spark_session(ready, app="toolkit notebook", log=place.spark_log)
        )
        running = _Running(ready, session, exits.pop_all())
    _running.append(running)
    return running


def _with_full_compiler(profile: Profile) -> Profile:
    """Let the JVM of the driver compile its best, as a run does not: Spark ML computes in it.

    Measured on Spark's PCA, in processor time of the JVM: 19 s become 15 s with 1,280 features,
    62 s become 41 s with 2,048.
    """
    options = f"-XX:TieredStopAtLevel=4 {profile.spark.driver_java_options}"
    spark = profile.spark.model_copy(update={"driver_java_options": options})
    return profile.model_copy(update={"spark": spark})


@atexit.register
def _stop_at_exit() -> None:
    # Since Python 3.12 no thread can begin now, of which `toolkit.session` has one to stop sooner:
    # Spark is stopped all the same, in a second.
    with suppress(RuntimeError):
        stop_spark()
