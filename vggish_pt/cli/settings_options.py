"""Options of a command that are made from the fields of a settings class.

A field's type and default give the option's type and default, and its description under "Attributes:" in the class's
docstring gives the help text, so that a setting is declared once.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from vggish_pt.errors import SettingsError

Command = TypeVar("Command", bound=Callable[..., None])

_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.+(?:\n {9,}.+)*)", re.MULTILINE)
_SENTENCE_END = re.compile(r"\.(?= [A-Z]|$)|(?=; see :)")


@dataclass(frozen=True)
class OptionGroup:
    """Options for some fields of a settings class, under one heading of the help.

    Attributes:
        heading: heading of the options.
        settings: dataclass that holds the fields.
        metavars: name of each field, with the placeholder of its value in the help; "" derives it from the type.
        names: names of options that differ from their field's.
    """

    heading: str
    settings: type[Any]
    metavars: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> list[inspect.Parameter]:
        """Return the parameters that a command needs for these options."""
        return [self._parameter(one) for one in fields(self.settings) if one.name in self.metavars]

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the fields, from the arguments that the command got.

        Raises:
            SettingsError: a list of numbers or a KEY=VALUE pair that cannot be parsed.
        """
        types = get_type_hints(self.settings)
        return {name: _parse(self._option(name), types[name], given[name]) for name in self.metavars}

    def _option(self, name: str) -> str:
        return f"--{self.names.get(name, name).replace('_', '-')}"

    def _parameter(self, one: Field[Any]) -> inspect.Parameter:
        kind = get_type_hints(self.settings)[one.name]
        option = self._option(one.name)
        annotation, default, metavar = _described(kind, None if one.default is MISSING else one.default)
        declaration = f"{option}/--no-{option[2:]}" if default is True else option
        info = typer.Option(
            declaration,
            help=_attributes(self.settings.__doc__ or "").get(one.name, ""),
            rich_help_panel=self.heading,
            metavar=self.metavars[one.name] or metavar,
        )
        return inspect.Parameter(
            one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
        )


def with_options(*groups: OptionGroup) -> Callable[[Command], Command]:
    """Return a decorator that replaces a command's ``**`` parameter with the options of the groups."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [parameter for group in groups for parameter in group.parameters()]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *added)]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _described(kind: Any, default: Any) -> tuple[Any, Any, str | None]:
    """Return an option's type, default and placeholder, for a field of a type and a default."""
    if get_origin(kind) is Literal:
        return str, default, "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return str, ",".join(f"{value:g}" for value in default), "X,X"
    if kind is int:
        return kind, default, "N"
    if get_origin(kind) is Mapping:
        return list[str] | None, None, "KEY=VALUE"
    return kind, default, None


@cache
def _attributes(docstring: str) -> dict[str, str]:
    """Return the first sentence of each attribute's description in a class's docstring."""
    sentences = {}  # empty under python -OO, which drops docstrings
    for name, text in _ATTRIBUTE.findall(docstring):
        sentences[name] = _SENTENCE_END.split(" ".join(text.split()), maxsplit=1)[0] + "."
    return sentences


def _parse(option: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        number = get_args(kind)[0]
        try:
            return tuple(number(part) for part in value.split(",") if part.strip())
        except ValueError:
            raise SettingsError(f"{option} must be numbers separated by commas, not {value!r}") from None
    if get_origin(kind) is Mapping:
        return dict(_pair(option, text) for text in value or ())
    return value


def _pair(option: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise SettingsError(f"{option} must be KEY=VALUE, not {text!r}")
    try:
        return key, json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return key, value
