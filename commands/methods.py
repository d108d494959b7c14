"""List the methods that verbs offer by name.

Group: About

Without KIND, all kinds; with NAME as well, one method and all there is to know of it. Packages can add methods: those
have the package's name beside them.

Example:

    clipkit methods
    clipkit methods adapters tip
    clipkit methods decisions --json
"""

import json
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from clipkit.errors import UsageError
from clipkit.methods import REGISTRIES
from clipkit.registry import Registry


def run(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help="Only this kind.", autocompletion=lambda: list(REGISTRIES), show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="This method, in full.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a method, in full.")] = False,
) -> None:
    if kind is not None and kind not in REGISTRIES:
        raise UsageError(f"there is no kind of methods called {kind!r}", f"there are: {', '.join(REGISTRIES)}")
    for registry in (REGISTRIES[kind],) if kind else REGISTRIES.values():
        entries = [registry.entry(name)] if name else sorted(registry, key=lambda entry: entry.name)
        if as_json:
            for entry in entries:
                said = {"kind": registry.kind, "name": entry.name, "summary": entry.summary}
                print(json.dumps(said | registry.describe(entry.name), ensure_ascii=False))
        elif name:
            print(f"{name}  {entries[0].summary}")
            _card(registry.describe(name))
        else:
            _listing(registry, brief=kind is None)


def _listing(registry: Registry, brief: bool) -> None:
    entries = sorted(registry, key=lambda entry: entry.name)
    width = max((len(entry.name) for entry in entries), default=0)
    print(registry.kind)
    for entry in entries:
        print(f"  {entry.name:<{width}}  {entry.summary}")
        if registry.described and not brief:
            said = registry.describe(entry.name)
            for what in ("flags", "needs", "cost", "limits", "error"):
                if said.get(what):
                    print(f"  {'':<{width}}    {what}: {said[what]}")
    if registry.described and not brief:
        print(f"\nAll of one, with its parameters: clipkit methods {registry.kind} {entries[0].name}")


def _card(said: Mapping[str, Any]) -> None:
    """What a method says of itself, one line each; its parameters below."""
    texts = {what: text for what, text in said.items() if isinstance(text, str)}
    for paragraph in texts.pop("about", "").splitlines():
        print(textwrap.fill(paragraph, 100, initial_indent="  ", subsequent_indent="  "))
    width = max(map(len, texts), default=0)
    for what, text in texts.items():
        print(f"  {what:<{width}}  {text}")
    params = said.get("params", {})
    width = max(map(len, params), default=0)
    if params:
        print("  parameters")
    for name, param in params.items():
        default = _said(param["default"])
        if "untuned" in param:
            default += f", {_said(param['untuned'])} without any"
        print(f"    {name:<{width}}  {param['said']} ({default})")


def _said(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, bool) else str(value)
