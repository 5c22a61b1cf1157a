"""`TFInputGraph`: made of SavedModels, functions and models of Keras, and sent elsewhere."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException

from toolkit.sparkdl.spark_files import SharedFile, SharedFolder, keep
from toolkit.sparkdl.tf_graph import GraphAttachment, SharedGraph, TFInputGraph

ONES = np.ones((5, 2), np.float32)


@pytest.fixture
def load(monkeypatch):
    """Return the function that loads a graph as an executor does, here."""

    def load(graph):
        kept = keep(graph.archive, suffix=".zip")
        monkeypatch.setattr(SharedFile, "path", lambda _: kept)
        folder = SharedFolder(SharedFile(kept.name))
        return SharedGraph(folder, graph.tags, graph.signature_def_key, graph.inputs).load()

    return load


@pytest.fixture
def module(tf):
    class Scaled(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale = tf.Variable(3.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="rows")])
        def scaled(self, rows):
            return {"scaled": self.scale * rows, "sum": tf.reduce_sum(rows, axis=1)}

    return Scaled()


def facts(tensors):
    return {each.name: (each.shape, each.dtype) for each in tensors}


def test_a_function_keeps_what_its_variables_were(module, load):
    graph = TFInputGraph.fromFunction(module.scaled)
    module.scale.assign(100.0)
    assert facts(graph.inputs) == {"rows": ((None, 2), "float32")}
    assert facts(graph.outputs) == {"scaled": ((None, 2), "float32"), "sum": ((None,), "float32")}
    results = load(graph).compute({"rows": ONES}, ["scaled"])
    np.testing.assert_array_equal(results["scaled"], 3 * ONES)


@pytest.mark.parametrize("kind", ["function", "tf.function", "concrete function"])
def test_functions_of_every_kind(tf, load, kind):
    def twice(left, right):
        return left + right, left - right

    specs = [tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None, 2], tf.float64)]
    cast = tf.function(lambda left, right: twice(left, tf.cast(right, tf.float32)))
    graph = {
        "function": lambda: TFInputGraph.fromFunction(cast.python_function, specs),
        "tf.function": lambda: TFInputGraph.fromFunction(cast, specs),
        "concrete function": lambda: TFInputGraph.fromFunction(cast.get_concrete_function(*specs)),
    }[kind]()
    assert facts(graph.inputs) == {"left": ((None, 2), "float32"), "right": ((None, 2), "float64")}
    results = load(graph).compute({"left": ONES, "right": ONES}, ["output_0", "output_1"])
    np.testing.assert_array_equal(results["output_0"], 2 * ONES)
    np.testing.assert_array_equal(results["output_1"], 0 * ONES)


def test_a_saved_model_has_the_signature_that_is_named(tf, module, load, tmp_path):
    other = tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec([None], tf.int64)])
    signatures = {"serving_default": module.scaled, "other": other}
    tf.saved_model.save(module, tmp_path / "model", signatures=signatures)
    default = TFInputGraph.fromSavedModel(tmp_path / "model")
    named = TFInputGraph.fromSavedModelWithSignature(str(tmp_path / "model"), "serve", "other")
    assert facts(default.inputs) == {"rows": ((None, 2), "float32")}
    assert facts(named.outputs) == {"y": ((None,), "int64")}
    assert load(named).compute({"x": np.arange(3)}, ["y"])["y"].tolist() == [1, 2, 3]


def test_a_saved_model_of_tensorflow_1_is_taken(tf, load, tmp_path):
    folder = str(tmp_path / "model")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        given = tf.compat.v1.placeholder(tf.float32, [None, 2], name="tnsrIn")
        scale = tf.compat.v1.get_variable("scale", initializer=4.0)
        output = tf.multiply(given, scale, name="tnsrOut")
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, folder, {"given": given}, {"out": output})
    graph = TFInputGraph.fromSavedModelWithSignature(folder, "serve", "serving_default")
    assert graph.input_tensor_name_from_signature == {"given": "tnsrIn:0"}
    assert graph.translateInputMapping({"column": "given"}) == {"column": "tnsrIn:0"}
    assert graph.translateOutputMapping([("out", "column")]) == {"tnsrOut:0": "column"}
    for name in ("given", "given:0", "tnsrIn", "tnsrIn:0"):
        assert graph.input(name).name == "given"
    results = load(graph).compute({"given": ONES}, ["out"])
    np.testing.assert_array_equal(results["out"], 4 * ONES)


def test_a_model_of_keras_computes_as_for_inference(tf, load):
    import keras

    model = keras.Sequential(
        [keras.Input((2,), name="rows"), keras.layers.Dense(3), keras.layers.Dropout(0.9)]
    )
    graph = TFInputGraph.fromKeras(model)
    results = load(graph).compute({graph.input().name: ONES}, [graph.output().name])
    (found,) = results.values()
    np.testing.assert_allclose(found, model(ONES, training=False), rtol=1e-6)


def test_a_graph_of_tensorflow_1_turns_into_a_function_as_the_error_says(tf, load):
    with tf.Graph().as_default() as old:
        given = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        tf.multiply(given, 5.0, name="y")
    definition = old.as_graph_def()
    with pytest.raises(NotImplementedError, match=r"wrap_function.*prune.*fromFunction"):
        TFInputGraph.fromGraphDef(definition, ["x:0"], ["y:0"])
    imported = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.import_graph_def(definition, name=""), []
    )
    graph = TFInputGraph.fromFunction(imported.prune("x:0", "y:0"))
    results = load(graph).compute({graph.input().name: ONES}, [graph.output().name])
    np.testing.assert_array_equal(next(iter(results.values())), 5 * ONES)


def test_what_tensorflow_1_alone_had_names_its_replacement():
    for construct in (
        lambda: TFInputGraph.fromGraph(None, None, ["x:0"], ["y:0"]),
        lambda: TFInputGraph.fromCheckpoint("folder", ["x:0"], ["y:0"]),
        lambda: TFInputGraph.fromCheckpointWithSignature("folder", "serving_default"),
    ):
        with pytest.raises(NotImplementedError, match=r"simple_save.*fromSavedModel"):
            construct()
    with pytest.raises(NotImplementedError, match="Name a signature"):
        TFInputGraph.fromSavedModel("folder", "serve", ["x:0"], ["y:0"])


def test_what_there_is_instead_is_listed(tf, module, tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(ValueError, match=r"holds no SavedModel: there is no saved_model\.pb"):
        TFInputGraph.fromSavedModel(tmp_path)
    tf.saved_model.save(module, folder, signatures={"mine": module.scaled})
    with pytest.raises(ValueError, match=r"no signature 'serving_default'. Available: mine"):
        TFInputGraph.fromSavedModel(folder)
    with pytest.raises(ValueError, match=r"nothing tagged train. Available: serve"):
        TFInputGraph.fromSavedModel(folder, "train")
    graph = TFInputGraph.fromSavedModel(folder, signature_def_key="mine")
    with pytest.raises(
        IllegalArgumentException, match=r"no input 'x'. Available: rows \(float32 \[None, 2\]\)"
    ):
        graph.input("x")
    with pytest.raises(IllegalArgumentException, match=r"Name one output .*: scaled .*, sum"):
        graph.output()


def test_functions_that_can_not_be_taken_are_refused(tf):
    with pytest.raises(ValueError, match=r"no signature. Give one: input_signature="):
        TFInputGraph.fromFunction(tf.function(lambda x: x))
    with pytest.raises(TypeError, match="no function of TensorFlow"):
        TFInputGraph.fromFunction(3)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), -1)
    spec = tf.TensorSpec([None], tf.int32)
    with pytest.raises(ValueError, match=r"can't be saved: .*fromSavedModel"):
        TFInputGraph.fromFunction(tf.function(table.lookup), spec)
    concrete = tf.function(lambda x: x).get_concrete_function(spec)
    with pytest.raises(ValueError, match="leave input_signature out"):
        TFInputGraph.fromFunction(concrete, spec)


def test_an_output_that_has_not_a_row_for_each_of_the_inputs_is_refused(tf, load):
    spec = tf.TensorSpec([None, 2], tf.float32)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: x[:1]), spec)
    with pytest.raises(ValueError, match=r"'output_0' has the shape \(1, 2\) for 5 rows"):
        load(graph).compute({"x": ONES}, ["output_0"])


def test_a_graph_survives_pickle_and_its_file(module):
    graph = TFInputGraph.fromFunction(module.scaled)
    attachment = GraphAttachment()
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert attachment.load(attachment.dump(graph), "graph.zip") == graph
    assert len(repr(graph)) < 1000
