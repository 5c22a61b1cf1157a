"""Where a command works: the profile, with the local stack under it where it needs one.

The only module of the toolkit that knows the local stack; a wheel-only install has none.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from toolkit.errors import JobError, RequestError
from toolkit.folders import cache_folder, state_folder
from toolkit.profiles import PORT_OPTIONS, Profile, S3Settings, SparkSettings, load_profile
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localstack import StackSettings, StackState
    from toolkit.cloud.aws.policy import Policy
    from toolkit.cloud.rehearsal import Machine, StandIn

__all__ = [
    "Place",
    "image_source",
    "local_path",
    "local_stack",
    "open_place",
    "stack_errors",
    "stack_settings",
    "stand_in",
    "storage_of",
]

_SAMPLE_IMAGES = Path(__file__).parents[2] / "sample_images"


@dataclass(frozen=True)
class Place:
    """A profile that is ready to run on.

    Parameters
    ----------
    profile
        With the addresses of the local stack filled in.
    spark_log
        File for Spark's own messages.
    pages
        Name and URL of the web pages worth a look.
    """

    profile: Profile
    spark_log: Path
    pages: tuple[tuple[str, str], ...]


def local_stack() -> Any:
    """Return the package of the local stack.

    Raises
    ------
    RequestError
        It is not there: the toolkit was installed from a wheel, without a checkout. (LocalStack,
        the product, owns the import name on other machines.)
    """
    try:
        import localstack
    except ImportError:
        localstack = None  # type: ignore[assignment]
    if not hasattr(localstack, "StackSettings"):
        raise RequestError(
            "The local stack is part of a checkout of fruits-toolkit, and this is a wheel.",
            remedy="Run the command in a checkout, or name a profile with its own S3 and Spark.",
        )
    return localstack


@contextmanager
def stack_errors() -> Iterator[None]:
    """Turn the local stack's errors into the toolkit's."""
    stack = local_stack()
    try:
        yield
    except (stack.ServiceError, stack.BuildError) as exc:
        raise JobError(exc.message, remedy=exc.remedy) from exc
    except stack.LocalStackError as exc:
        raise RequestError(exc.message, remedy=exc.remedy) from exc


def stack_settings(profile: Profile) -> StackSettings:
    """Translate a profile into what the local stack is to be."""
    ports = {name: getattr(profile.stack, name) for name in PORT_OPTIONS}
    with stack_errors():
        settings: StackSettings = local_stack().StackSettings(
            bucket=profile.s3.bucket,
            external_s3=not profile.s3.is_stack,
            cores=profile.stack.cores,
            **ports,
        )
    return settings


def open_place(name: str | None, *, say: Callable[[str], None]) -> Place:
    """Load a profile and start the local stack where it needs one that does not run.

    Raises
    ------
    RequestError
        The profile is Amazon S3 with the local stack's Spark, whose executors have no AWS
        credentials.
    """
    profile = load_profile(name)
    if profile.s3.is_aws and profile.spark.is_stack:
        raise RequestError(
            f"Profile {profile.name!r} needs a Spark with AWS credentials; the local one has none.",
            remedy="Set spark.master of the profile (local[*] runs Spark inside the command).",
        )
    if not profile.needs_stack:
        return Place(profile, state_folder() / "logs" / "driver.log", ())
    settings = stack_settings(profile)

    def tell(text: str, seconds: float | None) -> None:
        say(text if seconds is None else f"{text} ({seconds:.1f} s)")

    with stack_errors():
        state: StackState = local_stack().up(settings, say=tell)
    pages = [
        ("MinIO", state.s3_console),
        ("Spark master", state.spark_master_page),
        ("Spark worker", state.spark_worker_page),
    ]
    return Place(
        _on_stack(profile, state),
        settings.log("driver"),
        tuple((title, page) for title, page in pages if page),
    )


def storage_of(name: str | None) -> Storage:
    """Return the object store of a profile.

    Raises
    ------
    RequestError
        It is the local stack's, and that is down.
    """
    profile = load_profile(name)
    if not profile.s3.is_stack:
        return Storage(profile.s3)
    with stack_errors():
        state: StackState | None = local_stack().state(stack_settings(profile))
    if state is None:
        raise RequestError("The local stack is down.", remedy="Start it with `toolkit up`.")
    return Storage(_on_stack(profile, state).s3)


def image_source(images: str | None) -> str:
    """Return the URI or the folder that the user means; default: the sample images.

    Raises
    ------
    RequestError
        No images were named, and there are no sample images because this is no checkout.
    """
    if images is not None:
        return images if "://" in images else str(local_path(images))
    if not _SAMPLE_IMAGES.is_dir():
        raise RequestError(
            "The sample images are part of a checkout of fruits-toolkit, and this is a wheel.",
            remedy="Name your images: `toolkit run FOLDER` or `toolkit run s3://bucket/prefix`.",
        )
    return str(_SAMPLE_IMAGES)


def local_path(path: str) -> Path:
    r"""Return a path of this machine; in WSL, Windows paths (``C:\fruits``) are translated."""
    try:
        from localstack import wsl
    except ImportError:
        return Path(path).expanduser().resolve()
    this = wsl.this_wsl()
    if this and wsl.is_windows_path(path):
        with stack_errors():
            return wsl.translated(path, wsl=this)
    return Path(path).expanduser().resolve()


def stand_in(storage: Storage) -> StandIn:
    """Return what runs an instance's boot script on this machine, beside the local store.

    Parameters
    ----------
    storage
        The local stack's.
    """

    @contextmanager
    def run_here(script: str, *, policy: Policy) -> Iterator[Machine]:
        with stack_errors():
            from localstack.instance import instance
            from localstack.minio import Credentials

            with instance(
                script,
                folder=state_folder() / "rehearsals",
                endpoint=storage.settings.endpoint,
                root=Credentials(*storage.settings.credentials()),
                policy=json.loads(policy.to_json()),
                cache=cache_folder(),
            ) as machine:
                yield machine

    return run_here


def _on_stack(profile: Profile, state: StackState) -> Profile:
    s3 = profile.s3
    if state.s3_endpoint and state.access_key_id and state.secret_access_key:
        s3 = S3Settings(
            endpoint=state.s3_endpoint,
            access_key_id=SecretStr(state.access_key_id),
            secret_access_key=SecretStr(state.secret_access_key),
        )
    spark = SparkSettings(
        master=state.spark_master_url,
        jars=state.jars,
        java_home=state.java_home,
        executor_memory=f"{state.executor_memory_mib}m",
        driver_java_options=state.driver_java_options,
        executor_java_options=state.executor_java_options,
    )
    return profile.on_stack(s3=s3, spark=spark)
