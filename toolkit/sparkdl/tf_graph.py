"""``TFInputGraph``: a function of TensorFlow that can be sent to executors and saved."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import numpy as np
from pyspark.errors import IllegalArgumentException

from toolkit.sparkdl.persistence import Attachment
from toolkit.sparkdl.spark_files import SharedFolder, keep, share_file, zip_folder
from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow, executor_tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

__all__ = ["GraphAttachment", "LoadedGraph", "SharedGraph", "TFInputGraph", "Tensor", "share_graph"]

_SERVE = "serve"
_SIGNATURE = "serving_default"
_MODEL_FILE = "saved_model.pb"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Parameters
    ----------
    name
        What the signature calls it.
    tensor
        What the graph itself calls it: ``operation:index``.
    shape
        Its sides, the batch first; None for a side that may be any, or if nothing is known.
    dtype
        TensorFlow's name of its type: ``float32``.
    """

    name: str
    tensor: str
    shape: tuple[int | None, ...] | None
    dtype: str

    def __str__(self) -> str:
        sides = "?" if self.shape is None else ", ".join(str(side or "None") for side in self.shape)
        return f"{self.name} ({self.dtype} [{sides}])"


@dataclass(frozen=True)
class TFInputGraph:
    """A signature of a SavedModel, with all that it needs. Made by one of its constructors.

    Parameters
    ----------
    archive
        The folder of the SavedModel, zipped.
    tags
        Those of the part of the SavedModel that is meant.
    signature_def_key
        Name of the signature.
    inputs, outputs
        Its tensors.
    """

    archive: bytes = field(repr=False)
    tags: tuple[str, ...]
    signature_def_key: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def fromSavedModel(
        cls,
        saved_model_dir: str | Path,
        tag_set: str = _SERVE,
        signature_def_key: str = _SIGNATURE,
        fetch_names: Sequence[str] | None = None,
        *,
        feed_names: Sequence[str] | None = None,
    ) -> TFInputGraph:
        """Take a signature of a SavedModel, of TensorFlow 1 or 2, or what ``Model.export`` wrote.

        Parameters
        ----------
        saved_model_dir
            Folder on this machine.
        tag_set
            Tags of the part that is meant, with commas between.
        signature_def_key
            Name of the signature.
        fetch_names, feed_names
            Of SparkDL; a graph of TensorFlow 2 has no other inputs and outputs than a signature's.

        Raises
        ------
        ValueError
            The folder holds no SavedModel, or none with these tags or this signature; the message
            lists those that there are.
        NotImplementedError
            `feed_names` or `fetch_names` are given.
        """
        feeds = None if isinstance(signature_def_key, str) else signature_def_key
        if any(each is not None for each in (feeds, feed_names, fetch_names)):
            raise NotImplementedError(
                "feed_names and fetch_names went with the graphs of TensorFlow 1. "
                "Name a signature of the SavedModel: "
                "TFInputGraph.fromSavedModel(saved_model_dir, tag_set, signature_def_key); "
                "`saved_model_cli show --dir DIR --all` lists them."
            )
        folder = Path(saved_model_dir)
        tags = tuple(sorted(tag.strip() for tag in tag_set.split(",")))
        signature = _signature(folder, tags, signature_def_key)
        return cls(
            archive=zip_folder(folder),
            tags=tags,
            signature_def_key=signature_def_key,
            inputs=_tensors(signature.inputs),
            outputs=_tensors(signature.outputs),
        )

    @classmethod
    def fromSavedModelWithSignature(
        cls, saved_model_dir: str | Path, tag_set: str, signature_def_key: str
    ) -> TFInputGraph:
        """Do as `fromSavedModel`, under SparkDL's name.

        Parameters
        ----------
        saved_model_dir, tag_set, signature_def_key
            As there.
        """
        return cls.fromSavedModel(saved_model_dir, tag_set, signature_def_key)

    @classmethod
    def fromFunction(cls, function: Any, input_signature: Any = None) -> TFInputGraph:
        """Take a function of TensorFlow 2, with its variables as they are now.

        Inputs are named as the arguments (or as the names of their ``tf.TensorSpec``), outputs as
        the keys of the dictionary that it returns, else ``output_0``, ``output_1``, ….

        Parameters
        ----------
        function
            A ``tf.function``, one of its concrete functions, or what ``tf.function`` takes.
        input_signature
            A ``tf.TensorSpec`` for each argument; None if the function has it already.

        Raises
        ------
        TypeError
            It is no function.
        ValueError
            The signature is missing, or given to a concrete function; or the function captures
            something that is neither a variable nor a constant.
        """
        tensorflow = driver_tensorflow()
        concrete = _concrete(tensorflow, function, input_signature)
        module = tensorflow.Module()
        module.captured = list(concrete.variables)
        with tempfile.TemporaryDirectory() as folder:
            try:
                tensorflow.saved_model.save(module, folder, signatures={_SIGNATURE: concrete})
            except (AssertionError, ValueError) as exc:
                raise ValueError(
                    f"The function can't be saved: {_first_line(exc)} "
                    "Save it yourself with tf.saved_model.save, as a method of the tf.Module that "
                    "owns what it uses, and hand over the folder: TFInputGraph.fromSavedModel."
                ) from exc
            return cls.fromSavedModel(folder)

    @classmethod
    def fromKeras(cls, model: Any) -> TFInputGraph:
        """Take a model of Keras 3, as its ``export`` saves it for inference.

        Parameters
        ----------
        model
            A ``keras.Model``.

        Raises
        ------
        ValueError
            It is not built.
        """
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, format="tf_saved_model", verbose=False)
            return cls.fromSavedModel(folder)

    @classmethod
    def fromGraph(cls, graph: Any, sess: Any, feed_names: Any, fetch_names: Any) -> Never:  # noqa: ARG003
        """Raise NotImplementedError: there are no sessions in TensorFlow 2."""
        raise _gone("fromGraph")

    @classmethod
    def fromGraphDef(cls, graph_def: Any, feed_names: Any, fetch_names: Any) -> Never:  # noqa: ARG003
        """Raise NotImplementedError: functions took the place of graphs."""
        raise _gone("fromGraphDef")

    @classmethod
    def fromCheckpoint(cls, checkpoint_dir: Any, feed_names: Any, fetch_names: Any) -> Never:  # noqa: ARG003
        """Raise NotImplementedError: a checkpoint of TensorFlow 2 holds no graph."""
        raise _gone("fromCheckpoint")

    @classmethod
    def fromCheckpointWithSignature(cls, checkpoint_dir: Any, signature_def_key: Any) -> Never:  # noqa: ARG003
        """Raise NotImplementedError: a checkpoint of TensorFlow 2 holds no graph."""
        raise _gone("fromCheckpointWithSignature")

    @property
    def input_tensor_name_from_signature(self) -> dict[str, str]:
        """What the graph calls the inputs that the signature names."""
        return {each.name: each.tensor for each in self.inputs}

    @property
    def output_tensor_name_from_signature(self) -> dict[str, str]:
        """What the graph calls the outputs that the signature names."""
        return {each.name: each.tensor for each in self.outputs}

    def translateInputMapping(
        self, input_mapping: Mapping[str, str] | Iterable[tuple[str, str]]
    ) -> dict[str, str]:
        """Return for each column what the graph calls the input that the signature names.

        `TFTransformer` takes a mapping with either name.

        Parameters
        ----------
        input_mapping
            For each column the signature's name of an input.

        Raises
        ------
        IllegalArgumentException
            There is no such input.
        """
        return {column: self.input(name).tensor for column, name in _pairs(input_mapping)}

    def translateOutputMapping(
        self, output_mapping: Mapping[str, str] | Iterable[tuple[str, str]]
    ) -> dict[str, str]:
        """Return for what the graph calls an output the column that the signature's name has.

        Parameters
        ----------
        output_mapping
            For the signature's name of each output its column.

        Raises
        ------
        IllegalArgumentException
            There is no such output.
        """
        return {self.output(name).tensor: column for name, column in _pairs(output_mapping)}

    def input(self, name: str | None = None) -> Tensor:
        """Return an input.

        Parameters
        ----------
        name
            The signature's or the graph's, with ``:0`` or without; None: the only input.

        Raises
        ------
        IllegalArgumentException
            There is none, or several and no name; the message lists those that there are.
        """
        return _find(self.inputs, name, what="input")

    def output(self, name: str | None = None) -> Tensor:
        """Return an output.

        Parameters
        ----------
        name
            The signature's or the graph's, with ``:0`` or without; None: the only output.

        Raises
        ------
        IllegalArgumentException
            There is none, or several and no name; the message lists those that there are.
        """
        return _find(self.outputs, name, what="output")


