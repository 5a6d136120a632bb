"""The subjects of kinds.py: our rules and chains, and the packages that have them, with equal numbers."""

from __future__ import annotations

from typing import Any

from _kinds_peers import (
    ADAMW,
    DECAY,
    FOREACH,
    LR,
    PO,
    TORCH_CLIP,
    TORCH_MUON,
    Layout,
    Peer,
    Subject,
    cautious_optax,
    heavyball,
    kozistr,
    kozistr_muon,
    of,
    optax,
    optax_sophia,
    our_lookahead,
    our_sam,
    our_schedule_free,
    ours,
    schedulefree,
    sophia_steps,
    their_lookahead,
    their_sam,
    torch_chain,
    torch_clip_norm,
    torch_muon_compiled,
)

from descend import modifiers, rules
from descend.formula import chain

BOTH: dict[str, Any] = {"lr": LR, "weight_decay": DECAY}
DECOUPLED = {**BOTH, "weight_decouple": True}
ADAN, MIX = (0.98, 0.92, 0.99), (0.9, 0.999, 0.9999)
EVERY = 10
"""Steps between the costly parts of SOAP and Shampoo."""

SQUARES = (Layout("512 × 512", 1, (512, 512)), Layout("1024 × 1024", 1, (1024, 1024)))
HUGE = Layout("2048 × 2048", 1, (2048, 2048))
SMALL = (Layout("64 of 64 × 64", 64, (64, 64)), Layout("150 of 32 × 32", 150, (32, 32)))


def subjects() -> dict[str, Subject]:
    """Every rule and chain by name."""
    return {**element(), **reduction(), **matrix(), **chains(), **wrapped()}


def element() -> dict[str, Subject]:
    """Rules of one element."""
    return {
        "lion": Subject(
            "element",
            ours("lion", **BOTH),
            {
                "lion-pytorch": of("lion_pytorch", "Lion", **BOTH),
                **kozistr("Lion", betas=(0.9, 0.99), **DECOUPLED),
                "optimi, foreach": of("optimi", "Lion", **BOTH, foreach=True),
                **optax(lambda o: o.lion(LR, weight_decay=DECAY)),
            },
        ),
        "adan": Subject(
            "element",
            ours("adan", **BOTH),
            {
                "adan-pytorch": of("adan_pytorch", "Adan", betas=(0.02, 0.08, 0.01), **BOTH),
                **kozistr("Adan", betas=ADAN, **BOTH),
                "optimi, foreach": of("optimi", "Adan", betas=ADAN, **BOTH, foreach=True),
                **optax(lambda o: o.adan(LR, *ADAN, weight_decay=DECAY)),
            },
        ),
        "ademamix": Subject(
            "element",
            ours("ademamix", **BOTH),
            {
                **kozistr("AdEMAMix", betas=MIX, **DECOUPLED),
                **heavyball("AdEMAMix", betas=MIX, **BOTH),
                **optax(lambda o: o.contrib.ademamix(LR, alpha=5.0, weight_decay=DECAY)),
            },
        ),
        "adopt": Subject(
            "element",
            ours("adopt", lr=LR),
            {
                **kozistr("ADOPT", lr=LR, weight_decay=0.0),
                **heavyball("ADOPT", lr=LR, betas=(0.9, 0.9999)),
                **optax(lambda o: o.contrib.adopt(LR)),
            },
        ),
        "yogi": Subject(
            "element",
            ours("yogi", lr=LR),
            {**kozistr("Yogi", lr=LR, weight_decay=0.0), **optax(lambda o: o.yogi(LR))},
        ),
        "sophia": Subject(
            "element",
            ours("sophia", **BOTH),
            {FOREACH: Peer(sophia_steps), **optax(optax_sophia)},
        ),
    }


def reduction() -> dict[str, Subject]:
    """Rules with sums. torch.compile cannot take torch's Adafactor, which reads numbers out of tensors."""
    largest = {"lr": 1e-2, "weight_decay": DECAY}
    return {
        "lars": Subject(
            "reduction",
            ours("lars", lr=LR),
            {
                **kozistr("LARS", lr=LR, momentum=0.9, weight_decay=5e-4, trust_coefficient=0.001),
                **optax(lambda o: o.lars(LR, 5e-4)),
            },
        ),
        "lamb": Subject(
            "reduction",
            ours("lamb", **BOTH),
            {**kozistr("Lamb", **DECOUPLED), **optax(lambda o: o.lamb(LR, weight_decay=DECAY))},
        ),
        "adafactor": Subject(
            "reduction",
            ours("adafactor", **largest),
            {
                "torch foreach": of("torch.optim", "Adafactor", **largest, foreach=True),
                "torch for-loop": of("torch.optim", "Adafactor", **largest, foreach=False),
                **kozistr("AdaFactor", **largest, betas=(None, 0.999), weight_decouple=True),
                **optax(lambda o: o.adafactor(1e-2, weight_decay_rate=LR)),
            },
        ),
        "prodigy": Subject(
            "reduction",
            ours("prodigy", **BOTH),
            {
                "prodigyopt": of("prodigyopt", "Prodigy", **BOTH),
                **kozistr("Prodigy", **BOTH),
                **optax(lambda o: o.contrib.prodigy(LR, (0.9, 0.999), weight_decay=DECAY)),
            },
        ),
        "stable_adamw": Subject(
            "reduction",
            ours("stable_adamw", **BOTH),
            {
                **kozistr("StableAdamW", **BOTH, kahan_sum=False),
                "optimi, foreach": of("optimi", "StableAdamW", **BOTH, kahan_sum=False, foreach=True),
            },
        ),
    }


