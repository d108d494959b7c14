"""Downloading against the bare minimum: `clipkit fetch`, a plain asyncio loop, and `curl --parallel`, as a ratio.

Example:

    python benchmarks/fetch.py --images 5000

A server on this machine, in a process of its own, answers each request with one JPEG of about --kilobytes after
--latency seconds. All sides keep --concurrency requests going to that one host and write each image to a file. The loop
does nothing else: aiohttp, one file an answer; it neither checks nor hashes, measures, shards, retries nor records.
Median of --rounds, in turns; whole processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, Popen

from common import CLIPKIT, facts, middle, run, scratch, spread, table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=5000)
    arguments.add_argument("--kilobytes", type=int, default=30)
    arguments.add_argument("--latency", type=float, default=0.02)
    arguments.add_argument("--concurrency", type=int, default=128)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    server = Popen(
        [sys.executable, __file__, "serve", str(given.kilobytes), str(given.latency)], stdout=PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        with scratch() as folder:
            compare(folder, [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(given.images)], given)
    finally:
        server.kill()


def compare(folder: Path, urls: list[str], given: argparse.Namespace) -> None:
    records, config = folder / "urls.jsonl", folder / "curl.txt"
    records.write_text("".join(json.dumps({"image": url}) + "\n" for url in urls))
    (folder / "urls.txt").write_text("\n".join(urls))
    at_once = str(given.concurrency)
    flags = ["--allow-private", "--concurrency", at_once, "--per-host", at_once]
    commands = {
        "clipkit fetch": lambda to: [*CLIPKIT, "fetch", str(records), "--to", to, "-o", f"{to}.jsonl", *flags],
        "plain aiohttp loop": lambda to: [sys.executable, __file__, "loop", str(folder / "urls.txt"), to, at_once],
    }
    if shutil.which("curl"):
        curl = ["curl", "--silent", "--parallel", "--parallel-max", at_once, "--config", str(config)]
        commands["curl --parallel"] = lambda to: curl
    found: dict[str, list] = {name: [] for name in commands}
    for _ in range(given.rounds):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory(dir=folder) as to:
                config.write_text("".join(f'url = "{url}"\noutput = "{to}/{i}"\n' for i, url in enumerate(urls)))
                found[name].append(run(command(to)))
    least = middle(found["plain aiohttp loop"]).wall
    print(facts("aiohttp"), end="\n\n")
    table(
        ("", "wall", "images/s", "CPU ms an image", "to the loop"),
        (
            (
                name,
                spread(some),
                f"{len(urls) / middle(some).wall:,.0f}",
                f"{middle(some).cpu / len(urls) * 1000:.2f}",
                f"{middle(some).wall / least:.2f}x",
            )
            for name, some in found.items()
        ),
    )


async def serve(kilobytes: int, latency: float) -> None:
    """Answer every request with one picture; the port is printed."""
    import io
    import random

    from PIL import Image

    side = int((kilobytes * 1024 / 1.5) ** 0.5)  # noise, at quality 75
    noise = Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (buffer.tell(), buffer.getvalue())

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(latency)
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def loop(urls: str, to: str, at_once: int) -> None:
    """The least that downloads: as many workers as requests at once, a file an answer."""
    import aiohttp

    todo = enumerate(Path(urls).read_text().splitlines())

    async def work(session: aiohttp.ClientSession) -> None:
        for number, url in todo:
            async with session.get(url) as response:
                Path(to, str(number)).write_bytes(await response.read())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(at_once)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2]), float(sys.argv[3])))
    elif sys.argv[1:2] == ["loop"]:
        asyncio.run(loop(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main()
