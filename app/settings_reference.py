"""Every setting as a table for people, made from the typed object: it cannot fall behind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings

__all__ = ["SettingFacts", "markdown", "settings_facts"]

COMPUTED = "as the machine has"
HEAD = """# Settings

Each is an environment variable, `TRIGGERWALL_` and the name in capitals, or a line `name: value` of the YAML
file that `--config` or `TRIGGERWALL_CONFIG` names. Flags win over the environment, that over the file. In a
variable the parts of a list are separated by commas. What is out of bounds stops the gateway at start, with a
sentence.

This page is `triggerwall settings --markdown`.
"""
TYPES = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


@dataclass(frozen=True)
class SettingFacts:
    """One setting: its name in a YAML file, its environment variable, and what it takes."""

    name: str
    variable: str
    takes: str
    default: str
    description: str


def settings_facts() -> list[SettingFacts]:
    """All settings, in the order of `app/settings.py`."""
    prefix = Settings.model_config.get("env_prefix", "")
    return [
        SettingFacts(name, (prefix + name).upper(), _takes(field), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def markdown() -> str:
    """The page docs/settings.md."""
    lines = [HEAD, "| setting | takes | default | |", "|---|---|---|---|"]
    for each in settings_facts():
        cells = (f"`{each.name}`", each.takes, each.default, each.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _takes(field: FieldInfo) -> str:
    bounds = [
        shape.format(_number(getattr(each, name)))
        for each in field.metadata
        for name, shape in BOUNDS.items()
        if getattr(each, name, None) is not None
    ]
    return ", ".join([*dict.fromkeys(_named(field.annotation)), *bounds])


def _named(kind: Any) -> Iterator[str]:
    """The words for a type, `X | None` as X."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _named(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for each in get_args(kind):
            if each is not NoneType:
                yield from _named(each)
    elif origin is Literal:
        yield " or ".join(f"`{choice}`" for choice in get_args(kind))
    elif origin is tuple:
        yield "list of " + " ".join(_named(get_args(kind)[0]))
    elif origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield "list of name:" + " ".join(_named(get_args(kind)[1]))
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield " or ".join(f"`{choice.value}`" for choice in kind)
    else:
        yield TYPES.get(kind, str(kind))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return COMPUTED
    return _written(field.default)


def _written(value: Any) -> str:
    if value is None or value == () or value == {}:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, tuple):
        return "`" + ",".join(map(str, value)) + "`"
    return f"`{value}`"
