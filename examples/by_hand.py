"""The textbooks' example: y = w x through x = 1, 2, 3 and y = 2, 4, 6, from w = 1 at rate 0.01."""

import torch

from descend.descent import prepare

torch.set_default_dtype(torch.float64)
x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.ones_(model.weight)
how = {"rule": "gradient_descent", "lr": 0.01, "epochs": 100, "batch": "full", "log_every": 1}
for event in prepare(model, (x, y), validation=0, **how):
    if event.kind == "epoch":
        print(f"epoch {event.epoch:3.0f}  loss {event.loss:.8f}  w {model.weight.item():.8f}")
print(f"prediction for 4: {model(torch.tensor([4.0])).item():.8f}")
