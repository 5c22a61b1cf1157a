"""Edits the text of toolkit.toml: settings change, and all else stays as it was written."""

from __future__ import annotations

import os
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tomlkit.items import Item

__all__ = ["edited_toml", "replace_text"]


def edited_toml(text: str, name: str, changes: Mapping[str, Any]) -> str | None:
    """Return a configuration file with settings of a profile changed, and all else as it was.

    None if that can't be done: tomlkit damages some forms, such as tables of dotted keys.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    line_end = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").rstrip("\n")
    try:
        document = tomlkit.parse(f"{lines}\n\n" if lines else "")
        _put(_child(_child(document, "profiles"), name), changes)
        edited = tomlkit.dumps(document).rstrip("\n") + "\n"
        is_right = tomllib.loads(edited) == _with(tomllib.loads(text), name, changes)
    except (TOMLKitError, ValueError):
        return None
    return edited.replace("\n", line_end) if is_right else None


def replace_text(file: Path, text: str) -> None:
    """Write a text file in one step; a link stays one, and the file's mode stays."""
    file = file.resolve()
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as content:
            content.write(text)
            content.flush()
            os.fsync(content.fileno())
        if file.exists():
            shutil.copymode(file, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _with(config: dict[str, Any], name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with settings of a profile changed."""
    profiles = config.get("profiles", {})
    table = {section: dict(values) for section, values in profiles.get(name, {}).items()}
    for setting, value in changes.items():
        section, _, field = setting.partition(".")
        table.setdefault(section, {})[field] = value
    return {**config, "profiles": {**profiles, name: table}}


def _put(profile: Any, changes: Mapping[str, Any]) -> None:
    """Change settings in the table of a profile."""
    import tomlkit
    from tomlkit.items import Table

    tables = {section: profile[section] for section in profile}
    endings = [_cut_ending(table) for table in tables.values()]
    for setting, value in changes.items():
        section, _, field = setting.partition(".")
        if section not in tables:
            tables[section] = _child(profile, section, holds_values=True)
        tables[section][field] = value
    # What stood in front of the table after the profile's last one stands there again.
    *others, end = tables.values()
    last = endings.pop() if endings else []
    if not last and len(others) > len(endings) and isinstance(end, Table):
        last = [tomlkit.nl()]
    for table, ending in [*zip(others, endings, strict=False), (end, last)]:
        for item in ending:
            table.add(item)


def _child(parent: Any, key: str, *, holds_values: bool = False) -> Any:
    """Return a table in a table, made if it is not there; one of tables only gets no header."""
    import tomlkit
    from tomlkit.items import InlineTable

    if key not in parent:
        is_inline = isinstance(parent, InlineTable)
        table = tomlkit.table(is_super_table=not holds_values)
        parent[key] = tomlkit.inline_table() if is_inline else table
    return parent[key]


def _cut_ending(table: Any) -> list[Item]:
    """Take off a table what belongs to the next one: blank lines, and the comments after them."""
    from tomlkit.items import Comment, Table, Whitespace

    if not isinstance(table, Table):
        return []
    body = table.value.body
    end = len(body)
    while end and isinstance(body[end - 1][1], Comment | Whitespace):
        end -= 1
    while end < len(body) and isinstance(body[end][1], Comment):
        end += 1
    ending = [item for _, item in body[end:]]
    del body[end:]
    return ending
