"""Write the files that follow from others: completions/, requirements-slim.txt and the table of verbs in README.md.

python tools/generate.py            write what has changed
python tools/generate.py --check    change nothing; exit 1 and name what would change
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from clipkit import verbs
from clipkit.completion import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
COMPLETIONS = {"bash": "clipkit.bash", "zsh": "_clipkit", "fish": "clipkit.fish"}
# What the slim install leaves out: torch, what stands on it, and what makes ONNX graphs of its models.
NEED_TORCH = {"torch", "open_clip_torch", "webdataset", "onnx", "onnxscript"}
BEGIN, END = "<!-- verbs: written by tools/generate.py -->\n", "<!-- /verbs -->\n"


def slim_requirements() -> str:
    """The dependencies of pyproject.toml without torch and what needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kept = [need for need in project["dependencies"] if re.split(r"[<>=!~;\[ ]", need)[0] not in NEED_TORCH]
    return (
        "# For the install without torch. Written by tools/generate.py from pyproject.toml.\n" + "\n".join(kept) + "\n"
    )


def verb_table() -> str:
    """All built-in verbs, under their headings."""
    rows = ["| verb | |", "|---|---|"]
    for group, found in verbs.grouped(verbs.builtins()).items():
        rows.append(f"| **{group}** | |")
        rows += [f"| `{verb.name}` | {verb.summary} |" for verb in found]
    return "\n".join(rows) + "\n"


def readme() -> str:
    """README.md with its table made anew."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md needs the lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + verb_table() + end + after


def generated() -> Iterator[tuple[Path, str]]:
    """Every generated file and what it should hold."""
    for shell, name in COMPLETIONS.items():
        yield ROOT / "completions" / name, SCRIPTS[shell]
    yield ROOT / "requirements-slim.txt", slim_requirements()
    yield ROOT / "README.md", readme()


def main() -> None:
    stale = [
        (path, text) for path, text in generated() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        names = ", ".join(str(path.relative_to(ROOT)) for path, _ in stale)
        sys.exit(f"not up to date: {names}\nrun: python tools/generate.py" if stale else 0)
    for path, text in stale:
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
