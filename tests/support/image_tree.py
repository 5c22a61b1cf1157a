"""A folder of images with hidden files and odd names, on a disk or in a store."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toolkit.errors import RequestError
from toolkit.sparkdl.image.reading import find_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.storage import Storage


def _dot() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 1), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


DOT = _dot()
"""A PNG of two pixels."""

TREE = {
    "1.png": DOT,
    "2 no suffix": DOT,
    "sub a/3.png": DOT,
    "sub a/deep/4.png": DOT,
    "sub-b/é#%20?.png": DOT,
    ".hidden.png": DOT,
    "_SUCCESS": b"",
    "_temporary/5.png": DOT,
    "sub a/.git/6.png": DOT,
}

TOP = ["1.png", "2 no suffix"]
ALL = [*TOP, "sub a/3.png", "sub a/deep/4.png", "sub-b/é#%20?.png"]

PATTERNS = [
    ("", False, TOP),
    ("/", False, TOP),
    ("", True, ALL),
    ("/1.png", False, ["1.png"]),
    ("/*.png", False, ["1.png"]),
    ("/sub*", False, ["sub a/3.png", "sub-b/é#%20?.png"]),
    ("/sub[ ]a", True, ["sub a/3.png", "sub a/deep/4.png"]),
    ("/*/*.png", False, ["sub a/3.png", "sub-b/é#%20?.png"]),
    ("/?ub a/deep/4*", False, ["sub a/deep/4.png"]),
    (
        "/{1.png,*.png,none,sub{ a/deep,-b}}",
        False,
        ["1.png", "sub a/deep/4.png", "sub-b/é#%20?.png"],
    ),
]
"""What follows the root, whether folders below are read, and the files that are found."""

NOTHING = ["/nothing", "/nothing/*", "/1.png/*", "/*.tiff"]


def no_store() -> Storage:
    raise AssertionError("the store was asked for")


def found(
    path: str, *, below: str, recursive: bool = False, store: Callable[[], Storage] = no_store
) -> list[str]:
    """Return the files at a path by their names below a URI, which they begin with."""
    files, _ = find_files(path, recursive=recursive, store=store)
    uris = [file.uri for file in files]
    assert all(uri.startswith(f"{below}/") for uri in uris)
    return [uri.removeprefix(f"{below}/") for uri in uris]


def check_nothing(path: str, store: Callable[[], Storage] = no_store) -> None:
    """Check that there is nothing at a path, and that the error says so."""
    with pytest.raises(RequestError) as caught:
        find_files(path, recursive=False, store=store)
    assert f"nothing at {path}." in str(caught.value)
