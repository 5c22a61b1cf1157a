"""The object store as models see it: a place that may hold weights and converted networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ModelBucket"]


class ModelBucket(Protocol):
    """The object store, as far as models need it."""

    @property
    def name(self) -> str:
        """Name of the profile's bucket."""

    def version(self, uri: str) -> str | None:
        """Return what tells the content of the object at a URI from others; None if there is none.

        The ETag of S3.
        """

    def fetch(self, uri: str, to: Path) -> bool:
        """Write the object at ``s3://`` or ``s3a://`` URI to a file; False if there is none."""
