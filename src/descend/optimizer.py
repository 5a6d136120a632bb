"""A torch.optim.Optimizer over any rule."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import is_
from typing import Any, cast

import torch
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from . import rules
from .errors import UsageError, nearest
from .formula import Rule, chain, rule_of, stage
from .kernels import cpu
from .kernels.cpu.gather import same_layout
from .kernels.plans import CpuPlan, Member, TorchPlan
from .modifiers import ascent

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]


def _noticing(name: str) -> Any:
    method = getattr(dict, name)

    def call(self: ParameterState, *args: Any, **kwargs: Any) -> Any:
        self.owner.changed = True
        return method(self, *args, **kwargs)

    return call


class _Flag:
    """Whether someone replaced a state since the last step."""

    changed = True


class ParameterState(dict[str, Any]):
    """A parameter's state as torch keeps it; replacing an entry is noticed before the next step."""

    def __init__(self, owner: _Flag, content: Mapping[str, Any] | None = None) -> None:
        self.owner = owner
        super().__init__(content or {})

    __setitem__ = _noticing("__setitem__")
    __delitem__ = _noticing("__delitem__")
    __ior__ = _noticing("__ior__")
    clear = _noticing("clear")
    pop = _noticing("pop")
    popitem = _noticing("popitem")
    setdefault = _noticing("setdefault")
    update = _noticing("update")

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class OptimizerState(defaultdict[Any, Any]):
    """`optimizer.state`: a ParameterState for every parameter."""

    def __init__(self, owner: _Flag, content: Mapping[Any, Any] | None = None) -> None:
        self.owner = owner
        super().__init__(lambda: ParameterState(owner))
        for key, value in (content or {}).items():
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.owner.changed = True
        super().__setitem__(key, ParameterState(self.owner, value) if type(value) is dict else value)

    def __reduce__(self) -> Any:
        return defaultdict, (dict, {k: dict(v) if isinstance(v, dict) else v for k, v in self.items()})


