"""What a session's Spark knows of file systems and object stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.storage import BUCKET_SETTING, Storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["hadoop_settings", "profile_storage", "session_storage"]


def hadoop_settings(spark: SparkSession) -> Any:
    """Return Hadoop's settings (``Configuration``, in the JVM), the session's own included."""
    # There is no public way to them.
    return spark._jsparkSession.sessionState().newHadoopConf()


def session_storage(spark: SparkSession) -> Storage:
    """Return the object store that a session's Spark is set up for."""
    return Storage.from_hadoop_configuration(hadoop_settings(spark).get)


def profile_storage(spark: SparkSession) -> Storage | None:
    """Return the store of the toolkit's profile; None in a session that no profile has set up."""
    get = hadoop_settings(spark).get
    return Storage.from_hadoop_configuration(get) if get(BUCKET_SETTING) else None
