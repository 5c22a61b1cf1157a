"""Reads the weights in an old-format (not zip) PyTorch file, without PyTorch and running no code.

Layout, from ``torch.serialization._legacy_save``: five pickles (magic number, protocol, system
information, the state dict, the list of storage keys), then each storage in the order of the keys,
as a little-endian int64 element count and the raw elements. In the state dict a tensor is a view on
a storage: offset, shape and strides, all counted in elements.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_state_dict"]

_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class _TensorView:
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        elements = storages[self.storage]
        last = self.offset + sum(
            (size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)
        )
        # as_strided trusts its caller; a file is not to be trusted.
        if min((self.offset, *self.strides, *self.shape)) < 0 or last >= elements.size:
            raise ValueError(f"a tensor reaches outside its storage of {elements.size} elements")
        strides = tuple(stride * elements.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


def _rebuild_tensor(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _TensorView:
    return _TensorView(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows the four names that a state dict needs, and refuses every other."""

    _NAMES: dict[tuple[str, str], Any] = {  # noqa: RUF012 - a constant, not a default
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in weights") from None

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, *_ = pid
        self.dtypes[key] = dtype
        return str(key)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    Parameters
    ----------
    path
        File written by ``torch.save`` before PyTorch 1.6, or with
        ``_use_new_zipfile_serialization=False``.

    Returns
    -------
    dict
        Name -> array (float32 or int64) in the shape that PyTorch gives it.

    Raises
    ------
    ValueError
        When the file is of another format, is truncated, or holds more than plain tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError) as exc:
        raise ValueError(f"not an old-format PyTorch state dict: {exc}") from exc


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("not an old-format PyTorch file")
    for _ in ("protocol", "system information"):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    views = unpickler.load()
    storages = {key: _read_storage(file, unpickler.dtypes[key]) for key in _Unpickler(file).load()}
    return {name: view.read(storages) for name, view in views.items()}


def _read_storage(file: IO[bytes], dtype: np.dtype[Any]) -> np.ndarray:
    count = int.from_bytes(file.read(8), "little", signed=True)
    content = file.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise EOFError("the file ends inside a tensor")
    return np.frombuffer(content, dtype)
