"""Writes `sparkdl-reference.md`, the reference of `toolkit.sparkdl`, from its docstrings.

`just reference` does it. Griffe reads signatures and docstrings, without importing anything; how
they look is in `sparkdl-reference.md.jinja`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Iterator

    Source = Any  # griffe.Object or griffe.Alias: its kind, not its class, tells what it has

__all__ = ["PAGE", "TOPICS", "Entry", "reference", "topics"]

_FOLDER = Path(__file__).parent
PAGE = _FOLDER / "sparkdl-reference.md"

_PACKAGE = "toolkit.sparkdl"
_IMAGE_IO = "imageIO"
TOPICS = {
    "Reading images": ["ImageSchema"],
    "Features and predictions": ["DeepImageFeaturizer", "DeepImagePredictor"],
    "Keras": ["KerasImageFileTransformer", "KerasTransformer", "KerasImageFileEstimator"],
    "TensorFlow": ["TFImageTransformer", "TFTransformer", "TFInputGraph", "tf_graph.Tensor"],
    "SQL": ["registerKerasImageUDF"],
    _IMAGE_IO: [_IMAGE_IO, "image.rows.OcvType"],
}
"""The names of `toolkit.sparkdl` by topic, with the types that they return and it does not name."""

_LINE = 88
_STAGE = "setParams"  # what has it is a stage
# What the page says of all stages at once.
_OF_ALL_STAGES = frozenset({_STAGE, "badRows", "read", "write"})
_ACCESSOR = re.compile(r"(set|get|se)([A-Z]\w*)")  # seKerasLoss is SparkDL's

# In a signature: a comma that no bracket encloses; a name that may stand for a type or a value.
_BETWEEN_PARAMETERS = re.compile(r", (?![^\[(]*[\])])")
_NAMED = re.compile(r"(?:(?<=[:=|>] )|(?<=\[))\w+")
# In a docstring: what stands in backticks, one pair or two.
_CODE = re.compile(r"(``?)([^`\n]+)\1")


class Entry:
    """A class, function, method or property, as the template shows it.

    Parameters
    ----------
    name
        As the reader writes it: ``imageIO.filesToDF``.
    source
        What Griffe knows of it.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self._source = source
        self.is_stage = source.is_class and _STAGE in source.all_members
        called = source.all_members["__init__"] if self.is_stage else source
        self._called = called if called.is_function else None

    @property
    def anchor(self) -> str:
        """Where a link to it leads, as GitHub makes it of the heading."""
        return self.name.lower().replace(".", "")

    @property
    def type(self) -> str:
        """What a property gives."""
        return str(self._source.annotation or "")

    @property
    def signature(self) -> str:
        """How it is called; empty for what is not to be called."""
        if self._called is None:
            return ""
        text = self._called.signature(name=self.name, return_type=not self.is_stage)
        text = _NAMED.sub(self._meaning, text).replace("'", '"')
        if len(text) <= _LINE:
            return text
        before, _, rest = text.partition("(")
        inner, end, after = rest.rpartition(")")
        parts = "".join(f"    {part},\n" for part in _BETWEEN_PARAMETERS.split(inner))
        return f"{before}(\n{parts}{end}{after}"

    @property
    def parameters(self) -> list[str]:
        """Names of what a call of it takes."""
        if self._called is None:
            return []
        return [each.name for each in self._called.parameters if each.name not in {"self", "cls"}]

    @property
    def is_gone(self) -> bool:
        """Whether it only raises an error."""
        return self._called is not None and str(self._called.returns) == "Never"

    @property
    def sections(self) -> list[griffe.DocstringSection]:
        """Its docstring."""
        return self._source.docstring.parsed if self._source.docstring else []

    @property
    def accessors(self) -> dict[str, list[str]]:
        """Of a stage, by what they set and get: names of its setters and getters."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._members if self.is_stage else ():
            if (match := _ACCESSOR.fullmatch(name)) and name not in _OF_ALL_STAGES:
                found[match[2]].append(name)
        for what, names in found.items():
            if f"get{what}" not in names:  # it is PySpark's
                names.append(f"get{what}")
            names.sort(key=lambda name: (name.startswith("get"), -len(name)))
        return dict(sorted(found.items()))

    @property
    def properties(self) -> list[Entry]:
        """Its properties, but for those of all stages."""
        return [
            Entry(name, each)
            for name, each in self._members.items()
            if "property" in each.labels and name not in _OF_ALL_STAGES
        ]

    @property
    def methods(self) -> list[Entry]:
        """Its methods, but for those of all stages, and their setters and getters."""
        left_out = _OF_ALL_STAGES.union(*self.accessors.values())
        return [
            Entry(f"{self.name}.{name}", each)
            for name, each in self._members.items()
            if each.is_function and name not in left_out
        ]

    @property
    def _members(self) -> dict[str, Source]:
        members = self._source.all_members if self._source.is_class else {}
        return {name: each for name, each in members.items() if not name.startswith("_")}

    def _meaning(self, name: re.Match[str]) -> str:
        """Return what a name in the signature stands for, if its module says it."""
        found = self._source.module.attributes.get(name[0])
        return str(found.value) if found and found.value else name[0]


def topics() -> dict[str, list[Entry]]:
    """Return what there is, by topic."""
    package = griffe.load(
        _PACKAGE,
        search_paths=[_FOLDER.parent],
        allow_inspection=False,
        docstring_parser="numpy",
        # Types are in the signatures.
        docstring_options={"warn_missing_types": False},
    )
    return {
        topic: [Entry(*each) for path in paths for each in _sources(package, path)]
        for topic, paths in TOPICS.items()
    }


def reference() -> str:
    """Return the page."""
    content = topics()
    anchors = {
        name: each.anchor
        for entries in content.values()
        for entry in entries
        for each in [entry, *entry.methods]
        for name in (each.name, each.name.removeprefix(f"{_IMAGE_IO}."))
    }
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=False,  # noqa: S701 - Markdown, of our own docstrings
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["alike"] = _alike
    environment.filters["prose"] = lambda text: _prose(text, anchors)
    page = environment.get_template(f"{PAGE.name}.jinja").render(topics=content)
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


def _sources(package: Any, path: str) -> Iterator[tuple[str, Source]]:
    """Yield what a name of the package stands for: names, and what Griffe knows of them."""
    source = package[path]
    name = path.rpartition(".")[2]
    if source.is_module:
        functions = (source[each] for each in source.exports)
        for each in sorted(functions, key=lambda function: function.lineno):
            yield f"{name}.{each.name}", each
    elif source.is_attribute:  # the one object of a class
        yield name, source.final_target.parent[str(source.value.function)]
    else:
        yield name, source


def _alike(values: list[Any], *, typed: bool) -> list[tuple[str, str, str]]:
    """Return names, type and meaning; names that share both, one after the other, together.

    Unless all are to be typed, only those are of which the docstring says more than the signature.
    """

    def shared(value: Any) -> tuple[str, str]:
        kind = value.annotation
        if typed:
            return f"`{kind}`", value.description
        in_words = isinstance(kind, str) and kind != "None"
        return kind if in_words else "", value.description

    return [
        (", ".join(each.name for each in group), kind, meaning)
        for (kind, meaning), group in groupby(values, key=shared)
    ]


def _prose(text: str, anchors: dict[str, str]) -> str:
    """Make Markdown of the markup of a docstring, its names links."""

    def code(match: re.Match[str]) -> str:
        name = match[2]
        return f"[`{name}`](#{anchors[name]})" if name in anchors else f"`{name}`"

    return _CODE.sub(code, text.strip())


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
