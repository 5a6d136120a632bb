"""A torch.optim.Optimizer over formulas: kernels, state, hooks, checks. Its subclasses say which formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, overload

import torch
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import rules
from ..errors import UsageError
from ..formula import Rule
from ..kernels.counters import Member
from ..kernels.cpu.counting import Items
from ..kernels.cpu.replay import Replay
from ..kernels.matrix_plans import Arena
from ..kernels.plans import CpuPlan, TorchPlan
from ..kernels.staged import StagedCpuPlan, StagedTorchPlan, launch_together
from .checks import Where, check_keys, check_saved_groups, check_values, raw
from .detour import STRAIGHT, Detour
from .members import places, reader, started
from .parts import plain, untraced
from .replays import Replays, replay_of
from .state import (
    NEUTRAL,
    Changes,
    OptimizerState,
    ParameterState,
    adopted,
    nothing,
)
from .ways import Way

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]

BETAS: Mapping[str, Where] = {"beta1": ("betas", 0), "beta2": ("betas", 1)}

_profiled = torch._C._autograd._profiler_enabled


class FormulaOptimizer(TorchOptimizer):
    """Base of all optimizers here; what it does not say is as in torch.optim.Optimizer.

    A subclass gives `_rule`, the rule that a parameter group follows, and `_variant`, what of the group
    decides it. The state lies under torch's names, and state dicts cross over to torch and back.
    """

    hyper_keys: ClassVar[Mapping[str, Where]] = {}
    """Where a group keeps a hyper-parameter that has another name there: "beta1" -> ("betas", 0)."""

    step_key: ClassVar[str | None] = "step"
    """The name of the step count in the state dict; None where torch keeps none."""

    family: ClassVar[tuple[str, ...]] = ()
    """The rules that the class's options choose among; their states may lie in its state dict."""

    def __init__(self, params: Params, defaults: dict[str, Any], *, strict: bool = False) -> None:
        if defaults.get("capturable"):
            raise UsageError(
                f"{type(self).__name__}(capturable=True): the scalars of a step are computed on the host, "
                "so it cannot be captured in a graph; leave capturable=False"
            )
        if defaults.get("fused") and defaults.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        self.strict = strict
        super().__init__(params, defaults)
        self.state = OptimizerState(Changes(), {}, self._fresh())

    @property
    def state(self) -> Any:  # torch's is a plain attribute
        """Every parameter's state, under torch's names."""
        return self.__dict__["state"]

    @state.setter
    def state(self, content: Any) -> None:
        if not isinstance(content, OptimizerState):
            changes = Changes()
            changes.show()  # whoever gives states may go on holding them
            content = OptimizerState(changes, content, self._fresh())
        self.__dict__["state"] = content
        self._changes: Changes = content.changes
        self._forget()

    def _forget(self) -> None:
        self._seen = -1
        self._plans: list[CpuPlan | TorchPlan] = []
        self._staged: list[StagedCpuPlan | StagedTorchPlan] = []
        self._snapshot: list[tuple[Hashable, Items]] = []
        self._dormant: list[torch.Tensor] = []
        self._known: dict[int, tuple[int, str]] = {}
        self._unstepped: set[int] = set()
        self._detour = self._planned_by = STRAIGHT
        self._replays = Replays()

    # -- what a subclass says -------------------------------------------------------------------------

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        """What of a group decides its formulas and its back end; compared at every step.

        Of a number that may change from step to step, only whether it is zero.
        """
        raise NotImplementedError

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a group follows, with the modifiers that it asks for."""
        raise NotImplementedError

    def _rule_of(self, group: Mapping[str, Any], p: torch.Tensor) -> Rule:
        """The rule that a parameter follows, where that hangs on its shape or type."""
        return self._rule(group)

    def _place(self, p: torch.Tensor) -> tuple[int, str]:
        """Which of the optimizer's parameters this is, from 0, and its name where they came with names."""
        self._known = self._known or places(self.param_groups)
        return self._known[id(p)]

    def _fresh(self) -> Callable[[Any], Mapping[str, Any]]:
        """What makes the state that is found at a parameter before its first step."""
        return nothing  # a method of this object would keep it, and all states, from being freed at once

    def _sparse(self, group: Mapping[str, Any]) -> str:
        """How to take a sparse gradient: "touched" (only what it holds) or "dense"; or a RuntimeError."""
        raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")

    @property
    def rule(self) -> Rule:
        """The rule of the first parameter group, with its modifiers."""
        return self._rule(self.param_groups[0])

    # -- the step -------------------------------------------------------------------------------------

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if self._replayed():
                return loss
        self._replays.leave()
        if not (self._still_holds() and self._prepared()):
            with torch.inference_mode(False):  # the states outlive a step in inference mode
                self._plan()
            if not self._prepared():
                raise RuntimeError("a parameter, gradient or state changed while the optimizer looked at it")
        for plan in self._plans:
            plan.launch()
        if self._staged:
            launch_together(self._staged)
        if self._unstepped:
            self._unstepped.clear()
        self._replays.note(self._written_down)
        return loss

    _observed_step = TorchOptimizer.profile_hook_step(_step)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step, for every parameter that has a gradient.

        `closure` computes the loss anew and is called first; its value is returned.
        """
        if closure is None and self._replayed():
            return None
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or _profiled()
        ):
            return self._observed_step(closure)  # type: ignore[no-any-return]
        return self._step(closure)  # type: ignore[no-any-return]

    def step_by(self, detour: Detour) -> None:
        """Take a step by a wrapper's detour; an ImpassableError says that nothing was done."""
        self._detour = detour
        self._replays.leave()
        try:
            self.step()
        finally:
            self._detour = STRAIGHT

    def _replayed(self) -> bool:
        """Take the step as the last one was taken, if all is as it was then and nobody watches."""
        return self._replays.again(
            self.param_groups, self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks
        )

    def _written_down(self) -> Replay | None:
        """The last step, to be replayed; None where it cannot be."""
        if self._dormant or self._planned_by is not STRAIGHT:
            return None
        plans = [*self._plans, *self._staged]
        found = replay_of(self, plans, self.hyper_keys, self._changes.counted, self._seen)
        return found if self._still_holds() else None

    def _prepared(self) -> bool:
        """Whether every plan fits the tensors as they are now."""
        for plan in self._plans:  # a generator costs as much as a small plan
            if not plan.prepare():
                return False
        return not self._staged or all(plan.prepare() for plan in self._staged)

    def _still_holds(self) -> bool:
        """Whether the plans fit the groups and states as they are now."""
        groups = self.param_groups
        if self._changes.count != self._seen or len(self._snapshot) != len(groups):
            return False
        if self._detour is not self._planned_by or not self._detour.holds():
            return False
        for group, (variant, params) in zip(groups, self._snapshot):  # noqa: B905  of one length
            if not params.in_list(group["params"]) or self._variant(group) != variant:
                return False
        return not self._dormant or all(p.grad is None for p in self._dormant)

    def _plan(self) -> None:
        """Sort all parameters that have a gradient or a state into plans."""
        self._plans, self._staged, self._dormant, self._known, self._seen = [], [], [], {}, -1
        detour = self._planned_by = self._detour
        self._replays = Replays()
        detour.begin()
        awake: list[tuple[Rule, dict[str, Any], torch.Tensor, str]] = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and not detour.knows(p, self.state.peek(p)):
                    self._dormant.append(p)
                    continue
                rule = self._rule_of(group, p)
                if p.device.type == "meta":
                    raise RuntimeError("a parameter on the meta device has no numbers; materialise it first")
                sparse = p.grad is not None and p.grad.layout != torch.strided
                awake.append((rule, group, p, self._sparse(group) if sparse else ""))
        times = Counter(id(p) for _, _, p, _ in awake)
        members: dict[int, Member] = {}
        sorted_members: dict[Way, list[Member]] = {}
        arena = Arena()
        try:
            for rule, group, p, sparse in awake:
                member = members.get(id(p)) or self._member(rule, group, p)
                members[id(p)] = member
                detour.lend(member)
                taken = detour.rule(rule, group, self.hyper_keys)
                values = self._values(taken, exact=bool(group.get("differentiable")))
                how = Way.of(member, taken, values(group), sparse, alone=times[id(p)] == 1)
                detour.check(how)
                sorted_members.setdefault(how, []).append(member)
            # the largest matrices come first: the others find room in their temporaries
            for how, found in sorted(sorted_members.items(), key=lambda item: -item[0].weight * len(item[1])):
                values = self._values(how.program.rule, exact=how.traced)
                plans = how.plans(found, values, self.step_key, not self._changes.shown, arena)
                (self._staged if how.program.rule.reduces else self._plans).extend(plans)
        finally:
            detour.take_back(members.values())
        self._snapshot = [(self._variant(g), Items(g["params"])) for g in self.param_groups]
        # whoever else holds this state (a copy of the optimizer) must look at it anew
        self._changes.count += 1
        self._seen = self._changes.count

    def _values(self, rule: Rule, exact: bool = False) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
        """A quick reader of a rule's hyper-parameters from a group, as floats (`exact`: as they stand)."""
        places = tuple(self.hyper_keys.get(h.name, h.name) for h in rule.hypers)
        # float() of a tensor that requires a gradient warns
        learned = any(getattr(raw(g, at), "requires_grad", False) for g in self.param_groups for at in places)
        return reader(places, "{}" if exact else "_detached({})" if learned else "float({})")

    # -- state ----------------------------------------------------------------------------------------

    def _member(self, rule: Rule, group: dict[str, Any], p: torch.Tensor) -> Member:
        """The parameter with its state, allocated now if it has none yet."""
        state = self.state.raw(p) if rule.states or self.step_key else ParameterState(self._changes, {})
        if not any(s.key in state for s in rule.states):
            self._unstepped.add(id(p))
        traced = bool(group.get("differentiable"))
        values = self._values(rule, exact=traced)(group)
        hypers = dict(zip((h.name for h in rule.hypers), values, strict=True))
        origin = self._detour.origin(p)
        for s in rule.states:
            value = state.get(s.key)
            value = self._place(p)[0] if s.init == "place" and value is None else value
            dict.__setitem__(state, s.key, started(rule, s, origin, value, hypers, traced))
        if self.step_key is not None:
            return Member(p, group, state, float(state.get(self.step_key, 0.0)))
        return Member(p, group, state, 0.0 if id(p) in self._unstepped else 1.0)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "strict": self.strict}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.state = self.__dict__["state"]
        self.state.fresh = self._fresh()
        for group in self.param_groups:
            for key in self.defaults:
                if key in NEUTRAL:
                    group.setdefault(key, NEUTRAL[key])
            if "capturable" in group:  # says how torch ran it, not what
                group["capturable"] = False

    @untraced
    def state_dict(self) -> dict[str, Any]:
        """The state, as torch's class of the same name has it; it loads into either."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed = {key: value for key, value in group.items() if key != "params"}
            groups.append({**packed, "params": [numbers[id(p)] for p in group["params"]]})
        state: dict[Any, Any] = {}
        for key in self.state:
            number = numbers[id(key)] if isinstance(key, torch.Tensor) else key
            value: Any = self.state.peek(key)
            if not isinstance(value, dict):
                state[number] = value
            elif value:  # the same memory, as in torch, but not the tensors that the steps rely on
                state[number] = {
                    k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in value.items()
                }
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for after in self._optimizer_state_dict_post_hooks.values():
            result = _or(after(self, result), result)
        return result

    @untraced
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state and the parameter groups of a state dict of this class or of torch's.

        Tensors are copied, to the parameters' devices and types; a float32 state of a half-precision
        parameter stays float32.

        Raises UsageError (a ValueError) for a state dict of other groups, of another rule or of other shapes.
        """
        given = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            given = _or(before(self, given), given)
        saved = deepcopy(given["param_groups"])
        needed = [key for key in self.defaults if key not in NEUTRAL]
        check_saved_groups(self.param_groups, saved, needed, type(self).__name__)
        owners: dict[Any, tuple[torch.Tensor, dict[str, Any]]] = {}
        for group, other in zip(self.param_groups, saved, strict=True):
            owners |= {n: (p, other) for n, p in zip(other["params"], group["params"], strict=True)}
        state = OptimizerState(Changes(), {}, self._fresh())
        for key, value in given["state"].items():
            if key in owners:
                p, group = owners[key]
                state[p] = self._adopted(p, {**self.defaults, **NEUTRAL, **group}, value)
            else:
                state[key] = value
        for group, other in zip(self.param_groups, saved, strict=True):
            other["params"] = group["params"]
            if "param_names" in group:
                other.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _adopted(self, p: torch.Tensor, group: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
        """A parameter's saved state, checked, in memory of our own."""
        rule = self._rule_of(group, p)
        hypers = dict(zip((h.name for h in rule.hypers), self._values(rule)(group), strict=True))
        others = [*map(rules.get, self.family)]
        return adopted(p, saved, rule, others, hypers, self.step_key, type(self).__name__)

    @untraced
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; options that it leaves out are the optimizer's defaults.

        Raises UsageError for values out of range and for keys that are nearly those of an option.
        """
        if isinstance(param_group, dict):
            check_keys(param_group, self.defaults, type(self).__name__)
            group = {**self.defaults, **param_group}
            self._check(group)
        plain(TorchOptimizer.add_param_group)(self, param_group)
        self._changes.count += 1

    def _check(self, group: Mapping[str, Any]) -> None:
        check_values(group, self._rule(group).hypers, self.hyper_keys, self.strict)

    @untraced
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or with `set_to_none=False` set them to zero."""
        if set_to_none and not torch._C._autograd._profiler_enabled():
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = None
        else:
            plain(TorchOptimizer.zero_grad)(self, set_to_none)

    def __repr__(self) -> str:
        kinds = sorted({plan.backend for plan in [*self._plans, *self._staged]})
        return f"{super().__repr__()[:-1]}\nback end: {', '.join(kinds) or 'chosen at the first step'}\n)"


untraced(FormulaOptimizer.step)
FormulaOptimizer.step.__dict__["hooked"] = True  # torch need not wrap it: step() serves hooks and profiler


def _or(answer: Any, otherwise: Any) -> Any:
    return otherwise if answer is None else answer
