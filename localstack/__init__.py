"""A machine standing in for AWS: MinIO, Spark standalone, WSL2, set-up."""

from localstack.doctor import Check, checks
from localstack.errors import BuildError, LocalStackError, ServiceError
from localstack.home import StackSettings
from localstack.stack import (
    SERVICES,
    ServiceStatus,
    StackState,
    StackStatus,
    down,
    follow,
    logs,
    purge,
    state,
    status,
    up,
)

__all__ = [
    "SERVICES",
    "BuildError",
    "Check",
    "LocalStackError",
    "ServiceError",
    "ServiceStatus",
    "StackSettings",
    "StackState",
    "StackStatus",
    "checks",
    "down",
    "follow",
    "logs",
    "purge",
    "state",
    "status",
    "up",
]
