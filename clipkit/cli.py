"""The program `clipkit`: finds the verb, runs it, and turns whatever happens into a line and an exit code.

`clipkit --help` needs nothing but the standard library; a verb loads Typer, then what it uses.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import sys
import warnings
from typing import Any, NoReturn

from clipkit import __version__, verbs
from clipkit.errors import ClipkitError, ExitCode, MissingPackage, Terminated, UsageError
from clipkit.terminal import printable

_ROOT_HELP = """\
Usage: clipkit VERB [OPTIONS] [SOURCE]...

  A toolbox for CLIP-style image-text models. Verbs read and write one JSON
  object a line, so they compose in a pipe.
"""
_NAMES = ("--labels", "--concepts")  # a list of names is the classes of one verb and the concepts of another
_ROOT_TAIL = """
General
  VERB --help  What a verb does, its options, and an example.
  --version    The version of clipkit.
  --debug      Show the traceback of an error, and warnings.
"""


def main() -> NoReturn:
    """The entry point of the script `clipkit`."""
    _open_closed_streams()
    args = sys.argv[1:]
    if not _debug(args) and not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries tell programmers, not the user of a pipe
    code = run(args)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process without taking Python apart, once all output is flushed or renamed.

    That would cost 60 ms where a model is loaded, and it aborts where a run that stopped early has left its reader in
    a read of stdin, which nothing can wake. What asked to be run at exit is run; another Ctrl-C ends that, without a
    traceback.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    atexit._run_exitfuncs()
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _open_closed_streams() -> None:
    """Put something where a standard stream was closed (`>&-`), else the next file opened would get its number.

    What is written to a closed stdout fails, as it does elsewhere; what would go to a closed stderr is lost. A closed
    stdin stays None in `sys`: who reads it says so.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):  # the wrong way round for 0 and 1
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    place = ["clipkit"]
    try:
        code = _dispatch(args, place)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Terminated:
        return ExitCode.TERMINATED
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.READER_CLOSED
    except Exception as error:
        if (stopped := _stop_within(error)) is not None:
            return stopped
        if _debug(args):
            import traceback

            traceback.print_exc()
        _silence_stdout()
        return _report(" ".join(place), error)


def _stop_within(error: BaseException) -> ExitCode | None:
    """The exit code of a Ctrl-C or SIGTERM that a library turned into its own error.

    Extension modules do while they are imported: `ImportError: initialization failed`.
    """
    seen: BaseException | None = error
    for _ in range(100):  # a chain made by hand may be a ring
        if isinstance(seen, KeyboardInterrupt):
            return ExitCode.INTERRUPTED
        if isinstance(seen, Terminated):
            return ExitCode.TERMINATED
        if seen is None:
            break
        seen = seen.__cause__ or seen.__context__
    return None


def _debug(args: list[str]) -> bool:
    return "--debug" in args or os.environ.get("CLIPKIT_DEBUG", "0") not in ("", "0")


def _dispatch(args: list[str], place: list[str]) -> int:
    if "_CLIPKIT_COMPLETE" in os.environ:
        from clipkit.completion import answer

        print(answer(args), end="")
        return ExitCode.OK
    while args and args[0] == "--debug":
        args = args[1:]
    if not args or args[0] == "--help":
        _print_help()
        return ExitCode.OK
    if args[0] == "--version":
        print(f"clipkit {__version__}")
        return ExitCode.OK
    name = args[0]
    if name.startswith("-"):
        raise UsageError(f"no such option: {name}", "options come after the verb; see: clipkit --help")
    verb, rest = verbs.typed(args)
    if verb is None:
        if members := verbs.family(name):
            return _family(members, rest, place)
        meant = verbs.close_to(name)
        raise UsageError(
            f"no such verb: {name}", f"Did you mean {' or '.join(meant)}?" if meant else "see: clipkit --help"
        )
    if member := verbs.misspelt(verb, rest):
        raise UsageError(f"no such verb, and no such source: {name} {rest[0]}", f"Did you mean {member}?")
    place.append(verb.name)
    return _invoke(verb, rest)


