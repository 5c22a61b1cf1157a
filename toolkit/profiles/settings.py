"""The settings that tell one place of execution from another, typed, with their built-in values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AWS",
    "BUILT_IN",
    "ENVIRONMENT_DELIMITER",
    "ENVIRONMENT_PREFIX",
    "PORT_OPTIONS",
    "SECTIONS",
    "AwsSettings",
    "OriginKind",
    "Profile",
    "S3Settings",
    "SparkSettings",
    "StackSettings",
    "sources",
]

STACK = "stack"
AWS = "aws"

ENVIRONMENT_PREFIX = "TOOLKIT_"
ENVIRONMENT_DELIMITER = "__"


def _shape(pattern: str, meaning: str) -> Callable[[str], str]:
    """Return a check of a whole text against a pattern; its error says what is meant."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, flags=re.ASCII):
            raise PydanticCustomError(
                "shape", "{text} is not {meaning}", {"text": repr(text), "meaning": meaning}
            )
        return text

    return check


_check_region = _shape(
    r"[a-z]{2,5}(-[a-z]+){1,2}-[0-9]{1,2}", "the name of an AWS region, such as eu-west-3"
)

Bucket = Annotated[
    str,
    AfterValidator(
        _shape(
            r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
            "the name of a bucket: 3 to 63 small letters, digits, dots and hyphens",
        )
    ),
]
Region = Annotated[str, AfterValidator(_check_region)]
InstanceType = Annotated[
    str,
    AfterValidator(
        _shape(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an EC2 instance type, such as c7i.2xlarge")
    ),
]
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_InstanceProfile.html
InstanceProfile = Annotated[
    str,
    AfterValidator(_shape(r"[\w+=,.@-]{1,128}", "the name of an instance profile (not its ARN)")),
]
Subnet = Annotated[
    str,
    AfterValidator(
        _shape(r"subnet-[0-9a-f]{8,17}", "the id of a subnet, such as subnet-0123456789abcdef0")
    ),
]
Ami = Annotated[
    str,
    AfterValidator(
        _shape(r"ami-[0-9a-f]{8,17}", "the id of a machine image, such as ami-0123456789abcdef0")
    ),
]

OriginKind = Literal["default", "built in", "file", "environment", "option"]
"""What a setting can come from."""


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
    bucket: Bucket = "fruits"
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None

    @field_validator("region")
    @classmethod
    def _is_of_aws(cls, region: str, info: ValidationInfo) -> str:
        # Another server's region may have any name.
        return _check_region(region) if info.data.get("endpoint") == AWS else region

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
    properties
        File of more Spark properties for the driver: a secret in it stands on no command line.
    """

    master: str = STACK
    jars: Path | None = None
    java_home: Path | None = None
    cores: int | None = Field(default=None, ge=1)
    driver_memory: str = "1g"
    executor_memory: str = "1g"
    driver_java_options: str = ""
    executor_java_options: str = ""
    properties: Path | None = None

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


class AwsSettings(_Settings):
    """Which EC2 instances `toolkit promote` starts.

    Attributes
    ----------
    region
        AWS region of the instances; default: the bucket's, `S3Settings.region`.
    instance_type
        Type of every node.
    nodes
        How many instances; at least 1.
    spot
        Whether they are spot instances: cheaper, and taken away when AWS needs them.
    max_hours
        Hours after which a node ends itself, whatever runs; default: from the plan.
    instance_profile
        Name of the instance profile that gives the nodes their rights; default: one is created.
    subnet
        Id of the subnet; default: one of the default VPC.
    volume_gib
        Size of a node's disk in GiB; at least the 8 GiB that Ubuntu's machine images take.
    ami
        Id of the machine image; default: the newest Ubuntu 24.04 of Canonical.
    """

    region: Region | None = None
    instance_type: InstanceType = "c7i.2xlarge"
    nodes: int = Field(default=1, ge=1)
    spot: bool = False
    max_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    instance_profile: InstanceProfile | None = None
    subnet: Subnet | None = None
    volume_gib: int = Field(default=30, ge=8)
    ami: Ami | None = None


PORT_OPTIONS = tuple(name for name in StackSettings.model_fields if name.endswith("_port"))


class Profile(BaseSettings):
    """Everything that tells one place of execution from another; immutable."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=ENVIRONMENT_DELIMITER,
        frozen=True,
        extra="forbid",
    )

    name: str = "local"
    s3: S3Settings = S3Settings()
    spark: SparkSettings = SparkSettings()
    stack: StackSettings = StackSettings()
    aws: AwsSettings = AwsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: options, environment, file, defaults of the profile."""
        given = init_settings()
        table = given.pop("table", {})
        return tuple(sources(given, table, environment=env_settings).values())

    @property
    def needs_stack(self) -> bool:
        """Whether a part of the local stack has to run for this profile."""
        return self.s3.is_stack or self.spark.is_stack

    @property
    def aws_region(self) -> str:
        """The AWS region of the instances: their own setting, or the bucket's region."""
        return self.aws.region or self.s3.region

    def value(self, setting: str) -> Any:
        """Return the value of a setting by its name, such as ``s3.bucket``."""
        section, _, field = setting.partition(".")
        return getattr(getattr(self, section), field) if field else getattr(self, section)

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


def sources(
    given: dict[str, Any], table: dict[str, Any], *, environment: PydanticBaseSettingsSource
) -> dict[OriginKind, PydanticBaseSettingsSource]:
    """Return what settings are taken from, the strongest first: the only place with this order."""
    built_in = BUILT_IN.get(given.get("name", "local"), {})
    return {
        "option": InitSettingsSource(Profile, given),
        "environment": environment,
        "file": InitSettingsSource(Profile, table),
        "built in": InitSettingsSource(Profile, built_in),
    }


BUILT_IN: dict[str, dict[str, Any]] = {
    "local": {},
    # Spark inside the command has the AWS credentials of whoever calls it; the stack's has none.
    "aws": {"s3": {"endpoint": AWS}, "spark": {"master": "local[*]"}},
}


SECTIONS: dict[str, type[_Settings]] = {
    name: field.annotation
    for name, field in Profile.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, _Settings)
}
