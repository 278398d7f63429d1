"""The scales on which numbers are learnt, for arrays of NumPy and for tensors alike: `xp` is the module of these."""

from __future__ import annotations

from typing import Any

from torchloom.data.targets import Number

LINEAR, FLAT = 5.0, 2.0  # deviations from the middle up to which the robust scale is linear; how flat it is beyond
LOWEST, HIGHEST = -15.9, 80.0  # log(1 + number) that 32 bits can take back
FURTHEST = 60.0  # logarithm of the deviations beyond LINEAR


def to_scale(xp: Any, number: Number, values: Any) -> Any:
    """Numbers (…) in their unit -> the same on the scale where they have mean 0 and deviation 1.

    The robust scale is linear up to LINEAR deviations and logarithmic beyond, so that a few numbers far beyond all
    others do not decide what is learnt of these.
    """
    if number.scale == "log":
        values = xp.log1p(values)
    far = (values - number.mean) / number.std
    if number.scale != "robust":
        return far
    beyond = xp.clip(xp.abs(far) - LINEAR, 0.0, None)
    return xp.clip(far, -LINEAR, LINEAR) + xp.sign(far) * xp.log1p(beyond) / FLAT


def from_scale(xp: Any, number: Number, scaled: Any, mean: Any = None, std: Any = None) -> Any:
    """What `to_scale` makes something of; `mean` and `std` are the number's, where they are not given otherwise."""
    mean, std = (number.mean, number.std) if mean is None else (mean, std)
    if number.scale == "log":
        return xp.expm1(xp.clip(scaled * std + mean, LOWEST, HIGHEST))
    if number.scale == "robust":
        beyond = xp.expm1(xp.clip(FLAT * (xp.abs(scaled) - LINEAR), 0.0, FURTHEST))
        scaled = xp.clip(scaled, -LINEAR, LINEAR) + xp.sign(scaled) * beyond
    return scaled * std + mean