def _family(members: list[verbs.Verb], rest: list[str], place: list[str]) -> int:
    """What to say of the first word of verbs of two words, which is no verb itself."""
    first = members[0].name.partition(" ")[0]
    if rest[:1] == ["--help"]:
        width = max(len(verb.name) for verb in members)
        print(f"Usage: clipkit {first} VERB [OPTIONS] [SOURCE]...\n")
        for verb in members:
            print(f"  {verb.name:<{width}}  {verb.summary}")
        return ExitCode.OK
    place.append(first)
    names = [verb.name.partition(" ")[2] for verb in members]
    meant = verbs.close_to(" ".join([first, *rest[:1]]))
    hint = f"Did you mean {meant[0]}?" if rest and meant else f"see: clipkit {first} --help"
    raise UsageError(f"expected one of {', '.join(names)}" + (f", not {rest[0]}" if rest else ""), hint)


def _invoke(verb: verbs.Verb, args: list[str]) -> int:
    import typer

    from clipkit.loader import command

    made = command(verb)
    try:
        with made.make_context(f"clipkit {verb.name}", args) as context:
            _refuse_nonfinite(made, context.params)
            code = made.invoke(context)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.TyperException as error:
        raise _usage(error, verb.name) from error
    return int(code or ExitCode.OK)


def _refuse_nonfinite(command: Any, values: dict[str, Any]) -> None:
    """`nan` and `inf` read as numbers, and no option means them. Raises UsageError."""
    for param in command.params:
        value = values.get(param.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{max(param.opts, key=len)} takes a number, not {value:g}")


def _usage(error: Exception, verb: str) -> UsageError:
    """Typer's complaint about the arguments, in our style."""
    meant = _sister(error) or getattr(error, "possibilities", None)
    message = str(getattr(error, "message", "") if meant else error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    hint = f"Did you mean {' or '.join(sorted(meant))}?" if meant else f"see: clipkit {verb} --help"
    count = message.removeprefix("No such option: -")
    if verb == "head" and count.isdecimal():  # as head(1) takes it
        hint = f"Did you mean -n {count}?"
    message = " ".join(message.split())  # a list of choices comes on lines of its own
    return UsageError(message[:1].lower() + message[1:], hint)


def _sister(error: Exception) -> list[str]:
    """The flag for what an unknown option names at another verb, if this verb has that one."""
    name = getattr(error, "option_name", None)
    command = getattr(getattr(error, "ctx", None), "command", None)
    known = {flag for param in getattr(command, "params", ()) for flag in param.opts}
    return [flag for flag in _NAMES if name in _NAMES and flag in known]


def _print_help() -> None:
    print(_ROOT_HELP)
    found, hidden = verbs.available()
    width = max((len(verb.name) for verb in found), default=0)
    for group, members in verbs.grouped(found).items():
        print(group)
        for verb in members:
            print(f"  {verb.name:<{width}}  {printable(verb.summary)}")
        print()
    print(_ROOT_TAIL.strip("\n"))
    for verb in hidden:
        print(f"clipkit: {verb.distribution} brings a verb {verb.name}, which is taken: left out", file=sys.stderr)


def _report(place: str, error: Exception) -> int:
    """Say on stderr what went wrong, in one line and a hint, and give the exit code."""
    problem = _explain(error)
    with contextlib.suppress(OSError):  # nobody listens: the exit code still tells
        print(printable(f"{place}: {problem}"), file=sys.stderr)
        if problem.hint:
            print(printable(f"hint: {problem.hint}"), file=sys.stderr)
    return problem.code


def _explain(error: Exception) -> ClipkitError:
    if isinstance(error, ClipkitError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        distribution = _PACKAGES.get(package, package)
        if package != "clipkit":
            return MissingPackage(distribution, "this", f"pip install {distribution}")
    if isinstance(error, OSError) and error.strerror:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        return ClipkitError(error.strerror[:1].lower() + error.strerror[1:], where=where)
    return ClipkitError(
        f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}",
        "this is a fault of clipkit: run it again with --debug and report what it prints",
    )


# Import names that pip knows under another name.
_PACKAGES = {"PIL": "pillow", "open_clip": "open_clip_torch", "pillow_heif": "pillow-heif", "faiss": "faiss-cpu"}


def _silence_stdout() -> None:
    """What is left in the buffer of stdout goes nowhere, so that closing it at exit cannot fail again."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.close(devnull)
        except OSError:
            return
