"""A profile out of its sources, and what came from which."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from toolkit.errors import RequestError
from toolkit.profiles.settings import (
    BUILT_IN,
    ENVIRONMENT_DELIMITER,
    ENVIRONMENT_PREFIX,
    SECTIONS,
    OriginKind,
    Profile,
    sources,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONFIG_FILE",
    "Origin",
    "find_config_file",
    "flat",
    "load_profile",
    "message",
    "profile_names",
    "read_config",
    "resolve",
    "tables_of",
    "trace_profile",
]

CONFIG_FILE = "toolkit.toml"

_SECRET_FIELDS = frozenset({"access_key_id", "secret_access_key", "session_token"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the value of a setting comes from.

    Parameters
    ----------
    kind
        ``default`` (of the setting), ``built in`` (of the profile), ``file``, ``environment`` or
        ``option``.
    name
        Path of the file, or name of the variable; else None.
    """

    kind: OriginKind
    name: str | None = None

    def __str__(self) -> str:
        return self.name or self.kind


def find_config_file(start: Path | None = None) -> Path | None:
    """Return the nearest ``toolkit.toml``: in `start` (default: here) or in a folder above it."""
    here = (start or Path.cwd()).resolve()
    return next(
        (
            folder / CONFIG_FILE
            for folder in (here, *here.parents)
            if (folder / CONFIG_FILE).is_file()
        ),
        None,
    )


def profile_names(config_file: Path | None = None) -> list[str]:
    """Return the names of the built-in profiles and of those in the configuration file."""
    config_file = config_file or find_config_file()
    return sorted({*BUILT_IN, *tables_of(read_config(config_file), config_file)})


