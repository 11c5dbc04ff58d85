"""Switches of the process that running programs look at; `graphnn.config` changes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """All switches with their defaults.

    tf32: whether float32 products on a GPU may round their factors to TF32 (10 bits of fraction),
    as TensorFlow does by default. log_placement: whether each eager op and copy prints its device.
    epilogues: whether products on a GPU take in the bias, activation and sums that follow them.
    cudnn: whether attention on a GPU is cuDNN's where it can be. The last two count for functions
    that are compiled after the change.
    """

    tf32: bool = True
    log_placement: bool = False
    epilogues: bool = True
    cudnn: bool = True


settings = Settings()
