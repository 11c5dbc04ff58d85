"""The rows of the table: what is timed, in which unit, how fast it shall be, what it must give."""

from dataclasses import dataclass

# Losses and sums that float32 arithmetic in any order gives to TOLERANCE; see "check" in README.
EXPECTED: dict[str, tuple[float, ...]] = {
    "chain": (0.2242092, 0.6419934, 0.2242092),
    "softmax_xent": (9.713493, 1.999804, 9.713493),
    "layernorm": (1.054546, 0.6041969, 74.28924, 72.71304, 1.054546),
    "mlp": (3.310977, 0.00826830),
    "mlp_tiny": (3.307501, 2.690720),
    "fit": (2.59780,),
}
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Unit:
    """A unit of time: its name, and how many of it make a second."""

    name: str
    per_second: float


SECONDS, MILLISECONDS, MICROSECONDS = Unit("s", 1.0), Unit("ms", 1e3), Unit("us", 1e6)
TIMES = Unit("x", 1.0)  # of figures that are no times but ratios of times


@dataclass(frozen=True)
class Run:
    """One command line of cpu.py, apart from the peer: the workload and further options."""

    work: str
    options: tuple[str, ...] = ()
    variant: str = ""
    only_graphnn: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table.

    run, case: whose JSON line; `case` is the part after "/" in the line's work.
    peers: the run whose lines the peers' figures come from, where it is another one.
    field: the figure in the JSON line.
    times: the goal, as a multiple of the best peer's speed.
    under: the goal in seconds.
    """

    label: str
    run: Run
    unit: Unit
    case: str = ""
    peers: Run | None = None
    field: str = "median_s"
    times: float | None = None
    under: float | None = None

    @property
    def work(self) -> str:
        return f"{self.run.work}/{self.case}" if self.case else self.run.work


MLP, FIT, EAGER = Run("mlp"), Run("fit"), Run("eager_add")
MODEL_FIT = Run("fit", ("--variant", "fit"), "fit", only_graphnn=True)
DATASET_FIT = Run("fit", ("--variant", "fit_dataset"), "fit_dataset", only_graphnn=True)
WARM = Run("mlp", ("--warm", "--compile-only"), "warm", only_graphnn=True)

ROWS = (
    Row("chain", Run("chain"), MILLISECONDS, times=2.0),
    Row("softmax_xent", Run("softmax_xent"), MILLISECONDS, times=2.5),
    Row("layernorm", Run("layernorm"), MILLISECONDS, times=2.5),
    Row("mlp", MLP, MILLISECONDS, times=1.25),
    Row("mlp_tiny", Run("mlp_tiny"), MILLISECONDS, times=3.0),
    Row("fit, own loop, epoch", FIT, MILLISECONDS),
    Row("fit, Model.fit, epoch", MODEL_FIT, MILLISECONDS, peers=FIT),
    Row("fit, Model.fit of a Dataset", DATASET_FIT, MILLISECONDS, peers=FIT),
    Row("the same, of Model.fit of arrays", DATASET_FIT, TIMES, field="times_base", under=1.1),
    Row("eager add", EAGER, MICROSECONDS, "add", under=3e-6),
    Row("eager matmul", EAGER, MICROSECONDS, "matmul"),
    Row("eager add, recorded", EAGER, MICROSECONDS, "add_recorded", under=6e-6),
    Row("add and its gradient", EAGER, MICROSECONDS, "tape_per_op"),
    Row("compiled a + 1", EAGER, MICROSECONDS, "jit_call", under=5e-6),
    Row("mlp, first call", MLP, SECONDS, field="first_call_s", under=1.0),
    Row("mlp, cache filled", WARM, SECONDS, field="first_call_s", under=0.1),
    Row("import", Run("import"), SECONDS, under=0.25),
)
