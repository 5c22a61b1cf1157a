"""The errors a user can meet, and the exit code each one means.

    ToolkitError          what happened, and what to do next
    ├── RequestError      the request or the configuration is wrong (exit code 2)
    └── JobError          the job failed (exit code 1)

Errors of other libraries are translated into these where they enter (``raise … from exc``).
"""

from __future__ import annotations

__all__ = ["JobError", "RequestError", "ToolkitError"]


class ToolkitError(Exception):
    """An error with its remedy.

    Parameters
    ----------
    message
        What happened, naming the value or the file.
    remedy
        What the user can do next: a command where there is one.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class RequestError(ToolkitError):
    """The request or the configuration is wrong; nothing was started."""

    exit_code = 2


class JobError(ToolkitError):
    """The job was accepted and failed."""

    exit_code = 1
