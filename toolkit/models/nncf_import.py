"""Imports NNCF in the one way of this package: silent, without its telemetry."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from toolkit.errors import RequestError
from toolkit.models.openvino_import import import_openvino

__all__ = ["import_nncf", "nncf_version"]


def nncf_version() -> str:
    """Return the version of NNCF without importing it.

    Raises
    ------
    RequestError
        When it is not installed.
    """
    try:
        return version("nncf")
    except PackageNotFoundError as exc:
        raise RequestError(
            "Precision int8 needs the Python package nncf, which is not installed.",
            remedy="Install it: pip install 'fruits-toolkit[int8]'. Or choose the precision f32.",
        ) from exc


def import_nncf() -> Any:
    """Import NNCF (seconds) so that it neither reports its use nor writes to stdout.

    Returns
    -------
    module
        ``nncf``.
    """
    import_openvino()  # bars the telemetry of both
    logger_class = logging.getLoggerClass()
    import nncf  # type: ignore[import-untyped]

    logging.setLoggerClass(logger_class)  # it would make every later logger of the process its own
    nncf.set_log_level(logging.ERROR)
    return nncf
