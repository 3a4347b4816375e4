"""What the parameters of a stage mean, read from its typed config: for `--help` and the reference pages."""

import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ANY_KEY = "<name>"
LISTS = (list, tuple, frozenset)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """path: dotted, below the stage's section of params.yaml; `<name>` stands for any key of a mapping, `[]` for any
    entry of a list.

    meaning: with its unit; empty where nobody has written it down. default: None where it must be given.
    """

    path: str
    meaning: str
    type: str
    default: str | None


def documented_parameters(config_class: type[BaseModel], path: str = "") -> Iterator[Parameter]:
    """Every parameter, those of nested sections behind their section."""
    for name, field in config_class.model_fields.items():
        own_path = f"{path}{name}"
        yield Parameter(
            path=own_path,
            meaning=field.description or _from_docstring(config_class, name),
            type=_type_name(field.annotation),
            default=_default(field),
        )
        for below, section in _sections(field.annotation, own_path):
            yield from documented_parameters(section, f"{below}.")


def _sections(annotation: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield path, annotation
        return
    origin = typing.get_origin(annotation)
    below = f"{path}.{ANY_KEY}" if origin is dict else f"{path}[]" if origin in LISTS else path
    for argument in typing.get_args(annotation):
        yield from _sections(argument, below)


def _from_docstring(config_class: type[BaseModel], name: str) -> str:
    """The sentence behind `name:` or `name, other:` in a docstring of the class or its bases, up to the next mark."""
    names = "|".join(map(re.escape, config_class.model_fields))
    mark = re.compile(rf"(?:(?<=^)|(?<=\s))((?:{names})(?:, (?:{names}))*): ", re.MULTILINE)
    for one in config_class.__mro__:
        text = " ".join((one.__doc__ or "").split())
        marks = list(mark.finditer(text))
        for number, found in enumerate(marks):
            if name in found[1].split(", "):
                end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
                return text[found.end() : end].strip().rstrip(".")
    return ""


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return (
            "section"
            if issubclass(annotation, BaseModel)
            else annotation.__name__.replace("NoneType", "null")
        )
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is dict:
        return f"{_type_name(arguments[1])} by name"
    if origin in LISTS:
        return f"list of {_type_name(arguments[0])}"
    return " | ".join(dict.fromkeys(_type_name(one) for one in arguments)) or str(annotation)


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "as below"
    return "null" if default is None else str(default)
