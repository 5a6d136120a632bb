"""How long a fresh process takes to its first step, beyond `import torch`.

    python benchmarks/startup.py --out benchmarks/startup.md

Every number comes from processes of their own. Warm: machine code is in the disk cache, as after the first
run ever. Cold: the cache is an empty directory, so that the rule's kernel is compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

from _timing import deliver, duration, machine, note, quartiles, table

WARM_TARGET, COLD_TARGET, IMPORT_TARGET = 0.6, 2.0, 0.3

PROCESS = """
import json, sys, time
start = time.perf_counter()
import torch
torch_there = time.perf_counter()
library, rule = sys.argv[1:]
if library == "descend":
    import descend
imported = time.perf_counter()
kind = torch.optim.Adam if library == "torch" else descend.optimizer(rule)
weights = [torch.nn.Parameter(torch.ones(64, 64)), torch.nn.Parameter(torch.ones(64))]
for w in weights:
    w.grad = torch.ones_like(w)
ready = time.perf_counter()
optimizer = kind(weights)
optimizer.step()
done = time.perf_counter()
lost = ready - imported if library == "torch" else 0.0
print(json.dumps({
    "torch": torch_there - start, "import": imported - torch_there, "step": done - torch_there - lost
}))
"""


def fresh(library: str, rule: str, cache: str) -> dict[str, float]:
    """Seconds in one fresh process: `import torch`, the import of the library, all up to the first step."""
    environment = {**os.environ, "DESCEND_CACHE_DIR": cache}
    command = [sys.executable, "-c", PROCESS, library, rule]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def repeated(library: str, rule: str, cache: str, times: int) -> dict[str, list[float]]:
    """The same, several times."""
    found = [fresh(library, rule, cache) for _ in range(times)]
    note(f"{library}, {rule}")
    return {key: [f[key] for f in found] for key in found[0]}


def measure(rules: list[str], times: int) -> str:
    """All processes, as Markdown."""
    rows, verdicts = [], []

    def judge(what: str, values: list[float], target: float) -> None:
        middle = quartiles(values)[1]
        verdicts.append([what, f"< {target:g} s", f"{middle:.3f} s", "pass" if middle < target else "miss"])

    for rule in rules:
        with tempfile.TemporaryDirectory() as cache:
            cold = repeated("descend", rule, cache, 1)
            warm = repeated("descend", rule, cache, times if rule == "adam" else 1)
        for _ in range(times - 1 if rule == "adam" else 0):
            with tempfile.TemporaryDirectory() as cache:
                cold["step"] += repeated("descend", rule, cache, 1)["step"]
        rows.append([rule, duration(cold["step"]), duration(warm["step"])])
        judge(f"first step, cold cache, {rule}", cold["step"], COLD_TARGET)
        judge(f"first step, warm cache, {rule}", warm["step"], WARM_TARGET)
        if rule == "adam":
            judge("import descend", warm["import"], IMPORT_TARGET)
            imports = [duration(warm["torch"]), duration(warm["import"])]
    theirs = repeated("torch", "adam", "", times)
    parts = [
        "All times beyond `import torch`, median (quartiles).",
        table(["", "cold cache", "warm cache"], [*rows, ["torch.optim.Adam", "–", duration(theirs["step"])]]),
        table(["import torch", "import descend"], [imports]),
        "## Targets",
        table(["target", "asked", "measured", "verdict"], verdicts),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="write the tables to this file too")
    parser.add_argument("--times", type=int, default=5, help="processes for Adam's numbers")
    parser.add_argument("--smoke", action="store_true", help="Adam once")
    given = parser.parse_args()
    from descend import rules

    served = [
        name for name in rules.built_in() if not name.startswith("adafactor_")
    ]  # by the class Adafactor
    names = sorted(served, key=lambda name: name != "adam")
    body = measure(["adam"] if given.smoke else names, 1 if given.smoke else given.times)
    deliver(
        "\n\n".join(["# The first step of a fresh process", machine("torch", "llvmlite"), body]), given.out
    )


if __name__ == "__main__":
    main()
