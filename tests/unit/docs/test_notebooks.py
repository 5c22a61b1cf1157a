"""The notebooks are saved as they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.support import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOKS = sorted((CHECKOUT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_saved_valid_without_outputs_and_paths_of_a_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert all(cell.id for cell in notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count is not None]
    text = file.read_text(encoding="utf-8")
    assert not [name for name in ("/home/", "/root/", "/work/", "/Users/", "C:\\") if name in text]
