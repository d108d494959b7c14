"""Run the README's console examples and put their real output under them; `--check`, as in CI, only compares.

Of a block that begins with ```console, lines starting with `$ ` are commands, run in a folder that holds samples/;
the rest is what they print, stderr included. Blocks that install something stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
STILL = ("pip install",)


def main() -> int:
    before = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "samples", Path(scratch, "samples"))
        after = re.sub(
            r"(?<=```console\n).*?(?=```)", lambda block: replay(block[0], Path(scratch)), before, flags=re.S
        )
    if "--check" in sys.argv:
        if drifted := plain(after) != plain(before):
            print(
                "README.md shows other output than the program gives: run python tools/readme_tour.py", file=sys.stderr
            )
        return int(drifted)
    README.write_text(after, encoding="utf-8")
    return 0


def plain(text: str) -> str:
    """What must not drift: without seconds, and with numbers as precise as another machine's arithmetic allows."""
    text = re.sub(r" in \d+\.\d s$", "", text, flags=re.MULTILINE)
    return re.sub(r"0\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)


def replay(block: str, folder: Path) -> str:
    """A console block with the output of its commands."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    if any(word in block for word in STILL):
        return block
    shown = ""
    for command in commands:
        env = {**os.environ, "CLIPKIT_CACHE": str(folder / "cache"), "CLIPKIT_PLUGINS": ""}
        done = subprocess.run(
            ["bash", "-c", command.removeprefix("$ ")],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        shown += f"{command}\n{done.stdout}"
    return shown


if __name__ == "__main__":
    sys.exit(main())
