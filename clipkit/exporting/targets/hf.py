"""A model as transformers has it: config.json, model.safetensors, and the files of its processor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Job, Written
from clipkit.exporting.whole import WholeModel

if TYPE_CHECKING:
    from pathlib import Path

    from clipkit.models.base import Encoder


class Hf(WholeModel):
    """Weights, configuration, tokenizer and processor as transformers loads them: CLIPModel for ViTs as OpenAI's,
    SiglipModel for SigLIP's. The source's very weights; a model that transformers has no class for is refused."""

    packages: ClassVar = {"transformers": "pip install 'clipkit[hf]'", "open_clip": "pip install open_clip_torch"}

    def write(self, job: Job) -> Written:
        from safetensors.torch import save_file

        from clipkit.exporting import hf_config, hf_layout

        encoder = self.encoder(job)
        identity, model = encoder.identity, encoder.module()
        config = hf_config.config_of(model, identity)
        kind = config["model_type"]
        pixels = hf_config.pixels_of(kind, identity)
        prefix = hf_config.text_prefix(model)
        try:
            weights = hf_layout.to_transformers(model.state_dict(), hf_layout.lines_of(config, prefix))
            about = job.source.tokenizer(job.scratch)
        except ClipkitError as error:
            raise hf_config.misfit(kind, identity, error.message) from None
        made = job.scratch / about["file"]
        config |= {"dtype": "float32"}
        config["text_config"] |= hf_config.write_tokenizer(
            kind, identity, made, about, encoder.context_length, job.folder
        )
        for name, value in (("config.json", config), ("preprocessor_config.json", pixels)):
            (job.folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        # transformers wants the format; the prefix is what its names don't tell, for the way back.
        save_file(weights, job.folder / "model.safetensors", {"format": "pt", "open_clip_text_prefix": prefix})
        return Written(facts={"layout": config["architectures"][0], "processor": self._processor(job)})

    def open(self, folder: Path) -> Encoder:
        from clipkit.exporting.hf_encoder import TransformersEncoder

        return TransformersEncoder(folder)

    def _processor(self, job: Job) -> dict[str, float]:
        from clipkit.exporting.hf_encoder import TransformersEncoder, processor_facts

        facts = processor_facts(TransformersEncoder(job.folder), job.samples().pictures)
        if facts["cosine_min"] < self.limits.cosine:
            job.tell(
                "the weights are the same, but transformers' own image processor crops some pictures a pixel beside "
                f"open_clip: least cosine {facts['cosine_min']:.4f}, mean {facts['cosine_mean']:.4f} (parity.json)"
            )
        return facts
