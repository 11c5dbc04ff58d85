"""Run by the interpreter that has real Keras 3: `real_keras.py write|read FOLDER`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import shared_cases  # type: ignore[import-not-found]


def main(command: str, folder: Path) -> None:
    import keras
    import tensorflow

    for number, case in enumerate(shared_cases.CASES.values()):
        try:
            if command == "write":
                model = shared_cases.build(keras, case)
                model.save(folder / f"{number}.keras")
            else:
                model = keras.models.load_model(folder / f"{number}.keras")
                model.save(folder / f"{number}.again.keras")
            found = shared_cases.outputs(model, case, tensorflow.constant)
            np.save(folder / f"{number}.{command}.npy", found)
        except Exception:  # the test of this one layer shows it
            (folder / f"{number}.error").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
