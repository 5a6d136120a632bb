"""Small ready models by name, sized by the data; and the loss and the metrics of each task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import initialisers
from .errors import UsageError, nearest

if TYPE_CHECKING:
    from .data import Data

Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def _inputs(data: Data) -> int:
    return int(torch.Size(data.input_shape).numel())


def _activation(name: str) -> type[nn.Module]:
    if name not in ACTIVATIONS:
        raise UsageError(
            f"activation={name!r} is not known{nearest(name, ACTIVATIONS)}; choose one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _positive(what: str, values: Sequence[int]) -> list[int]:
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise UsageError(f"{what}={list(values)}: give whole numbers from 1")
    return list(values)


def _dropout(share: float) -> list[nn.Module]:
    if not 0 <= share < 1:
        raise UsageError(f"dropout={share!r}: give a share from 0 to below 1")
    return [nn.Dropout(share)] if share else []


def _affine(data: Data) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(_inputs(data), data.outputs))


def linear(data: Data) -> nn.Module:
    """One affine map. With the loss of the task: linear, logistic or softmax regression."""
    return _affine(data)


def logistic(data: Data) -> nn.Module:
    """Logistic regression: one affine map to the log-odds of the second class."""
    if data.task != "binary":
        raise UsageError(
            f"model 'logistic' is for two classes; the task is {data.task!r}: use "
            + ("'softmax'" if data.task == "classification" else "'linear' or 'mlp'")
        )
    return _affine(data)


def softmax(data: Data) -> nn.Module:
    """Softmax regression: one affine map to a score per class."""
    if data.task != "classification":
        raise UsageError(
            f"model 'softmax' is for three or more classes; the task is {data.task!r}: use "
            + ("'logistic'" if data.task == "binary" else "'linear' or 'mlp'")
        )
    return _affine(data)


def mlp(
    data: Data, *, hidden: int | Sequence[int] = (256,), activation: str = "relu", dropout: float = 0.0
) -> nn.Module:
    """A multilayer perceptron: flatten, then layers of `hidden` units, then the outputs."""
    widths = _positive("hidden", [hidden] if isinstance(hidden, int) else hidden)
    act = _activation(activation)
    layers: list[nn.Module] = [nn.Flatten()]
    before = _inputs(data)
    for width in widths:
        layers += [nn.Linear(before, width), act(), *_dropout(dropout)]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, data.outputs))


def cnn(
    data: Data,
    *,
    channels: Sequence[int] = (16, 32),
    kernel: int = 3,
    hidden: int = 0,
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """A convolutional network: a padded convolution per entry of `channels`, then the outputs.

    Each convolution is followed by 2×2 max-pooling where the image is at least 16 wide and high, and the last
    one always: 8×8 is pooled once, 28×28 twice.
    """
    shape = data.input_shape if len(data.input_shape) == 3 else (1, *data.input_shape)
    if len(shape) != 3:
        raise UsageError(
            f"model 'cnn' is for images [channels, height, width]; a sample has the shape "
            f"{list(data.input_shape)}: use 'mlp'"
        )
    widths = _positive("channels", channels)
    _positive("kernel", [kernel])
    if kernel % 2 == 0:
        raise UsageError(f"kernel={kernel}: give an odd number, so that the padded image keeps its size")
    act = _activation(activation)
    before, height, width = shape
    layers: list[nn.Module] = [] if len(data.input_shape) == 3 else [nn.Unflatten(1, (1, shape[1]))]
    for k, after in enumerate(widths):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), act()]
        before = after
        if min(height, width) >= 16 or (k == len(widths) - 1 and min(height, width) >= 2):
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers += [nn.Flatten(), *_dropout(dropout)]
    flat = before * height * width
    if hidden:
        layers += [nn.Linear(flat, _positive("hidden", [hidden])[0]), act(), *_dropout(dropout)]
        flat = hidden
    return nn.Sequential(*layers, nn.Linear(flat, data.outputs))


MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "logistic": logistic,
    "softmax": softmax,
    "mlp": mlp,
    "cnn": cnn,
}


def names() -> list[str]:
    """The models' names.

    >>> names()
    ['linear', 'logistic', 'softmax', 'mlp', 'cnn']
    """
    return list(MODELS)


def options(name: str) -> dict[str, Any]:
    """A model's options with their defaults.

    >>> options("mlp")
    {'hidden': (256,), 'activation': 'relu', 'dropout': 0.0}
    """
    return {p.name: p.default for p in list(inspect.signature(_model(name)).parameters.values())[1:]}


def _model(name: str) -> Callable[..., nn.Module]:
    if name not in MODELS:
        raise UsageError(
            f"there is no model {name!r}{nearest(name, MODELS)}; choose one of {', '.join(MODELS)}"
        )
    return MODELS[name]


def default_init(name: str) -> str:
    """The initialiser of a model by name: He for the layers before a ReLU, zeros where the loss is convex."""
    return "zeros" if name in ("linear", "logistic", "softmax") else "he_normal"


def build(name: str, data: Data, *, init: str | None = None, seed: int = 0, **chosen: Any) -> nn.Module:
    """A model by name, sized by `data.input_shape` and `data.outputs`, initialised from `seed`.

    The global random state is left as it was. `chosen` are the model's own options; see `options(name)`.

    Raises:
        UsageError: no such model or option, or the model is not for these data.

    >>> from descend import data
    >>> sum(p.numel() for p in build("mlp", data.load("iris"), hidden=8).parameters())
    67
    """
    make = _model(name)
    allowed = options(name)
    for key in chosen:
        if key not in allowed:
            known = ", ".join(allowed) or "it has none"
            raise UsageError(
                f"model {name!r} has no option {key!r}{nearest(key, allowed)}; its options: {known}"
            )
    if data.outputs < 1 or data.task == "custom":
        raise UsageError(
            f"a model by name cannot be sized for the task {data.task!r}: give a module of your own"
        )
    with torch.random.fork_rng(devices=[]):
        model = make(data, **chosen)
    initialisers.apply(init or default_init(name), model, seed)
    return model


def default_for(data: Data) -> tuple[str, str]:
    """The model taken where none is named, and why.

    >>> from descend import data
    >>> default_for(data.load("digits"))
    ('cnn', 'images of 8×8: convolutions see neighbouring pixels together')
    """
    shape = data.input_shape
    if len(shape) == 3 and min(shape[1:]) >= 4:
        return "cnn", f"images of {shape[1]}×{shape[2]}: convolutions see neighbouring pixels together"
    return (
        "mlp",
        f"{_inputs(data)} inputs in no order that convolutions could use: a perceptron with one hidden layer",
    )


def default_epochs(samples: int, batch: int) -> tuple[int, str]:
    """How many epochs are taken where none are named, and why: about a thousand steps, in 10 to 400 epochs.

    >>> default_epochs(1438, 64)
    (44, '23 steps an epoch: 44 epochs are about a thousand steps')
    """
    steps = -(-samples // batch)
    wanted = -(-1000 // steps)
    epochs = min(max(wanted, 10), 400)
    each = f"{steps} step{'s' if steps > 1 else ''} an epoch: "
    if epochs == wanted:
        return epochs, f"{each}{epochs} epochs are about a thousand steps"
    return epochs, f"{each}{epochs} epochs, the {'fewest' if epochs == 10 else 'most'} taken unasked"


def _as(outputs: Tensor, targets: Tensor, what: str) -> Tensor:
    """`outputs` in the shape of `targets`; [N] and [N, 1] stand for the same."""
    if outputs.shape == targets.shape:
        return outputs
    if outputs.numel() == targets.numel() and outputs.shape[:1] == targets.shape[:1]:
        return outputs.reshape(targets.shape)
    raise UsageError(
        f"{what}: the model gives {list(outputs.shape)} and the targets are {list(targets.shape)}; "
        "give one output for each target"
    )


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error."""
    return F.mse_loss(_as(outputs, targets, "mean squared error"), targets)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of log-odds [N] or [N, 1] against targets of 0 and 1, [N]."""
    return F.binary_cross_entropy_with_logits(_as(outputs, targets, "binary cross-entropy"), targets)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of scores [N, classes] against class numbers int64 [N]."""
    if outputs.dim() != 2 or targets.dim() != 1 or len(outputs) != len(targets):
        raise UsageError(
            f"cross-entropy: the model gives {list(outputs.shape)} and the targets are "
            f"{list(targets.shape)}; give outputs [N, classes] and targets [N]"
        )
    return F.cross_entropy(outputs, targets)


