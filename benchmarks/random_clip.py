"""Save open_clip's ViT-B-32 with random weights, for want of trained ones that can be had without a network.

    python benchmarks/random_clip.py FILE.pt

It is as large and as slow as a trained one.
"""

import logging
import sys

import open_clip
import torch

logging.disable(logging.WARNING)  # it warns of what is wanted here: no weights
torch.manual_seed(0)
torch.save(open_clip.create_model("ViT-B-32", pretrained=None).state_dict(), sys.argv[1])
