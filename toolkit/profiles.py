"""Where a run happens: typed settings from defaults, toolkit.toml, the environment and options.

Later sources win: built-in defaults, then ``[profiles.NAME]`` of the nearest ``toolkit.toml``, then
``TOOLKIT_…`` environment variables (``TOOLKIT_S3__BUCKET``), then options of the command line.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from toolkit.errors import RequestError

__all__ = [
    "CONFIG_FILE",
    "PORT_OPTIONS",
    "Profile",
    "S3Settings",
    "SparkSettings",
    "StackSettings",
    "find_config_file",
    "load_profile",
    "profile_names",
]

CONFIG_FILE = "toolkit.toml"
STACK = "stack"
AWS = "aws"

_SECRET_FIELDS = frozenset({"access_key_id", "secret_access_key", "session_token"})


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class S3Settings(_Settings):
    """Which object store, and how to reach it.

    Attributes
    ----------
    endpoint
        ``stack`` (the MinIO of the local stack), ``aws`` (Amazon S3 with the standard AWS
        credential chain) or the URL of any other S3 server.
    region
        AWS region of the bucket.
    bucket
        Bucket that holds images, models and runs.
    access_key_id, secret_access_key
        Credentials of a server given by URL, from ``TOOLKIT_S3__ACCESS_KEY_ID`` and
        ``TOOLKIT_S3__SECRET_ACCESS_KEY`` only. Never read from a file, never used for AWS.
    """

    endpoint: str = STACK
    region: str = "us-east-1"
    bucket: str = Field(default="fruits", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon S3, reached with the standard AWS credential chain."""
        return self.endpoint == AWS

    @property
    def is_stack(self) -> bool:
        """Whether this is the local stack's MinIO, whose address is not known yet."""
        return self.endpoint == STACK

    def credentials(self) -> tuple[str, str]:
        """Return access key id and secret access key of a server that is not AWS.

        Raises
        ------
        RequestError
            They are not set.
        """
        if self.access_key_id is None or self.secret_access_key is None:
            raise RequestError(
                f"There are no credentials for {self.endpoint}.",
                remedy="Set TOOLKIT_S3__ACCESS_KEY_ID and TOOLKIT_S3__SECRET_ACCESS_KEY.",
            )
        return self.access_key_id.get_secret_value(), self.secret_access_key.get_secret_value()


class SparkSettings(_Settings):
    """Which Spark, and how much of it.

    Attributes
    ----------
    master
        ``stack`` (the standalone cluster of the local stack) or a Spark master URL.
    jars
        Folder that holds the S3A jars, on the driver and on every executor.
    java_home
        The Java of the driver; default: ``JAVA_HOME``, then ``java`` of the PATH.
    cores
        Cores that a run takes at the most; default: all that there are.
    driver_memory, executor_memory
        JVM heaps, in Spark's notation. Pixels and vectors live in the Python workers, outside.
    driver_java_options, executor_java_options
        More options for the JVMs.
    """

    master: str = STACK
    jars: Path | None = None
    java_home: Path | None = None
    cores: int | None = Field(default=None, ge=1)
    driver_memory: str = "1g"
    executor_memory: str = "1g"
    driver_java_options: str = ""
    executor_java_options: str = ""

    @property
    def is_stack(self) -> bool:
        """Whether this is the local stack's cluster, whose address is not known yet."""
        return self.master == STACK


class StackSettings(_Settings):
    """Ports and size of the local stack; port 0 takes a free one, size None fits the machine."""

    minio_port: int = Field(default=9000, ge=0, le=65535)
    minio_console_port: int = Field(default=9001, ge=0, le=65535)
    spark_port: int = Field(default=7077, ge=0, le=65535)
    spark_ui_port: int = Field(default=8080, ge=0, le=65535)
    worker_ui_port: int = Field(default=8081, ge=0, le=65535)
    cores: int | None = Field(default=None, ge=1)


PORT_OPTIONS = tuple(name for name in StackSettings.model_fields if name.endswith("_port"))


