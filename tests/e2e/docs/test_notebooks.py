"""The notebooks run from their first cell to their last, and are saved as they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

ROOT = CHECKOUT
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SECONDS_OF_A_CELL = 240

pytestmark = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: Path) -> NotebookNode:
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


def test_a_notebook_is_saved_valid_without_outputs_and_paths_of_a_machine(file) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert all(cell.id for cell in notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count is not None]
    text = file.read_text(encoding="utf-8")
    assert not [name for name in ("/home/", "/root/", "/work/", "/Users/", "C:\\") if name in text]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_notebook_runs(file, stack_environment, monkeypatch, tmp_path) -> None:
    # The kernel writes its history and its ports somewhere: not to the home of who runs the tests.
    own = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "conf"}
    for name, value in stack_environment.items():
        monkeypatch.setenv(name, value)
    for name, folder in own.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    notebook = read(file)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_OF_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises what a cell raises
