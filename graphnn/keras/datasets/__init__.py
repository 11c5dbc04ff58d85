"""Small data sets for first steps and tests: digits is shipped, mnist is downloaded once."""

from graphnn.keras.datasets import digits, mnist

__all__ = ["digits", "mnist"]
