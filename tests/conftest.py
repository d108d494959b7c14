"""What all tests share: isolation from whoever runs them, a runner, and the optional data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: tests send it to processes
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before numpy is imported, here and in every process that a test starts: BLAS has the threads that it has anywhere, but
# those that wait do so asleep. Else each process burns 0.1 s of a core that the other tests would use.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
settings.register_profile("clipkit", deadline=None)  # another process may have the core for a while
settings.load_profile("clipkit")

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """How a run of clipkit ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Runner(Protocol):
    def __call__(
        self,
        *args: str | Path,
        stdin: str | bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Result: ...


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Built-in defaults, an empty cache, no config file, no plugins; nothing is fetched."""
    for name in [name for name in os.environ if name.startswith("CLIPKIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CLIPKIT_CACHE", str(home / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache-home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config-home"))
    monkeypatch.setenv("CLIPKIT_PLUGINS", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and golden values, which lies beside the repository on some machines."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared/data")
    return folder


@pytest.fixture(scope="session")
def common_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One feature cache for the whole run, in all of its processes: what many tests encode is encoded once."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if hasattr(request.config, "workerinput") else own) / "common-cache"


@pytest.fixture
def warm(common_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test that asks for it has the cache of the whole run: for what is about answers, not about how they came."""
    monkeypatch.setenv("CLIPKIT_CACHE", str(common_cache))
    return common_cache


@pytest.fixture
def clipkit(tmp_path: Path) -> Runner:
    """Run `clipkit ARGS` in a process of its own, in an empty folder; text in, text out, stdin closed by default."""

    def run(
        *args: str | Path,
        stdin: str | bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "clipkit", *map(str, args)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))

    return run


class InProcess(Protocol):
    def __call__(self, *args: str | Path, cwd: Path | None = None) -> Result: ...


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> InProcess:
    """`clipkit ARGS` as `clipkit` runs it, but in the process of the tests: for the many ways to be refused."""
    from clipkit import cli

    def run(*args: str | Path, cwd: Path | None = None) -> Result:
        with monkeypatch.context() as patch, open(os.devnull) as nothing:
            patch.chdir(cwd or tmp_path)
            patch.setattr("sys.stdin", nothing)
            patch.setattr("sys.argv", ["clipkit", *map(str, args)])
            capfd.readouterr()
            code = cli.run(sys.argv[1:])
            return Result(code, *capfd.readouterr())

    return run