class GraphAttachment(Attachment):
    """A parameter that is a `TFInputGraph`."""

    def name(self, param: str, value: Any) -> str:
        """Return the name of the file."""
        return f"{param}.zip"

    def dump(self, value: TFInputGraph) -> bytes:
        """Return the content of the file."""
        facts = {
            "tags": value.tags,
            "signature_def_key": value.signature_def_key,
            "inputs": [asdict(each) for each in value.inputs],
            "outputs": [asdict(each) for each in value.outputs],
        }
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("graph.json", json.dumps(facts))
            archive.writestr("saved_model.zip", value.archive)
        return content.getvalue()

    def load(self, content: bytes, name: str) -> TFInputGraph:
        """Return the graph."""
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            facts = json.loads(archive.read("graph.json"))
            return TFInputGraph(
                archive=archive.read("saved_model.zip"),
                tags=tuple(facts["tags"]),
                signature_def_key=facts["signature_def_key"],
                inputs=tuple(_tensor_of_json(each) for each in facts["inputs"]),
                outputs=tuple(_tensor_of_json(each) for each in facts["outputs"]),
            )


@dataclass(frozen=True)
class SharedGraph:
    """A graph where executors find it; small, picklable, hashable."""

    folder: SharedFolder
    tags: tuple[str, ...]
    signature_def_key: str
    inputs: tuple[Tensor, ...]

    def load(self) -> LoadedGraph:
        """Load the graph, on an executor."""
        tensorflow = executor_tensorflow()
        model = tensorflow.saved_model.load(str(self.folder.path()), tags=self.tags)
        batch = {each.shape[0] for each in self.inputs if each.shape} - {None}
        return LoadedGraph(
            model=model,
            signature=model.signatures[self.signature_def_key],
            dtypes={
                each.name: np.dtype(tensorflow.dtypes.as_dtype(each.dtype).as_numpy_dtype)
                for each in self.inputs
            },
            batch=batch.pop() if batch else None,
        )