def matrix() -> dict[str, Subject]:
    """Rules with matrix routines. Muon iterates five times, in bfloat16, and as optax's in float32."""
    soap = {"lr": LR, "betas": (0.95, 0.95), "weight_decay": DECAY, "precondition_frequency": EVERY}
    return {
        "muon": Subject(
            "matrix",
            ours("muon", **BOTH),
            {
                TORCH_MUON: of("torch.optim", "Muon", **BOTH, momentum=0.95, ns_steps=5),
                f"{TORCH_MUON}, compiled": Peer(torch_muon_compiled, compiles=True),
                "muon, its author's": of("muon", "SingleDeviceMuon", **BOTH, momentum=0.95),
                f"{PO}, batched": Peer(kozistr_muon),
                **heavyball("Muon", **BOTH, betas=(0.95, 0.99)),
            },
            (*SQUARES, HUGE, *SMALL),
        ),
        "muon, float32": Subject(
            "matrix",
            ours("muon", **BOTH, ns_bits=32),
            optax(lambda o: o.contrib.muon(LR, weight_decay=DECAY)),
            (*SQUARES, *SMALL),
        ),
        "soap": Subject(
            "matrix",
            ours("soap", **BOTH),
            {PO: of(PO, "SOAP", **soap), **heavyball("SOAP", **soap, merge_dims=False)},
            (*SQUARES, *SMALL),
            cycle=EVERY,
        ),
        "shampoo": Subject(
            "matrix",
            ours("shampoo", lr=LR, precondition_frequency=EVERY),
            {
                PO: of(PO, "Shampoo", lr=LR, preconditioning_compute_steps=EVERY),
                f"{PO}, ScalableShampoo": of(
                    PO,
                    "ScalableShampoo",
                    lr=LR,
                    start_preconditioning_step=1,
                    preconditioning_compute_steps=EVERY,
                ),
            },
            (*SQUARES, *SMALL),
            cycle=EVERY,
        ),
    }


def chains() -> dict[str, Subject]:
    """AdamW between its modifiers."""
    adamw = rules.get("adamw")
    four = chain(modifiers.clip_value, adamw, modifiers.cautious_unscaled, modifiers.ema_weights)

    def theirs(o: Any) -> Any:
        return o.adamw(LR, weight_decay=DECAY)

    return {
        "clip_value, adamw, cautious_unscaled, ema_weights": Subject(
            "chain",
            ours(four, **BOTH),
            {
                "torch without caution": Peer(torch_chain),
                **optax(lambda o: cautious_optax(o, o.chain(o.clip(1.0), theirs(o)), False, 0.999)),
            },
        ),
        "adamw, cautious": Subject(
            "chain",
            ours(chain(adamw, modifiers.cautious), **BOTH),
            {
                **heavyball("AdamW", **ADAMW, caution=True),
                **optax(lambda o: cautious_optax(o, theirs(o), True)),
            },
        ),
        "clip_global_norm, adamw": Subject(
            "chain",
            ours(chain(modifiers.clip_global_norm, adamw), **BOTH),
            {
                TORCH_CLIP: Peer(torch_clip_norm),
                **optax(lambda o: o.chain(o.clip_by_global_norm(1.0), theirs(o))),
            },
        ),
    }


def wrapped() -> dict[str, Subject]:
    """Wrappers around our classes, and theirs around torch's."""
    return {
        "ScheduleFree(Adam)": Subject(
            "wrapper",
            our_schedule_free,
            {
                "schedulefree, foreach": Peer(schedulefree),
                **kozistr("ScheduleFreeAdamW", **BOTH),
                **heavyball("SFAdamW", **BOTH),
                **optax(lambda o: o.contrib.schedule_free_adamw(LR, weight_decay=DECAY)),
            },
        ),
        "SAM(AdamW)": Subject(
            "wrapper",
            our_sam,
            {FOREACH: their_sam(foreach=True), f"{PO}, fused": their_sam(fused=True)},
        ),
        "Lookahead(AdamW)": Subject("wrapper", our_lookahead, {PO: Peer(their_lookahead)}, cycle=5),
    }
