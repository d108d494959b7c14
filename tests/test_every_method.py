"""What holds for every method that a registry names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipkit.methods import REGISTRIES
from clipkit.registry import Entry, Registry

ENTRIES = [(registry, entry) for registry in REGISTRIES.values() for entry in registry if not entry.distribution]
every_method = pytest.mark.parametrize(("registry", "entry"), ENTRIES, ids=[f"{r.kind}/{e.name}" for r, e in ENTRIES])


@every_method
def test_its_name_leads_to_it(registry: Registry, entry: Entry) -> None:
    made = registry.get(entry.name)
    assert callable(made)
    assert made.__doc__, "it says what it takes and gives"


@every_method
def test_its_summary_is_a_line(registry: Registry, entry: Entry) -> None:
    assert entry.summary.endswith(".") and len(entry.summary) <= 100 and entry.summary[0].isupper()


def test_listing_imports_no_method() -> None:
    program = "import sys; from clipkit import cli; cli.run(['methods']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not {"numpy", "torch", "onnxruntime", "PIL"} & loaded
    assert all(f"  {entry.name} " in done.stdout for _, entry in ENTRIES)