class Uncomputable(ValueError):  # noqa: N818 - named for what happened
    """A graph refuses its inputs; the text is one short line."""


@dataclass(frozen=True)
class LoadedGraph:
    """A graph in a worker process.

    Parameters
    ----------
    model
        What `signature` belongs to: its variables live as long as this.
    signature
        What computes.
    dtypes
        What the inputs take, by name.
    batch
        The one number of rows that it takes; None for any.
    """

    model: Any
    signature: Callable[..., Mapping[str, Any]]
    dtypes: Mapping[str, np.dtype[Any]]
    batch: int | None

    def compute(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Iterable[str]
    ) -> dict[str, NDArray[Any]]:
        """Compute some outputs.

        Parameters
        ----------
        inputs : arrays of shape (n, …)
            By the signature's names, all of them, n at least 1; cast to what the graph takes.
        outputs
            The signature's names.

        Returns
        -------
        dict of arrays of shape (n, …)
            By name.

        Raises
        ------
        ValueError
            An output has no row for each of the inputs.
        Uncomputable
            An operation of the graph refuses the values or their shape.
        """
        typed = {name: np.asarray(each, self.dtypes[name]) for name, each in inputs.items()}
        rows = len(next(iter(typed.values())))
        size = self.batch or rows
        pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
        for start in range(0, rows, size):
            count = min(size, rows - start)
            results = self._compute_batch(
                {name: _filled(each[start : start + count], size) for name, each in typed.items()}
            )
            for name, piece in pieces.items():
                piece.append(_numbers(name, results[name].numpy(), rows=size)[:count])
        return {
            name: piece[0] if len(piece) == 1 else np.concatenate(piece)
            for name, piece in pieces.items()
        }

    def _compute_batch(self, inputs: dict[str, NDArray[Any]]) -> Mapping[str, Any]:
        import tensorflow as tf

        try:
            return self.signature(**{name: tf.constant(each) for name, each in inputs.items()})
        except tf.errors.InvalidArgumentError as exc:
            first_line = str(exc.message).strip().partition("\n")[0]
            raise Uncomputable(f"the graph cannot compute it: {first_line}") from exc


def share_graph(spark: SparkSession, graph: TFInputGraph) -> SharedGraph:
    """Give a graph to all executors, those too that come later."""
    file = share_file(spark, keep(graph.archive, suffix=".zip"))
    return SharedGraph(SharedFolder(file), graph.tags, graph.signature_def_key, graph.inputs)


