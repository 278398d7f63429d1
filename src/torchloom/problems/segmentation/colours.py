"""How classes of pixels are shown, for `evaluate`, and for `predict`, which does without PyTorch."""

from __future__ import annotations

import numpy as np

from torchloom.data.targets import IGNORED

COLOURS = [(0, 0, 0), (255, 166, 0), (0, 114, 255), (0, 200, 120), (220, 40, 160), (250, 230, 60), (130, 90, 220)]


def overlaid(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images (B, C, H, W) uint8 under masks (B, H, W) in colours: (B, 3, H, W) float32 on [0, 1].

    The first class, and what is IGNORED, has none.
    """
    colours = np.array(COLOURS, dtype=np.float32)[masks.astype(np.int64) % len(COLOURS)].transpose(0, 3, 1, 2) / 255
    pixels = np.broadcast_to(images.astype(np.float32) / 255, colours.shape)
    shown: np.ndarray = np.where(((masks > 0) & (masks != IGNORED))[:, None], pixels / 2 + colours / 2, pixels)
    return shown
