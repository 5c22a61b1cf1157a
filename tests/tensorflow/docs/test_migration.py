"""The page for owners of old notebooks: its code runs, and the names that it gives are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil

import numpy as np
import pytest

import toolkit.notebook
from tests.support import CHECKOUT
from tests.support.stages import computed
from toolkit import sparkdl
from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow

PAGE = CHECKOUT / "docs" / "sparkdl-migration.md"
TEXT = PAGE.read_text(encoding="utf-8")
# Each begins with a comment that names it.
BLOCKS = dict(re.findall(r"```python\n# ([^\n]*)\n(.*?)```", TEXT, re.DOTALL))
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)


def test_all_code_has_a_name():
    assert len(BLOCKS) == TEXT.count("```python") == 7


@pytest.mark.parametrize("name", BLOCKS)
def test_code_compiles_and_imports_what_there_is(name):
    tree = ast.parse(BLOCKS[name])
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and each.module.startswith("toolkit"):
            module = importlib.import_module(each.module)
            assert [each.name for each in each.names if not hasattr(module, each.name)] == []
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name):
            stage = getattr(sparkdl, each.func.id, None)
            if stage is not None:
                known = inspect.signature(stage).parameters
                assert {argument.arg for argument in each.keywords} <= known.keys()


def test_names_of_the_page_are_there():
    roots = "|".join(sparkdl.__all__)
    named = {*re.findall(rf"(?<![\w./])({roots})((?:\.\w+)*)", PROSE)}
    assert len(named) > 30
    for root, rest in named:
        found = getattr(sparkdl, root)
        for name in rest.split(".")[1:]:
            assert hasattr(found, name), f"{root}{rest}"
            found = getattr(found, name)
    for module in re.findall(r"`import (toolkit\.[\w.]+)|`(toolkit\.sparkdl[\w.]*)`", PROSE):
        importlib.import_module("".join(module))


def test_arguments_of_the_page_are_there():
    calls = re.findall(r"`((?:[A-Za-z]\w*\.)?\w+)\(([\w, ]+)\)`", PROSE)
    checked = set()
    for called, arguments in calls:
        root, _, rest = called.partition(".")
        function = getattr(sparkdl, root, None)
        if function is None or root == "TFInputGraph":  # the old ones differ
            continue
        function = getattr(function, rest) if rest else function
        known = list(inspect.signature(function).parameters)
        given = arguments.split(", ")
        assert set(given) <= {*known}, called
        checked.add(called)
    assert len(checked) > 20


def test_the_whole_surface_is_on_the_page():
    assert [name for name in sparkdl.__all__ if name not in PROSE] == []
    assert [name for name in sparkdl.imageIO.__all__ if f"imageIO.{name}" not in PROSE] == []


def test_links_lead_somewhere():
    headings = {
        each.lower().replace(" ", "-") for each in re.findall("^#+ (.*)$", PROSE, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = link.partition("#")
        assert (PAGE.parent / file).exists()
        assert not anchor or anchor in headings


@pytest.fixture
def photos(spark, sample_files, tmp_path, monkeypatch):
    """Let the notebooks run: in a folder of photos, in the session of the tests."""
    kinds = [file.parent for file in sample_files[::4]]
    for name, kind in (("apples", kinds[0]), ("pears", kinds[5])):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for file in sorted(kind.iterdir())[:6]:
            shutil.copy(file, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(toolkit.notebook, "start_spark", lambda: spark)


@pytest.mark.parametrize("name", ["after", "now"])
def test_the_notebooks_tell_the_photos_apart(photos, capsys, name):
    exec(BLOCKS[name].replace("InceptionV3", "EfficientNetLite0"), {})
    accuracy, *bad_rows = capsys.readouterr().out.split()
    assert float(accuracy) == 1
    assert bad_rows in ([], ["0"])


def test_before_and_after_differ_in_imports_and_session_alone():
    before, after = (BLOCKS[name].splitlines() for name in ("before", "after"))
    ours = {"from toolkit.notebook import start_spark", "spark = start_spark()"}
    kept = [line for line in after if line and line not in ours and "sparkdl" not in line]
    assert kept == [
        line for line in before if line and "sparkdl" not in line and "ml.image" not in line
    ]


@pytest.fixture
def old_graph(tmp_path, monkeypatch):
    """Leave a checkpoint and a frozen graph, as code of TensorFlow 1 did."""
    tf = driver_tensorflow().compat.v1
    with tf.Graph().as_default() as graph, tf.Session() as session:
        given = tf.placeholder(tf.float32, [None, 2], name="x")
        tf.multiply(given, tf.get_variable("scale", initializer=3.0), name="y")
        session.run(tf.global_variables_initializer())
        (tmp_path / "checkpoint").mkdir()
        tf.train.Saver().save(session, str(tmp_path / "checkpoint" / "model"))
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    monkeypatch.chdir(tmp_path)


def test_a_checkpoint_becomes_a_saved_model(old_graph):
    exec(BLOCKS["checkpoint"], {})
    graph = sparkdl.TFInputGraph.fromSavedModel("model")
    assert (graph.input().name, graph.output().name) == ("x", "y")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow")
def test_a_frozen_graph_becomes_a_function(spark, old_graph):
    names = {}
    exec(BLOCKS["frozen graph"], names)
    (row,) = computed(names["transformer"], [([1.0, 2.0],)], "numbers array<double>")
    assert [*row] == [[3.0, 6.0]]


def test_a_function_and_layers_of_ones_own_run(spark):
    driver_tensorflow()
    names = {}
    exec(BLOCKS["function"], names)
    exec(BLOCKS["layers"], names)
    image = sparkdl.imageIO.imageArrayToStruct(np.full((4, 4, 3), 7, np.uint8))
    (brightness,) = computed(names["transformer"], [(image,)], sparkdl.ImageSchema.imageSchema)
    assert brightness.toArray().tolist() == [7.0] * 3
    (result,) = computed(names["on_images"], [(image,)], sparkdl.ImageSchema.imageSchema)
    assert result.toArray().tolist() == [14.0] * 48
    (row,) = computed(names["on_numbers"], [([1.0, 2.0, 3.0],)], "numbers array<double>")
    assert [*row] == [[2.0, 4.0, 6.0]]