LOSSES: dict[str, tuple[Loss, str]] = {
    "regression": (mse, "mean squared error"),
    "binary": (binary_cross_entropy, "binary cross-entropy"),
    "classification": (cross_entropy, "cross-entropy"),
}


def loss_for(task: str) -> tuple[Loss, str]:
    """The loss of a task, a function (outputs, targets) -> scalar mean, and its name.

    Raises:
        UsageError: the task has none; a "custom" one brings its own.

    >>> loss_for("regression")[1]
    'mean squared error'
    """
    if task not in LOSSES:
        raise UsageError(
            f"the task {task!r} has no loss of its own: give one (loss=…), or one of {', '.join(LOSSES)}"
        )
    return LOSSES[task]


def binary_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of samples whose log-odds are on the right side of 0."""
    return float(((_as(outputs, targets, "accuracy") > 0) == (targets > 0.5)).double().mean())


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of samples whose highest score is the target's."""
    return float((outputs.argmax(dim=1) == targets).double().mean())


def metrics_for(task: str, recipe: dict[str, Any] | None = None) -> dict[str, Metric]:
    """The metrics of a task: `accuracy` for classes; `rmse` (in the target's own unit) and `r2` for numbers.

    Args:
        task: `Data.task`.
        recipe: `Data.recipe`, which knows the target's unit; without it `rmse` is in the unit trained on.

    >>> metrics_for("binary")["accuracy"](torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0]))
    0.5
    """
    if task == "binary":
        return {"accuracy": binary_accuracy}
    if task == "classification":
        return {"accuracy": accuracy}
    if task != "regression":
        return {}
    std = torch.tensor((recipe or {}).get("target", {}).get("std", [1.0]), dtype=torch.float64)

    def rmse(outputs: Tensor, targets: Tensor) -> float:
        error = (_as(outputs, targets, "rmse") - targets).double().cpu() * std
        return float(error.square().mean().sqrt())

    return {"rmse": rmse, "r2": r2}


