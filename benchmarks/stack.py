"""The local stack that everything is measured on, and how peers find it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cli.place import local_stack, open_place, stack_settings
from toolkit.profiles import load_profile
from toolkit.storage import Storage, aws_variables_hidden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toolkit.profiles import Profile
    from toolkit.storage import Location

__all__ = ["Stack", "running_stack"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The running stack of this checkout.

    Parameters
    ----------
    profile
        The profile ``local`` with the stack's addresses.
    spark_worker
        Process id of the Spark worker: executors run below it.
    """

    profile: Profile
    spark_worker: int

    @property
    def storage(self) -> Storage:
        """Its object store."""
        return Storage(self.profile.s3)

    @property
    def java_home(self) -> Path:
        """The Java that it runs on."""
        assert self.profile.spark.java_home is not None  # noqa: S101 - the stack always says
        return self.profile.spark.java_home

    def peer_environment(self, *, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables that lead a peer to the stack.

        Parameters
        ----------
        endpoint
            URL of the object store; default: the stack's own.
        """
        key, secret = self.profile.s3.credentials()
        spark = self.profile.spark
        return {
            "AWS_ENDPOINT_URL": endpoint or self.profile.s3.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": self.profile.s3.region,
            "AWS_DEFAULT_REGION": self.profile.s3.region,
            "SPARK_MASTER": spark.master,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "S3A_JARS": str(spark.jars),
            "EXECUTOR_MEMORY": spark.executor_memory,
            "JAVA_HOME": str(self.java_home),
            "PYSPARK_PYTHON": sys.executable,
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }

    def delete(self, location: Location) -> None:
        """Delete all that lies below a location, what a run that was cut off left included.

        Spark leaves keys that end in a slash, as folders; obstore can't name them.
        """
        import boto3

        key, secret = self.profile.s3.credentials()
        with aws_variables_hidden():
            store = boto3.resource(
                "s3",
                endpoint_url=self.profile.s3.endpoint,
                region_name=self.profile.s3.region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
            )
        store.Bucket(location.bucket).objects.filter(Prefix=f"{location.key}/").delete()

    def our_environment(self, *, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables that make `toolkit` work at another address of the same store."""
        if endpoint is None:
            return {}
        key, secret = self.profile.s3.credentials()
        return {
            "TOOLKIT_S3__ENDPOINT": endpoint,
            "TOOLKIT_S3__ACCESS_KEY_ID": key,
            "TOOLKIT_S3__SECRET_ACCESS_KEY": secret,
        }


def running_stack(*, say: Callable[[str], None]) -> Stack:
    """Return the stack of this checkout, started if it is down."""
    place = open_place("local", say=say)
    services = local_stack().status(stack_settings(load_profile("local"))).services
    worker = next(each.pid for each in services if each.name == "worker")
    return Stack(profile=place.profile, spark_worker=worker)
