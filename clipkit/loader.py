"""A verb's function to a command line: the one place that knows Typer's classes.

A verb states its flags as the parameters of `run`. A parameter whose type is an `OptionGroup` (see clipkit.options)
stands for all flags of that group; the loader takes it apart for Typer and puts it together again for `run`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand
from typer.main import get_command

from clipkit.options import OptionGroup
from clipkit.verbs import Verb, load

ARGUMENTS, OPTIONS, GENERAL = "Arguments", "Options", "General"


class VerbCommand(TyperCommand):
    """A command whose help lists its options under headings, its own first, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
        general = []
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is None:
                continue
            if param.name in ("help", "debug"):
                general.append(row)
            else:
                own = ARGUMENTS if param.param_type_name == "argument" else OPTIONS
                sections.setdefault(getattr(param, "rich_help_panel", None) or own, []).append(row)
        sections[GENERAL] = general
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def command(verb: Verb) -> TyperCommand:
    """Import a verb and make the command that parses its arguments and calls it."""
    module = load(verb)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(verb.name, cls=VerbCommand, help=_help(module.__doc__ or ""))(flatten(module.run))
    made = get_command(app)
    assert isinstance(made, VerbCommand)
    return made


def _help(docstring: str) -> str:
    """The docstring as Typer wraps it: indented paragraphs (examples) as they stand, without the `Group:` line."""
    paragraphs = [
        "\n".join(line for line in paragraph.splitlines() if not line.startswith("Group:"))
        for paragraph in inspect.cleandoc(docstring).split("\n\n")
    ]
    return "\n\n".join("\b\n" + text if text.startswith(" ") else text for text in paragraphs if text)


def flatten(run: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `run` with a parameter for every flag of its option groups, and `--debug`."""
    hints = get_type_hints(run, include_extras=True)
    parameters: list[inspect.Parameter] = []
    packs: dict[str, tuple[type[OptionGroup], list[str]]] = {}
    for parameter in inspect.signature(run).parameters.values():
        hint = hints[parameter.name]
        if isinstance(hint, type) and issubclass(hint, OptionGroup):
            members = _members(hint)
            packs[parameter.name] = (hint, [member.name for member in members])
            parameters += members
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    parameters.append(_DEBUG)

    def flat(**values: Any) -> Any:
        del values[_DEBUG.name]  # the caller has looked at it
        for name, (group, members) in packs.items():
            values[name] = group(**{member: values.pop(member) for member in members})
        return run(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _members(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    members = []
    for field in fields(group):
        kind, info = get_args(hints[field.name])
        info = copy(info)
        info.rich_help_panel = group.title
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        members.append(_parameter(field.name, Annotated[kind, info], default))
    return members


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_DEBUG = _parameter(
    "debug", Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and warnings.")], False
)
