"""One fresh process of kinds.py: imports a package, makes its optimizer, takes one step; prints the seconds.

python _first_step.py PACKAGE RULE
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

SHAPE = (1024, 1024)

MAKERS: dict[tuple[str, str], tuple[str, str, dict[str, Any]]] = {
    ("descend", "adamw"): ("descend", "AdamW", {}),
    ("torch", "adamw"): ("torch.optim", "AdamW", {"fused": True}),
    ("HeavyBall", "adamw"): ("heavyball", "AdamW", {"compile_step": True}),
    ("optax", "adamw"): ("optax", "adamw", {}),
    ("descend", "lamb"): ("descend", "lamb", {}),
    ("pytorch_optimizer", "lamb"): ("pytorch_optimizer", "Lamb", {"foreach": True}),
    ("optax", "lamb"): ("optax", "lamb", {}),
    ("descend", "adafactor"): ("descend", "Adafactor", {}),
    ("torch", "adafactor"): ("torch.optim", "Adafactor", {"foreach": True}),
    ("optax", "adafactor"): ("optax", "adafactor", {}),
    ("descend", "muon"): ("descend", "Muon", {}),
    ("torch", "muon"): ("torch.optim", "Muon", {}),
    ("HeavyBall", "muon"): ("heavyball", "Muon", {"compile_step": True}),
    ("optax", "muon"): ("optax.contrib", "muon", {}),
    ("descend", "soap"): ("descend", "soap", {}),
    ("pytorch_optimizer", "soap"): ("pytorch_optimizer", "SOAP", {}),
    ("HeavyBall", "soap"): ("heavyball", "SOAP", {"compile_step": True}),
}
"""(package, rule): where it is found, its name there, its options."""


def jitted(module: Any, name: str) -> Any:
    """optax's step over zeros of the shape, compiled at the first call."""
    import jax

    rule = getattr(module, name)(1e-3)
    params = jax.numpy.ones(SHAPE)
    gradients = jax.numpy.ones(SHAPE)

    def update(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = rule.update(gradients, state, params)
        return jax.tree.map(jax.numpy.add, params, updates), state

    step = jax.jit(update)
    state = rule.init(params)
    return lambda: jax.block_until_ready(step(params, state, gradients))


def main() -> None:
    """Print the seconds of the imports, and of everything."""
    package, rule = sys.argv[1:]
    module, name, options = MAKERS[package, rule]
    start = time.perf_counter()
    if package == "optax":
        found = importlib.import_module(module)
        imported = time.perf_counter()
        step = jitted(found, name)
    else:
        import torch

        found = importlib.import_module(module)
        imported = time.perf_counter()
        p = torch.nn.Parameter(torch.ones(SHAPE))
        p.grad = torch.ones(SHAPE)
        kind = getattr(found, name, None) or found.optimizer(name)
        step = kind([p], **options).step
    step()
    done = time.perf_counter()
    print(json.dumps({"imports": imported - start, "all": done - start}))


if __name__ == "__main__":
    main()
