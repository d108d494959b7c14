"""Training in tests takes one core: others run beside it, and threads that wait for each other are far slower."""

import pytest


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.training import loop

    monkeypatch.setattr(loop, "available_cores", lambda: 1)
