"""Download the images that records name by URL.

Group: Records

Each image goes to a file of its own in a folder, and the record names that file; `url` keeps the address, and sha256,
width, height and `fetch` are added. What cannot be had has the reason in `error`. Local images pass unchanged.
Streams.

Example:

    clipkit fetch urls.parquet --map image=url,text=caption --to images -o images.jsonl
    clipkit fetch urls.jsonl --to images -o images.jsonl --resume --retry-failed --retries 5
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    to: Annotated[str, Option(metavar="DIR", help="The folder that images are saved in.")],
    concurrency: Annotated[int, Option(min=1, metavar="N", help="Downloads at once.")] = 128,
    per_host: Annotated[int, Option(min=1, metavar="N", help="Of them, from one host.")] = 4,
    retries: Annotated[int, Option(min=0, metavar="N", help="Further tries after a failure that may pass.")] = 2,
    timeout: Annotated[float, Option(min=0.1, metavar="SECONDS", help="For one request and its whole answer.")] = 20,
    user_agent: Annotated[str | None, Option(metavar="TEXT", help="What to call ourselves to servers.")] = None,
    allow_private: Annotated[
        bool, Option("--allow-private", help="Also from private and local addresses: for lists you trust.")
    ] = False,
    ignore_robots: Annotated[
        bool, Option("--ignore-robots-tags", help="Also what its server marks noai, noimageai, noindex, noimageindex.")
    ] = False,
) -> ExitCode:
    from clipkit.stages.fetch import Fetch, place
    from clipkit.stream.table import Column

    if user_agent is not None and not (user_agent.isascii() and user_agent.isprintable() and user_agent.strip()):
        raise UsageError(
            f"--user-agent {user_agent!r}: expected printable ASCII", "for example: my-lab/1.0 (me@lab.org)"
        )
    root = pipeline.root(io)
    config = {"to": place(to, root), "allow_private": allow_private, "ignore_robots": ignore_robots}
    runtime = {
        "folder": to,
        "root": root,
        "concurrency": concurrency,
        "per_host": per_host,
        "retries": retries,
        "timeout": timeout,
    }
    if user_agent:
        runtime["user_agent"] = user_agent
    columns = (
        Column("id", 40, lambda r: r.id or ""),
        Column("bytes", 10, lambda r: f"{r.lookup('fetch.bytes', 0):,}", right=True),
        Column("size", 11, lambda r: f"{r['width']}x{r['height']}" if "fetch" in r else "", right=True),
        Column("image", 46, lambda r: r["image"]),
    )
    return pipeline.stream(Fetch(config, runtime), io, columns=columns)
