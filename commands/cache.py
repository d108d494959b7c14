"""Show the feature cache, or clear it.

Group: About

Verbs that run a model keep its features in one file, so that the next verb need not compute them again. The file is
bounded: what was used least recently goes first. --no-cache leaves it out of a run; CLIPKIT_CACHE says in which folder
it lies.

Example:

    clipkit cache
    clipkit cache clear
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from clipkit import config
from clipkit.pipeline import CACHE_BYTES


def run(
    action: Annotated[Literal["show", "clear"], Argument(help="show or clear.")] = "show",
    as_json: Annotated[bool, Option("--json", help="One JSON object.")] = False,
) -> None:
    from clipkit.features.cache import FILE, Cache

    folder = Path(config.setting("cache").value)
    cache = Cache.open(folder if (folder / FILE).exists() else None, CACHE_BYTES)
    before = cache.stats()
    if action == "clear":
        cache.clear()
    after = cache.stats()
    cache.close()
    if as_json:
        held = {"path": str(folder / FILE), "bytes": after.size, "max_bytes": after.max_bytes, "rows": after.rows}
        print(json.dumps(held))
        return
    if action == "clear":
        print(f"removed {sum(before.rows.values()):,} vectors, {(before.size - after.size) / 1e6:,.1f} MB")
        return
    print(f"folder   {folder}")
    print(f"size     {after.size / 1e6:,.1f} MB of at most {after.max_bytes / 1e6:,.0f} MB")
    print(f"vectors  {sum(after.rows.values()):,}")
    for label, count in after.rows.items():
        print(f"  {label:<48} {count:>12,}")