class Profile(BaseSettings):
    """Everything that tells one place of execution from another; immutable."""

    model_config = SettingsConfigDict(
        env_prefix="TOOLKIT_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
    )

    name: str = "local"
    s3: S3Settings = S3Settings()
    spark: SparkSettings = SparkSettings()
    stack: StackSettings = StackSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: options, environment, file, defaults of the profile."""
        given = init_settings()
        table = given.pop("table", {})
        name = given.get("name", "local")
        return (
            InitSettingsSource(settings_cls, given),
            env_settings,
            InitSettingsSource(settings_cls, table),
            InitSettingsSource(settings_cls, _BUILT_IN.get(name, {})),
        )

    @property
    def needs_stack(self) -> bool:
        """Whether a part of the local stack has to run for this profile."""
        return self.s3.is_stack or self.spark.is_stack

    def on_stack(self, *, s3: S3Settings, spark: SparkSettings) -> Profile:
        """Return this profile with ``stack`` replaced by what the running local stack provides.

        Parameters
        ----------
        s3
            Endpoint and credentials of the stack's MinIO; region and bucket stay the profile's.
        spark
            Master, jars and executor memory of the stack's cluster; what the profile sets stays.
        """
        update: dict[str, Any] = {}
        if self.s3.is_stack:
            update["s3"] = s3.model_copy(
                update={"region": self.s3.region, "bucket": self.s3.bucket},
            )
        given = {field: getattr(self.spark, field) for field in self.spark.model_fields_set}
        if self.spark.is_stack:
            given.pop("master", None)
        update["spark"] = spark.model_copy(update=given)
        return self.model_copy(update=update)


_BUILT_IN: dict[str, dict[str, Any]] = {
    "local": {},
    "aws": {"s3": {"endpoint": AWS}},
}


def find_config_file(start: Path | None = None) -> Path | None:
    """Return the nearest ``toolkit.toml``: in `start` (default: here) or in a folder above it."""
    here = (start or Path.cwd()).resolve()
    return next(
        (
            folder / CONFIG_FILE
            for folder in (here, *here.parents)
            if (folder / CONFIG_FILE).is_file()
        ),
        None,
    )


def profile_names(config_file: Path | None = None) -> list[str]:
    """Return the names of the built-in profiles and of those in the configuration file."""
    config_file = config_file or find_config_file()
    return sorted({*_BUILT_IN, *_tables(_read_config(config_file), config_file)})


def load_profile(
    name: str | None = None,
    *,
    config_file: Path | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> Profile:
    """Resolve a profile.

    Parameters
    ----------
    name
        Profile name; default: ``TOOLKIT_PROFILE``, then ``profile`` of the configuration file,
        then ``local``.
    config_file
        A ``toolkit.toml``; default: the nearest one.
    options
        What the command line sets, by section: ``{"s3": {"bucket": "fruits"}}``.

    Raises
    ------
    RequestError
        Unknown profile, unknown or invalid setting, or a secret in the configuration file.
    """
    config_file = config_file or find_config_file()
    config = _read_config(config_file)
    tables = _tables(config, config_file)
    known = sorted({*_BUILT_IN, *tables})
    name = name or os.environ.get("TOOLKIT_PROFILE") or str(config.get("profile", "local"))
    if name not in known:
        raise RequestError(
            f"There is no profile {name!r}.",
            remedy=f"Profiles: {', '.join(known)}. Add [profiles.{name}] to {CONFIG_FILE}.",
        )
    table = tables.get(name, {})
    _refuse_secrets(table, config_file)
    given = {section: values for section, values in (options or {}).items() if values}
    try:
        return Profile.model_validate({"name": name, "table": table, **given})
    except ValidationError as exc:
        raise RequestError(
            f"Profile {name!r} is not usable: {_first_problem(exc)}",
            remedy=f"Mend it in {config_file or CONFIG_FILE}, TOOLKIT_… variables or options.",
        ) from exc


def _read_config(config_file: Path | None) -> dict[str, Any]:
    if config_file is None:
        return {}
    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise RequestError(f"{config_file} can't be read: {exc}") from exc


def _tables(config: dict[str, Any], config_file: Path | None) -> dict[str, dict[str, Any]]:
    """Return the tables of the profiles; refuse what the file should not hold."""
    profiles: Any = config.get("profiles", {})
    tables = list(profiles.values()) if isinstance(profiles, dict) else [None]
    sections = [each for table in tables if isinstance(table, dict) for each in table.values()]
    unknown = sorted(config.keys() - {"profile", "profiles"})
    if isinstance(config.get("profile"), dict):
        unknown.append("a table named profile")
    if unknown or not all(isinstance(table, dict) for table in [*tables, *sections]):
        raise RequestError(
            f"{config_file} is not of the form that is read"
            + (f": it holds {', '.join(unknown)}." if unknown else "."),
            remedy='It holds `profile = "NAME"` and tables such as [profiles.NAME.s3].',
        )
    return dict(profiles)


def _refuse_secrets(table: dict[str, Any], config_file: Path | None) -> None:
    found = sorted(_SECRET_FIELDS & set(table.get("s3", {})))
    if found:
        raise RequestError(
            f"{config_file} holds {', '.join(found)}: no secret belongs in that file.",
            remedy=f"Remove it there and set TOOLKIT_S3__{found[0].upper()} in the environment.",
        )


def _first_problem(exc: ValidationError) -> str:
    problem = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"