def _signature(folder: Path, tags: tuple[str, ...], key: str) -> Any:
    """Return a signature's protocol buffer."""
    driver_tensorflow()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / _MODEL_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no SavedModel: there is no {file.name} in it.")
    graphs = SavedModel.FromString(file.read_bytes()).meta_graphs
    tagged = {tuple(sorted(graph.meta_info_def.tags)): graph for graph in graphs}
    if tags not in tagged:
        known = "; ".join(", ".join(each) for each in tagged)
        raise ValueError(
            f"The SavedModel {folder} has nothing tagged {', '.join(tags)}. Available: {known}"
        )
    signatures = tagged[tags].signature_def
    if key not in signatures:
        known = ", ".join(sorted(each for each in signatures if not each.startswith("__")))
        raise ValueError(
            f"The SavedModel {folder} has no signature {key!r}. Available: {known or 'none'}"
        )
    return signatures[key]


def _tensors(infos: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return tuple(_tensor(name, infos[name]) for name in sorted(infos))


def _tensor(name: str, info: Any) -> Tensor:
    if info.WhichOneof("encoding") != "name":
        raise ValueError(f"The tensor {name!r} is sparse or ragged; only dense ones can be used.")
    shape = info.tensor_shape
    return Tensor(
        name=name,
        tensor=info.name,
        shape=None
        if shape.unknown_rank
        else tuple(None if each.size < 0 else each.size for each in shape.dim),
        dtype=driver_tensorflow().dtypes.as_dtype(info.dtype).name,
    )


def _tensor_of_json(facts: dict[str, Any]) -> Tensor:
    shape = facts["shape"]
    return Tensor(**facts | {"shape": None if shape is None else tuple(shape)})


def _concrete(tensorflow: Any, function: Any, input_signature: Any) -> Any:
    """Return the concrete function of a function."""
    if isinstance(function, tensorflow.types.experimental.ConcreteFunction):
        if input_signature is not None:
            raise ValueError("A concrete function has its signature: leave input_signature out.")
        return function
    if not callable(function):
        raise TypeError(f"{function!r} is no function of TensorFlow.")
    if not isinstance(function, tensorflow.types.experimental.PolymorphicFunction):
        function = tensorflow.function(function)
    if input_signature is None:
        if function.input_signature is None:
            raise ValueError(
                "The function has no signature. Give one: input_signature="
                "[tf.TensorSpec([None, 3], tf.float32)], one for each argument."
            )
        return function.get_concrete_function()
    single = isinstance(input_signature, tensorflow.TensorSpec)
    return function.get_concrete_function(*([input_signature] if single else input_signature))


def _find(tensors: tuple[Tensor, ...], name: str | None, *, what: str) -> Tensor:
    known = ", ".join(str(each) for each in tensors) or "none"
    if name is None:
        if len(tensors) != 1:
            raise IllegalArgumentException(f"Name one {what} of the graph. Available: {known}")
        return tensors[0]
    bare = name.removesuffix(":0")
    # The signature's own names first: a graph's may be the same and mean another tensor.
    for names in ((each.name for each in tensors), (each.tensor for each in tensors)):
        for each, its_name in zip(tensors, names, strict=True):
            if its_name in {name, bare, f"{bare}:0"}:
                return each
    raise IllegalArgumentException(f"The graph has no {what} {name!r}. Available: {known}")


def _pairs(
    mapping: Mapping[str, str] | Iterable[tuple[str, str]],
) -> Iterable[tuple[str, str]]:
    return mapping.items() if isinstance(mapping, Mapping) else mapping


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Return as many rows as a graph with a fixed batch takes, the missing ones zeros."""
    if len(rows) == size:
        return rows
    full = np.zeros((size, *rows.shape[1:]), rows.dtype)
    full[: len(rows)] = rows
    return full


def _numbers(name: str, result: NDArray[Any], *, rows: int) -> NDArray[Any]:
    if result.ndim == 0 or len(result) != rows:
        raise ValueError(
            f"The output {name!r} has the shape {result.shape} for {rows} rows: "
            "its first side must be the batch."
        )
    return result


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]


def _gone(constructor: str) -> NotImplementedError:
    return NotImplementedError(
        f"TFInputGraph.{constructor} needs a session of TensorFlow 1. Convert once: where "
        "TensorFlow 1 code runs (import tensorflow.compat.v1 as tf), restore the graph and write "
        "tf.saved_model.simple_save(sess, folder, inputs={...}, outputs={...}), then use "
        "TFInputGraph.fromSavedModel(folder). A frozen GraphDef becomes a function by "
        "tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph_def, name=''), [])"
        ".prune(feeds, fetches), then use TFInputGraph.fromFunction(function)."
    )
