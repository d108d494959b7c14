"""The targets that ship a whole model, and adapters: one that changes weights is in them, another is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.errors import UsageError
from clipkit.exporting.base import Wish
from clipkit.methods import EXPORTERS
from clipkit.methods.adapters import files
from tests.exporting.conftest import Maker
from tests.stages.test_apply_model import Trained
from tests.stages.test_apply_model import root as root
from tests.stages.test_apply_model import trained as trained

WHOLE = ("safetensors", "hf")


@pytest.mark.parametrize("trained", ["lora"], indirect=True)
def test_an_adapters_weights_are_merged(make: Maker, trained: Trained, tmp_path: Path) -> None:
    changed = files.load(trained.folder).adapter.attach(trained.encoder).identity
    assert changed.digest != trained.encoder.identity.digest
    for name in WHOLE:
        written = make(name, trained.model, tmp_path / name, adapter=str(trained.folder))
        assert written.same_weights
        assert EXPORTERS.get(name)(Wish()).open(tmp_path / name).identity.digest == changed.digest


@pytest.mark.parametrize("trained", ["coop"], indirect=True)
@pytest.mark.parametrize("name", WHOLE)
def test_an_adapter_of_features_has_no_place_in_weights(
    make: Maker, trained: Trained, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="coop works on features") as caught:
        make(name, trained.model, tmp_path / "out", adapter=str(trained.folder))
    assert "--to head" in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())
