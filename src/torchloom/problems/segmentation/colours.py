"""How classes of pixels are shown, for `evaluate`, and for `predict`, which does without PyTorch."""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np

from torchloom.data.targets import IGNORED

COLOURS = [(0, 0, 0), (255, 166, 0), (0, 114, 255), (0, 200, 120), (220, 40, 160), (250, 230, 60), (130, 90, 220)]
TURN = 0.618034  # of the circle of hues from one class to the next, so that none comes near those before
RED = (0.9, 0.1, 0.1)
MOST_NAMED = 24  # classes that a key names beside the first


def colour_of(number: int) -> tuple[float, float, float]:
    """The red, green and blue of a class, on [0, 1]."""
    if number < len(COLOURS):
        red, green, blue = (value / 255 for value in COLOURS[number])
        return red, green, blue
    return hsv_to_rgb(number * TURN % 1, 0.6 if number % 2 else 1.0, 0.9 if number % 3 else 0.6)


def overlaid(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images (B, C, H, W) uint8 under masks (B, H, W) in colours: (B, 3, H, W) float32 on [0, 1].

    The first class, and what is IGNORED, has none.
    """
    table = np.array([colour_of(number) for number in range(IGNORED + 1)], dtype=np.float32)
    colours = table[masks.astype(np.int64)].transpose(0, 3, 1, 2)
    pixels = np.broadcast_to(images.astype(np.float32) / 255, colours.shape)
    shown: np.ndarray = np.where(((masks > 0) & (masks != IGNORED))[:, None], pixels / 2 + colours / 2, pixels)
    return shown


def mistakes(images: np.ndarray, masks: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The same with what is wrong in RED, and all else pale; what is IGNORED in the masks is never wrong."""
    pixels = np.broadcast_to(images.astype(np.float32) / 255, (len(images), 3, *images.shape[2:]))
    wrong = ((masks != answers) & (masks != IGNORED))[:, None]
    shown: np.ndarray = np.where(wrong, np.reshape(RED, (1, 3, 1, 1)), 0.6 + 0.4 * pixels.mean(1, keepdims=True))
    return shown


def key(classes: list[str]) -> list[tuple[str, tuple[float, float, float]]]:
    """The names of the classes and their colours, of the first 24 where there are more; the first has none."""
    named = [(name, colour_of(number)) for number, name in enumerate(classes)][1 : MOST_NAMED + 1]
    more = [(f"{len(classes) - 1 - MOST_NAMED} more", (1.0, 1.0, 1.0))] if len(classes) - 1 > MOST_NAMED else []
    return [(f"{classes[0]} (not coloured)", (1.0, 1.0, 1.0)), *named, *more]
