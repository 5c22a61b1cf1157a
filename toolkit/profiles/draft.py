"""Settings of a profile on their way into toolkit.toml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from toolkit.errors import RequestError
from toolkit.profiles.loading import (
    CONFIG_FILE,
    find_config_file,
    flat,
    message,
    read_config,
    resolve,
    tables_of,
)
from toolkit.profiles.settings import AWS, BUILT_IN, SECTIONS
from toolkit.profiles.toml import edited_toml, replace_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProfileDraft"]

# Names of buckets are unique in all of AWS: the default one is somebody else's there.
_NO_DEFAULT_ON_AWS = frozenset({"s3.bucket"})
_NEW_FILE = (
    "# Settings of fruits-toolkit: `toolkit profile show` prints them all. No secrets here.\n"
)


class ProfileDraft:
    """Settings of a profile of Amazon S3 and EC2, on their way into the configuration file.

    Settings go by names such as ``s3.bucket``. The file is the nearest ``toolkit.toml``, or a new
    one in the current folder; whatever else it holds stays, comments included.

    Parameters
    ----------
    name
        Name of the profile, which need not exist.
    config_file
        A ``toolkit.toml``; default: the nearest one.

    Attributes
    ----------
    name
        Name of the profile.
    file
        Where it will be written.

    Raises
    ------
    RequestError
        The name can't be a profile's or is that of the local stack, or the file is not usable.
    """

    def __init__(self, name: str, *, config_file: Path | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise RequestError(
                f"{name!r} can't be the name of a profile.",
                remedy="Use letters, digits, hyphens and underscores.",
            )
        if name in BUILT_IN and name != AWS:
            raise RequestError(
                f"Profile {name!r} is the local stack: there is nothing of AWS to set.",
                remedy=f"Name another one: `toolkit profile init {AWS}`.",
            )
        self.name = name
        self.file = config_file or find_config_file() or Path.cwd() / CONFIG_FILE
        self._profile, self._origins = resolve(name, self._table(), self.file)

    def default(self, setting: str) -> Any:
        """Return what the setting is now, or None where that would not do on AWS."""
        if setting in _NO_DEFAULT_ON_AWS and self._origins[setting].kind == "default":
            return None
        try:
            return self.checked(setting, self._profile.value(setting))
        except RequestError:
            return None

    def checked(self, setting: str, value: object) -> Any:
        """Return a value as the setting takes it; text is read as in an environment variable.

        Raises
        ------
        RequestError
            The setting does not take it.
        """
        section, _, field = setting.partition(".")
        given = {**BUILT_IN[AWS].get(section, {}), field: value}
        try:
            taken = SECTIONS[section].model_validate(given)
        except ValidationError as exc:
            raise RequestError(f"{setting}: {message(exc)}.") from exc
        return getattr(taken, field)

    def changes(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return what the file will hold that it does not hold now.

        Parameters
        ----------
        values
            The settings, checked.

        Returns
        -------
        dict
            By setting: the present value (None: the file has none) and the new one.
        """
        present = flat(self._table())
        return {
            setting: (present.get(setting), value)
            for setting, value in {**self._endpoint(present), **values}.items()
            if setting not in present or present[setting] != value
        }

    def write(self, values: Mapping[str, Any]) -> None:
        """Write the settings to the file, in one step: it is as before or complete.

        Parameters
        ----------
        values
            The settings, checked.

        Raises
        ------
        RequestError
            The file can't be written, or its form does not let it be edited.
        """
        changes = {setting: new for setting, (_, new) in self.changes(values).items()}
        if not changes:
            return
        try:
            text = self.file.read_bytes().decode() if self.file.exists() else _NEW_FILE
            edited = edited_toml(text, self.name, changes)
            if edited is None:
                raise RequestError(
                    f"{self.file} has a form that can't be edited without harm.",
                    remedy=f"Write into it:\n{edited_toml('', self.name, changes)}",
                )
            replace_text(self.file, edited)
        except OSError as exc:
            raise RequestError(f"{self.file} can't be written: {exc}") from exc

    def overruled(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings that a variable of the environment overrules, with its name."""
        return {
            setting: str(self._origins[setting])
            for setting in values
            if self._origins[setting].kind == "environment"
        }

    def _table(self) -> dict[str, Any]:
        """Return what the file holds of the profile now."""
        return tables_of(self._config(), self.file).get(self.name, {})

    def _config(self) -> dict[str, Any]:
        return read_config(self.file if self.file.exists() else None)

    def _endpoint(self, present: dict[str, Any]) -> dict[str, Any]:
        """Return the endpoint as a setting to write, unless the profile is Amazon S3 anyway."""
        built_in = flat(BUILT_IN.get(self.name, {}))
        endpoint = {**built_in, **present}.get("s3.endpoint")
        return {} if endpoint == AWS else {"s3.endpoint": AWS}
