"""Holding the loop: a descent is an iterator of events, and what happens between them is yours."""

from __future__ import annotations

from descend.descent import prepare

descent = prepare("softmax", "iris", rule="adam", lr=0.05, epochs=20)
for event in descent:
    if event.kind == "epoch" and event.epoch % 5 == 0:
        print(f"epoch {event.epoch:3.0f}: loss {event.loss:.4f}, held-out loss {event.validation_loss:.4f}")

print(descent.result.explanation)
