"""What the targets share that ship a whole model of open_clip as weights and configuration, without graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.errors import UsageError
from clipkit.exporting.base import TOWERS, Job, Target

if TYPE_CHECKING:
    from clipkit.models.open_clip import OpenClipEncoder


class WholeModel(Target):
    """A target whose folder other libraries load as a model: both towers and the logit scale, or nothing."""

    def check(self) -> None:
        super().check()
        if self.wish.towers != TOWERS:
            raise UsageError(
                "--tower is not for this target: what it writes is loaded as a model, and a model has both towers",
                "onnx, fp16, openvino and torch.export ship one tower",
            )

    def encoder(self, job: Job) -> OpenClipEncoder:
        """The model to write, an adapter's weights merged into it.

        Raises UsageError where it is none of open_clip, or the adapter is not one of weights.
        """
        from clipkit.models.open_clip import OpenClipEncoder

        encoder, saved = job.source.encoder, job.source.saved
        if not isinstance(encoder, OpenClipEncoder):
            raise UsageError(
                f"{encoder.identity.name} is no model of open_clip, and this target holds the weights of one",
                "name the model that it was made of; lite and exports ship as onnx",
            )
        if saved is not None and not saved.adapter.changes_weights():
            raise UsageError(
                f"{saved.adapter.name} works on features: it has no place in the weights of a model",
                "--to head ships it with the image tower",
            )
        return encoder
