"""A CSV file with text, whole numbers, missing values: each column becomes numbers in its own way.

Run: python examples/csv_columns.py. Needs pyarrow: pip install 'graphnn[data]'.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from graphnn import keras
from graphnn.data.experimental import make_csv_dataset
from graphnn.keras.layers import Concatenate, Dense, Normalization, StringLookup

PRICES = {"Bergen": 11.0, "Gdansk": 8.0, "Lyon": 13.0, "Porto": 9.5}  # rent of a square metre
KINDS = {"flat": 1.0, "house": 1.2, "studio": 0.9}
NUMBERS = ("area", "rooms", "year")
TEXTS = ("city", "kind")


def write_homes(path: Path, count: int, seed: int) -> None:
    """Homes with their monthly rent; a few do not say when they were built."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["city", "kind", "area", "rooms", "year", "rent"])
        for _ in range(count):
            city, kind = str(rng.choice(list(PRICES))), str(rng.choice(list(KINDS)))
            area, year = float(rng.uniform(20, 120)), int(rng.integers(1900, 2025))
            rent = PRICES[city] * KINDS[kind] * area + (year - 1960) + rng.normal(0, 10)
            known = "" if rng.random() < 0.05 else year
            rows.writerow([city, kind, f"{area:.1f}", round(area / 25) + 1, known, f"{rent:.0f}"])


def read(path: Path) -> Any:
    """Batches of ({column: values}, rent); a missing year is taken as 1960."""
    defaults = ["", "", 0.0, 0, 1960, 0.0]  # text, text, float, whole, whole, float
    return make_csv_dataset(
        path, batch_size=32, column_defaults=defaults, label_name="rent", num_epochs=1
    )


def make_model(homes: Any) -> keras.Model:
    """Text as one-hot rows, numbers scaled; what that takes is read from the data."""
    inputs, features = {}, []
    for name in NUMBERS:
        inputs[name] = keras.Input(shape=(1,), name=name)
        scale = Normalization(axis=None)
        scale.adapt(homes.map(lambda row, rent, name=name: row[name]))
        features.append(scale(inputs[name]))
    for name in TEXTS:
        inputs[name] = keras.Input(shape=(1,), name=name, dtype="string")
        lookup = StringLookup(output_mode="one_hot")
        lookup.adapt(homes.map(lambda row, rent, name=name: row[name]))
        features.append(lookup(inputs[name]))
    x = Dense(64, activation="relu")(Concatenate()(features))
    x = Dense(64, activation="relu")(x)
    return keras.Model(inputs, Dense(1)(x))


def main() -> None:
    """Write the files, train from one, test on the other, and ask for one rent."""
    if not find_spec("pyarrow"):
        sys.exit("CSV files are read with pyarrow: pip install 'graphnn[data]'")
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        training, test = Path(folder) / "training.csv", Path(folder) / "test.csv"
        write_homes(training, 2000, seed=1)
        write_homes(test, 400, seed=2)
        print(*training.read_text().splitlines()[:4], sep="\n")
        model = make_model(read(training))
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mae")
        before = model.evaluate(read(test), verbose=0)
        model.fit(read(training), epochs=15, verbose=0)
        after = model.evaluate(read(test), verbose=0)
    print(f"mean error of the rent: {before:.0f} before training, {after:.0f} after")
    home = {"city": "Lyon", "kind": "flat", "area": 50.0, "rooms": 3, "year": 1990}
    one = {name: np.array([[value]]) for name, value in home.items()}
    print(f"50 m² in Lyon of 1990: {model.predict(one, verbose=0)[0, 0]:.0f}, wanted 680")


if __name__ == "__main__":
    main()
