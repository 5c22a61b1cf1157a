"""The errors of the local stack: what happened, and what to do next.

LocalStackError
├── PortInUseError       another process holds a port that a service needs
├── MissingProgramError  this machine lacks Java, Go, uv or pyspark, or has one too old
├── JarsError            the S3A jars do not fit pyspark, or cannot be fetched
├── BuildError           MinIO cannot be built
└── ServiceError         a service does not start, or does not answer
"""

from __future__ import annotations

__all__ = [
    "BuildError",
    "JarsError",
    "LocalStackError",
    "MissingProgramError",
    "PortInUseError",
    "ServiceError",
]


class LocalStackError(Exception):
    """An error with its remedy.

    Parameters
    ----------
    message
        What happened, naming the value or the file.
    remedy
        What the user can do next: a command where there is one.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class PortInUseError(LocalStackError):
    """Another process holds a port that a service needs."""


class MissingProgramError(LocalStackError):
    """A program is missing on this machine, or too old."""


class JarsError(LocalStackError):
    """The S3A jars do not fit pyspark, or cannot be fetched."""


class BuildError(LocalStackError):
    """MinIO, or the archive of Spark's classes, cannot be built."""


class ServiceError(LocalStackError):
    """A service does not start, or does not answer."""
