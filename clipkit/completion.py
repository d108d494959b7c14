"""What TAB offers, and the scripts that make a shell ask for it.

A script runs `clipkit` with _CLIPKIT_COMPLETE=1 and the words typed so far, the last one unfinished. The answer is
lines of `VALUE<tab>HELP`; no line means that the shell offers files. A verb is imported only for its own options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipkit import verbs

if TYPE_CHECKING:
    from typer.core import TyperCommand

SCRIPTS = {
    "bash": """\
# Completion of clipkit for bash. Made by: clipkit completion bash
_clipkit() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(_CLIPKIT_COMPLETE=1 "$1" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _clipkit clipkit
""",
    "zsh": """\
#compdef clipkit
# Completion of clipkit for zsh. Made by: clipkit completion zsh
_clipkit() {
    local line
    local -a found
    while IFS= read -r line; do
        found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done < <(_CLIPKIT_COMPLETE=1 "${words[1]}" "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe clipkit found
    else
        _files
    fi
}
if [[ $funcstack[1] == _clipkit ]]; then
    _clipkit "$@"
else
    compdef _clipkit clipkit
fi
""",
    "fish": """\
# Completion of clipkit for fish. Made by: clipkit completion fish
function __clipkit_complete
    set -l words (commandline -opc) (commandline -ct)
    set -lx _CLIPKIT_COMPLETE 1
    $words[1] $words[2..-1] 2>/dev/null
end
complete -c clipkit -n 'test (count (commandline -opc)) -eq 1' -f
complete -c clipkit -k -a '(__clipkit_complete)'
""",
}

ROOT_OPTIONS = [("--help", "The verbs."), ("--version", "The version."), ("--debug", "Show tracebacks.")]


def answer(words: list[str]) -> str:
    """What to print for the words typed after `clipkit`; whatever goes wrong, nothing is offered."""
    try:
        return "".join(f"{value}\t{' '.join(text.split())}\n" for value, text in candidates(words))
    except Exception:
        return ""


def candidates(words: list[str]) -> list[tuple[str, str]]:
    """Values for the last of the words, each with a line of help."""
    *before, current = words or [""]
    while before and before[0] == "--debug":
        before = before[1:]
    if not before:
        offered = ROOT_OPTIONS if current.startswith("-") else _first_words()
        return [(value, text) for value, text in offered if value.startswith(current)]
    second = [(v.name.partition(" ")[2], v.summary) for v in verbs.family(before[0])] if len(before) == 1 else []
    members = [(value, text) for value, text in second if value.startswith(current)]
    verb, rest = verbs.typed(before)
    if verb is None or (members and current):
        return members
    from clipkit.loader import command

    return [*members, *_within(command(verb), rest, current)]


def _first_words() -> list[tuple[str, str]]:
    """What a command line can begin with; a family that is no verb itself says what can follow."""
    found: dict[str, str] = {}
    for verb in verbs.available()[0]:
        first, _, second = verb.name.partition(" ")
        said = found.get(first)
        found[first] = verb.summary if not second else said if said is not None else f"{first} VERB: {first} --help"
    return list(found.items())


def _within(command: TyperCommand, before: list[str], current: str) -> list[tuple[str, str]]:
    prefix = ""
    if current == "=":  # bash makes three words of --option=value
        current = ""
    elif before and before[-1] == "=":
        before = before[:-1]
    elif current.startswith("--") and "=" in current:
        option, _, current = current.partition("=")
        before, prefix = [*before, option], f"{option}="
    asked = _option(command, before)
    context = command.make_context(command.name, before[:-1] if asked else list(before), resilient_parsing=True)
    if asked is None and current.startswith("-"):
        items: Any = command.shell_complete(context, current)
    else:
        target = asked or _argument(command, context)
        items = target.shell_complete(context, current) if target else []
    return [(prefix + item.value, item.help or "") for item in items if item.type == "plain"]


def _option(command: TyperCommand, before: list[str]) -> Any:
    """The option whose value comes next, if the word before is one that takes a value."""
    for param in command.params:
        if before and before[-1] in param.opts and param.param_type_name == "option":
            return None if getattr(param, "is_flag", False) else param
    return None


def _argument(command: TyperCommand, context: Any) -> Any:
    """The positional argument that comes next."""
    for param in command.params:
        if param.param_type_name == "argument" and (param.nargs == -1 or not context.params.get(param.name)):
            return param
    return None