class Optimizer(TorchOptimizer):
    """Base of all optimizers: one subclass per rule or family of rules.

    A subclass says which rule a parameter group follows (`_variant`, `_rule`) and where the group keeps each
    hyper-parameter (`hyper_keys`). Everything else is here: kernels, state, checks.
    """

    hyper_keys: Mapping[str, str | tuple[str, int]] = {}
    """Where a group keeps a hyper-parameter that has another name there: "beta1" -> ("betas", 0)."""

    step_key: str | None = "step"
    """The name of the step count in the state dict; None where torch keeps none."""

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._flag = _Flag()
        self._plans: list[CpuPlan | TorchPlan] = []
        super().__init__(params, defaults)
        self.state = OptimizerState(self._flag)

    # -- what a subclass says -------------------------------------------------------------------------

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        """What of a group decides its formula; compared at every step."""
        raise NotImplementedError

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a group follows."""
        raise NotImplementedError

    @property
    def rule(self) -> Rule:
        """The rule of the first parameter group."""
        return self._rule_of(self.param_groups[0])

    def _rule_of(self, group: Mapping[str, Any]) -> Rule:
        known: dict[Hashable, Rule] = type(self).__dict__.get("_known") or {}
        if "_known" not in type(self).__dict__:
            type(self)._known = known  # type: ignore[attr-defined]
        variant = self._variant(group)
        if variant not in known:
            known[variant] = self._rule(group)
        return known[variant]

    # -- the step -------------------------------------------------------------------------------------

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._still_holds():
            self._plan()
        if not all(plan.prepare() for plan in self._plans):
            self._plan()
            if not all(plan.prepare() for plan in self._plans):
                raise RuntimeError("a parameter, gradient or state changed while the optimizer looked at it")
        for plan in self._plans:
            plan.launch()
        return loss

    _observed_step = TorchOptimizer.profile_hook_step(_step)

    @torch.compiler.disable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step downhill, for every parameter that has a gradient.

        `closure` computes the loss anew and is called first; its value is returned.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        ):
            return self._observed_step(closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it: hooks and profiler are served above

    def _still_holds(self) -> bool:
        """Whether the plans fit the groups as they are now."""
        if self._flag.changed or len(self._snapshot) != len(self.param_groups):
            return False
        for group, (variant, params) in zip(self.param_groups, self._snapshot, strict=True):
            now = group["params"]
            if len(now) != len(params) or not all(map(is_, now, params)) or self._variant(group) != variant:
                return False
        return all(p.grad is None for p in self._dormant)

    def _plan(self) -> None:
        """Sort all parameters that have a gradient or a state into plans."""
        self._snapshot = [(self._variant(g), list(g["params"])) for g in self.param_groups]
        self._dormant: list[torch.Tensor] = []
        sorted_members: dict[tuple[Any, ...], list[Member]] = {}
        seen: set[int] = set()
        for group in self.param_groups:
            rule = self._rule_of(group)
            for p in group["params"]:
                if p.grad is None and not self.state.get(p):
                    self._dormant.append(p)
                    continue
                member = self._member(rule, group, p)
                program = stage(rule)
                key: tuple[Any, ...] = (
                    program,
                    torch_like := not self._has_kernel(member, rule) or id(p) in seen,
                )
                if torch_like:
                    key += (bool(group.get("differentiable")), id(p) if id(p) in seen else 0)
                else:
                    key += self._dtypes(member, rule)
                seen.add(id(p))
                sorted_members.setdefault(key, []).append(member)
        self._plans = [
            (TorchPlan if key[1] else CpuPlan)(key[0], members, self._values(key[0].rule), self.step_key)
            for key, members in sorted_members.items()
        ]
        self._flag.changed = False

    def _has_kernel(self, member: Member, rule: Rule) -> bool:
        p, g = member.param, member.param.grad
        states = [member.state[s.key] for s in rule.states if not s.scalar]
        return (
            cpu.takes(p)
            and not member.group.get("differentiable")
            and all(s.device == p.device and s.layout == p.layout for s in states)
            and (g is None or (g.layout == torch.strided and g.device == p.device and g.dtype in cpu.DTYPES))
        )

    @staticmethod
    def _dtypes(member: Member, rule: Rule) -> tuple[Any, ...]:
        p = member.param
        g = p.dtype if p.grad is None else p.grad.dtype
        return (p.dtype, g, *(member.state[s.key].dtype for s in rule.states if not s.scalar))

    def _values(self, rule: Rule) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
        """A quick reader of a rule's hyper-parameters from a group, as floats."""
        parts = []
        for hyper in rule.hypers:
            where = self.hyper_keys.get(hyper.name, hyper.name)
            parts.append(
                f"float(g[{where[0]!r}][{where[1]}])" if isinstance(where, tuple) else f"float(g[{where!r}])"
            )
        reader = eval(f"lambda g: ({''.join(part + ', ' for part in parts)})")
        return cast(Callable[[dict[str, Any]], tuple[Any, ...]], reader)

    # -- state ----------------------------------------------------------------------------------------

    def _member(self, rule: Rule, group: dict[str, Any], p: torch.Tensor) -> Member:
        """The parameter with its state, allocated now if it has none yet."""
        state = self.state[p]
        fresh = not any(s.key in state for s in rule.states) and self.step_key not in state
        hypers = dict(zip((h.name for h in rule.hypers), self._values(rule)(group), strict=True))
        for s in rule.states:
            start = hypers[s.init] if isinstance(s.init, str) else s.init
            value = state.get(s.key)
            if s.scalar:
                value = start if value is None else float(value)
            elif value is None:
                value = torch.full_like(p, start, memory_format=torch.preserve_format, requires_grad=False)
            elif value.shape != p.shape:
                raise UsageError(
                    f"the state {s.key!r} has shape {tuple(value.shape)}, its parameter {tuple(p.shape)}; "
                    "load a state that belongs to this model"
                )
            elif not same_layout(value, p) and value.layout == p.layout == torch.strided:
                value = torch.empty_like(p, dtype=value.dtype).copy_(value)
            dict.__setitem__(state, s.key, value)
        if self.step_key is not None:
            count = float(state.get(self.step_key, 0.0))
        else:
            count = 0.0 if fresh else 1.0
        return Member(p, group, state, count)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_flag" not in self.__dict__:
            self._flag = _Flag()
            self._plans = []
        super().__setstate__(state)
        self._flag.changed = True
        if not isinstance(self.state, OptimizerState) or self.state.owner is not self._flag:
            self.state = OptimizerState(self._flag, self.state)

    def state_dict(self) -> dict[str, Any]:
        """The state as torch's class of the same name has it; loads into either."""
        packed = super().state_dict()
        packed["state"] = {k: dict(v) if isinstance(v, dict) else v for k, v in packed["state"].items()}
        return packed

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does."""
        super().add_param_group(param_group)
        self._flag.changed = True

    def __repr__(self) -> str:
        kinds = sorted({plan.backend for plan in self._plans}) or ["not chosen before the first step"]
        return f"{super().__repr__()[:-1]}\nback end: {', '.join(kinds)}\n)"


class RuleOptimizer(Optimizer):
    """An optimizer over one rule, its hyper-parameters named as in the formula."""

    the_rule: Rule

    def __init__(
        self, params: Params, *, maximize: bool = False, differentiable: bool = False, **hypers: float
    ) -> None:
        rule = self.the_rule
        known = [h.name for h in rule.hypers]
        for name in hypers:
            if name not in known:
                raise UsageError(
                    f"{rule.name} takes no {name!r}{nearest(name, known)}; it takes {', '.join(known)}"
                )
        defaults: dict[str, Any] = {h.name: hypers.get(h.name, h.default) for h in rule.hypers}
        for h in rule.hypers:
            h.check(float(defaults[h.name]))
        super().__init__(params, {**defaults, "maximize": maximize, "differentiable": differentiable})

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return bool(group["maximize"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return chain(ascent, self.the_rule) if group["maximize"] else self.the_rule


def optimizer(rule: str | Rule | Callable[..., Any]) -> type[Optimizer]:
    """The optimizer class of a rule: a name of `descend rules`, a Rule, or a bare formula.

    >>> import torch
    >>> def signs(p, g, lr=0.1):
    ...     p = p - lr * sign(g)
    ...     return p
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> opt = optimizer("adam")([w], lr=0.01)

    Raises UsageError for an unknown name, FormulaError for a formula that cannot be read.
    """
    from . import optim

    if isinstance(rule, str):
        known = optim.of_rule(rule)
        if known is not None:
            return known
        rule = rules.get(rule)
    found = rule_of(rule)
    stage(found)
    made = type(
        found.name, (RuleOptimizer,), {"the_rule": found, "__doc__": found.doc, "__module__": __name__}
    )
    plain = inspect.Parameter
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            plain("params", plain.POSITIONAL_OR_KEYWORD),
            *(plain(h.name, plain.KEYWORD_ONLY, default=h.default) for h in found.hypers),
            plain("maximize", plain.KEYWORD_ONLY, default=False),
            plain("differentiable", plain.KEYWORD_ONLY, default=False),
        ]
    )
    return made
