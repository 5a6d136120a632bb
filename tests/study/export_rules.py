"""The rules and chains that are exported in tests."""

from descend import modifiers, rules
from descend.formula import chain, renamed

CHAINS = (
    chain(modifiers.clip_value, rules.get("adamw"), modifiers.cautious_unscaled, modifiers.ema_weights),
    chain(modifiers.clip_global_norm, rules.get("lamb")),
    chain(modifiers.agc, rules.get("adamw"), modifiers.cautious),
    chain(modifiers.centralise, modifiers.decoupled_decay, rules.get("adan"), modifiers.cautious),
    chain(modifiers.clip_norm, modifiers.coupled_decay, rules.get("asgd"), modifiers.cautious),
    chain(modifiers.independent_decay, rules.get("prodigy"), modifiers.cautious_unscaled),
    chain(renamed(modifiers.coupled_decay, weight_decay="strength"), rules.get("adamw")),
)
RULES = (*map(rules.get, rules.built_in()), *CHAINS)
