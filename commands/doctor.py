"""Say what clipkit finds on this machine, and what is wrong.

Group: About

The defaults in force and where each comes from, packages, the cache, the carried model's files, the devices and what
speed to expect. Exits 1 if something needs repair.

Example:

    clipkit doctor
    clipkit doctor --json | jq -r 'select(.section == "defaults")'
"""

import json
from dataclasses import asdict
from typing import Annotated

from typer import Option

from clipkit.errors import ExitCode


def run(as_json: Annotated[bool, Option("--json", help="One JSON object a finding.")] = False) -> ExitCode:
    from clipkit.diagnosis import findings

    section, whole = "", True
    for found in findings():
        whole = whole and found.ok
        if as_json:
            print(json.dumps(asdict(found)))
            continue
        if found.section != section:
            print(f"\n{found.section}" if section else found.section)
            section = found.section
        mark = " " if found.ok else "!"
        print(f"{mark} {found.name:<16} {found.value}{'  (' + found.note + ')' if found.note else ''}", flush=True)
    return ExitCode.OK if whole else ExitCode.FAILED
