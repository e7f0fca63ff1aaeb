"""What starting costs: the package's import, and the program up to its first answer.

Each figure is the median of runs taken in turns, in milliseconds, with what a
bare interpreter of the same kind takes. Goals: the import below 40 ms over the
bare interpreter, ``--help`` and ``drivers`` below 150 ms in all.

    python benchmarks/startup.py [RUNS]
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "import graphdrivers": ["-c", "import graphdrivers"],
    "import graphdrivers.driver": ["-c", "import graphdrivers.driver"],
    "graphdriver --version": ["-m", "graphdrivers", "--version"],
    "graphdriver --help": ["-m", "graphdrivers", "--help"],
    "graphdriver layer --help": ["-m", "graphdrivers", "layer", "--help"],
    "graphdriver drivers": ["-m", "graphdrivers", "--root", "/nonexistent", "drivers"],
}


def measure(arguments: list[str]) -> float:
    """Run one command once; give its wall time [ms]."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            samples[name].append(measure(arguments))
    bare = statistics.median(samples["bare interpreter"])
    for name, taken in samples.items():
        middle = statistics.median(taken)
        print(f"{name:28} {middle:7.1f} ms  {middle - bare:+7.1f} over bare  (least {min(taken):.1f})")


if __name__ == "__main__":
    main()
