"""Imports OpenVINO in the one way of this package: without its telemetry."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["import_openvino"]


def import_openvino() -> Any:
    """Import OpenVINO so that it neither reports its use nor leaves an identifier at home.

    Already ``import openvino`` sends an event where the package ``openvino_telemetry``, which it
    depends on, can be imported; where not, it takes its own silent stub.

    Returns
    -------
    module
        ``openvino``.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
