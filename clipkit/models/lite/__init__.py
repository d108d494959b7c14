"""`lite`, the model that the package carries: no network, no torch. MODEL_CARD.md says what it can and cannot do."""

from clipkit.models.lite.encoder import Lite, load

__all__ = ["Lite", "load"]