def load_profile(
    name: str | None = None,
    *,
    config_file: Path | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> Profile:
    """Resolve a profile.

    Parameters
    ----------
    name
        Profile name; default: ``TOOLKIT_PROFILE``, then ``profile`` of the configuration file,
        then ``local``.
    config_file
        A ``toolkit.toml``; default: the nearest one.
    options
        What the command line sets, by section: ``{"s3": {"bucket": "fruits"}}``.

    Raises
    ------
    RequestError
        Unknown profile, unknown or invalid setting, or a secret in the configuration file.
    """
    return trace_profile(name, config_file=config_file, options=options)[0]


def trace_profile(
    name: str | None = None,
    *,
    config_file: Path | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> tuple[Profile, dict[str, Origin]]:
    """Resolve a profile as `load_profile` does, and say where each of its settings comes from.

    Returns
    -------
    profile
        The profile.
    origins
        By the name of the setting: ``name``, ``s3.bucket``.

    Raises
    ------
    RequestError
        As `load_profile`.
    """
    config_file = config_file or find_config_file()
    config = read_config(config_file)
    tables = tables_of(config, config_file)
    known = sorted({*BUILT_IN, *tables})
    name, chosen_by = _choose(name, config, config_file)
    if name not in known:
        raise RequestError(
            f"There is no profile {name!r}.",
            remedy=f"Profiles: {', '.join(known)}. Add [profiles.{name}] to {CONFIG_FILE}.",
        )
    profile, origins = resolve(name, tables.get(name, {}), config_file, options=options or {})
    return profile, {"name": chosen_by, **origins}


def _choose(
    name: str | None, config: dict[str, Any], config_file: Path | None
) -> tuple[str, Origin]:
    """Return the name of the profile to use, and who chose it."""
    if name:
        return name, Origin("option")
    if name := os.environ.get("TOOLKIT_PROFILE"):
        return name, Origin("environment", "TOOLKIT_PROFILE")
    if "profile" in config:
        return str(config["profile"]), Origin("file", str(config_file))
    return "local", Origin("default")


def resolve(
    name: str,
    table: dict[str, Any],
    config_file: Path | None,
    *,
    options: dict[str, dict[str, Any]] | None = None,
) -> tuple[Profile, dict[str, Origin]]:
    """Return a profile and the origins of its settings, given its table of the file."""
    _refuse_secrets(table, config_file)
    set_by_options = {section: values for section, values in (options or {}).items() if values}
    given = {"name": name, **set_by_options}
    try:
        origins = _origins(given, table, config_file)
        return Profile.model_validate({**given, "table": table}), origins
    except SettingsError as exc:
        raise RequestError(
            f"Profile {name!r} is not usable: {exc}",
            remedy="Mend the TOOLKIT_… variable: it has to be JSON. Or set single settings.",
        ) from exc
    except ValidationError as exc:
        setting = ".".join(str(part) for part in exc.errors()[0]["loc"])
        origin = origins.get(setting)
        anywhere = f"{config_file or CONFIG_FILE}, TOOLKIT_… variables or options"
        raise RequestError(
            f"Profile {name!r} is not usable: {setting}: {message(exc)}",
            remedy=f"Mend it in {(origin and origin.name) or anywhere}.",
        ) from exc


def _origins(
    given: dict[str, Any], table: dict[str, Any], config_file: Path | None
) -> dict[str, Origin]:
    """Return the origin of each setting: the strongest source that has it."""
    found = sources(given, table, environment=EnvSettingsSource(Profile))
    values = {kind: flat(source()) for kind, source in found.items()}
    known = [f"{name}.{field}" for name, each in SECTIONS.items() for field in each.model_fields]
    # Settings that do not exist, too: the error about one says where it is.
    settings = dict.fromkeys([*known, *(setting for found in values.values() for setting in found)])
    origins = {}
    for setting in settings:
        kind = next((kind for kind, found in values.items() if setting in found), None)
        origins[setting] = Origin(kind or "default", _origin_name(kind, setting, config_file))
    return origins


def _origin_name(kind: OriginKind | None, setting: str, config_file: Path | None) -> str | None:
    """Return the path or the variable that a value comes from."""
    if kind == "file":
        return str(config_file)
    if kind == "environment":
        variables = {name.upper(): name for name in os.environ}
        section, _, field = f"{ENVIRONMENT_PREFIX}{setting}".upper().partition(".")
        # A variable may also hold a whole section, as JSON.
        single = f"{section}{ENVIRONMENT_DELIMITER}{field}"
        return variables.get(single) or variables.get(section)
    return None


def flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by names such as ``s3.bucket``."""
    return {
        f"{section}.{field}": value
        for section, values in sections.items()
        if isinstance(values, dict)
        for field, value in values.items()
    }


def read_config(config_file: Path | None) -> dict[str, Any]:
    """Return what the configuration file holds; nothing where there is none."""
    if config_file is None:
        return {}
    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise RequestError(f"{config_file} can't be read: {exc}") from exc


def tables_of(config: dict[str, Any], config_file: Path | None) -> dict[str, dict[str, Any]]:
    """Return the tables of the profiles; refuse what the file should not hold."""
    profiles: Any = config.get("profiles", {})
    tables = list(profiles.values()) if isinstance(profiles, dict) else [None]
    sections = [each for table in tables if isinstance(table, dict) for each in table.values()]
    unknown = sorted(config.keys() - {"profile", "profiles"})
    if isinstance(config.get("profile"), dict):
        unknown.append("a table named profile")
    if unknown or not all(isinstance(table, dict) for table in [*tables, *sections]):
        raise RequestError(
            f"{config_file} is not of the form that is read"
            + (f": it holds {', '.join(unknown)}." if unknown else "."),
            remedy='It holds `profile = "NAME"` and tables such as [profiles.NAME.s3].',
        )
    return dict(profiles)


def _refuse_secrets(table: dict[str, Any], config_file: Path | None) -> None:
    found = sorted(
        setting
        for setting in flat(table)
        if setting.rpartition(".")[2].lower().removeprefix("aws_") in _SECRET_FIELDS
    )
    if found:
        raise RequestError(
            f"{config_file} holds {', '.join(found)}: no secret belongs in that file.",
            remedy="Remove it there. Credentials for AWS come from the standard AWS chain, those "
            "of another S3 server from TOOLKIT_S3__ACCESS_KEY_ID and "
            "TOOLKIT_S3__SECRET_ACCESS_KEY.",
        )


def message(exc: ValidationError) -> str:
    """Return what is wrong with the first wrong setting."""
    return exc.errors(include_url=False, include_input=False)[0]["msg"]