def r2(outputs: Tensor, targets: Tensor) -> float:
    """The share of the targets' variance that the outputs explain; NaN for targets that do not vary."""
    wide = targets.double()
    error = (_as(outputs, targets, "r2").double() - wide).square().sum()
    spread = (wide - wide.mean(dim=0)).square().sum()
    return float(1 - error / spread) if float(spread) > 0 else float("nan")


def check(model: nn.Module, data: Data, loss: Loss | None = None) -> None:
    """Tries the model on two samples, in evaluation mode, and leaves no trace in the model or the global RNG.

    Raises:
        UsageError: the model has no parameters, none that needs a gradient, does not take the inputs, or does
            not give what the loss wants.
    """
    parameters = list(model.parameters())
    if not parameters:
        raise UsageError(f"{type(model).__name__} has no parameters: there is nothing to descend on")
    if not any(p.requires_grad for p in parameters):
        raise UsageError(
            f"no parameter of {type(model).__name__} needs a gradient: call requires_grad_() on some"
        )
    inputs, targets = data.train.batch(torch.arange(min(2, len(data.train))), 0)
    modes = {module: module.training for module in model.modules()}
    device = parameters[0].device
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = model(inputs.to(device))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"{type(model).__name__} does not take inputs of shape {list(inputs.shape)} ({inputs.dtype}): "
            f"{str(error).splitlines()[0]}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    if loss is not None or data.task == "custom" or not isinstance(outputs, Tensor):
        return
    loss_for(data.task)[0](outputs, targets.to(device))
    if data.task == "classification" and outputs.shape[1] < data.outputs:
        raise UsageError(
            f"labels are out of range: there are {data.outputs} classes, 0 to {data.outputs - 1}, and the "
            "model has "
            f"{outputs.shape[1]} outputs; give it {data.outputs}"
        )
