"""Training on the GPU against the CPU, and against itself: losses close, two runs equal in bits.

python benchmarks/gpu_parity.py --steps 200
python benchmarks/gpu_parity.py --steps 20 --tiny
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import graphnn as tf
from benchmarks.gpu_data import FULL, TINY
from benchmarks.gpu_works import WORKS

# Largest difference of losses, relative. Rounding grows from step to step: products are summed in
# another order, and in bfloat16 one unit in the last place is 0.4%.
TOLERANCE = {"mlp_b64": 2e-3, "gpt2_124m": 2e-2}


def train(work: str, device: str, steps: int, tiny: bool) -> tuple[NDArray[np.float64], str]:
    """The losses, and a hash of all Variables at the end."""
    with tf.device(device):
        # The whole GPT-2 would take minutes on a CPU.
        shapes = TINY if tiny or work == "gpt2_124m" else FULL
        made = WORKS[work](shapes[work])
        losses = [made.value(made.step()) for _ in range(steps)]
        found = hashlib.sha256()
        for variable in made.function.get_concrete_function(*made.arguments).variables:
            found.update(variable.numpy().tobytes())
    return np.array(losses), found.hexdigest()


def check(work: str, device: str, steps: int, tiny: bool) -> bool:
    """Train three times and say what came of it."""
    want, _ = train(work, "/CPU:0", steps, tiny)
    first, second = (train(work, device, steps, tiny) for _ in range(2))
    worst = float(np.max(np.abs(first[0] - want) / np.maximum(np.abs(want), 1e-3)))
    equal = first[1] == second[1] and first[0].tobytes() == second[0].tobytes()
    falls = first[0][-1] < first[0][0]
    good = worst <= TOLERANCE[work] and equal and bool(falls)
    print(
        f"{'ok ' if good else 'BAD'} {work}: {steps} steps, loss {first[0][0]:.5f} -> "
        f"{first[0][-1]:.5f}, largest difference to the CPU {worst:.1e} "
        f"(allowed {TOLERANCE[work]:.0e}), two runs {'equal' if equal else 'DIFFER'} in bits",
        flush=True,
    )
    return good


def main() -> int:
    """Run a command line. Returns the exit status: 1 if a training differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="small shapes")
    parser.add_argument("--device", default="/GPU:0")
    options = parser.parse_args()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    good = [check(work, options.device, options.steps, options.tiny) for work in TOLERANCE]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
