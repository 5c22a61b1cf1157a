"""JSON documents of a promotion in the bucket: written and read by versions that may differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from toolkit.errors import ToolkitError

__all__ = ["from_document", "to_document"]

T = TypeVar("T")


def to_document(content: Any) -> str:
    """Write a dataclass as one JSON document."""
    return json.dumps(asdict(content), indent=2, ensure_ascii=False) + "\n"


def from_document(cls: type[T], text: str | bytes, *, what: str, error: type[ToolkitError]) -> T:
    """Read a dataclass; fields that this version does not know are left out.

    Parameters
    ----------
    cls
        The dataclass.
    text
        The document.
    what
        What it should be, for people: ``status of a node``.
    error
        Raised if it is none.
    """
    try:
        # mypy does not take classes for hashable.
        content: T = _reader(cls).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the whole"
        raise error(
            f"This is no {what}: {where}: {problem['msg']}",
            remedy="Use the version of the toolkit that began the promotion.",
        ) from exc
    return content


@cache
def _reader(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)
