"""Sophia divides the averaged gradient by an estimate of the curvature, and clips every element at 1.

Where the curvature h is large against the gradient the step is Newton's, over gamma; where it is small or
negative, the step is lr by the sign, so a wrong estimate does no harm. h, an average of cheap estimates of
the diagonal of the Hessian, is not computed here: the rule only reads it, and whoever trains writes it, every
k = 10 steps or so (before the first estimate it is zero, and the step is the sign's):

    if step % 10 == 0:  # Hutchinson's estimate: u * (H u) with random signs u
        grads = torch.autograd.grad(loss_of(batch), params, create_graph=True)
        signs = [torch.randint_like(p, 2) * 2 - 1 for p in params]
        products = torch.autograd.grad(grads, params, grad_outputs=signs)
        for p, u, hu in zip(params, signs, products):
            h = opt.state[p].get("hessian")
            opt.state[p]["hessian"] = (u * hu) * 0.01 if h is None else h.lerp(u * hu, 0.01)

Paper: Liu et al. 2023, "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
Pre-training", arXiv:2305.14342, Algorithm 3.
Deviations: the average of h, line 8, is taken outside, as shown; the decay is taken of p as it was before.
torch: has none.
optax: `contrib.sophia` corrects the bias of m, and computes Hutchinson's estimate itself; default
beta1 0.965, eps 1e-8, weight_decay 1e-4.
Keras: has none.
"""

from descend.formula import Hyper, State, dialect, rule
from descend.formula.vocabulary import maximum, minimum


@dialect(paper={})
@rule(title="Sophia", source="Liu et al. 2023, Algorithm 3, arXiv:2305.14342")
def sophia(
    p,
    g,
    m=State("exp_avg", doc="average of the gradients"),
    h=State("hessian", doc="average of estimates of the Hessian's diagonal; written by the user"),
    lr=Hyper(1e-4, "[0, inf)", "learning rate: the longest step of an element"),
    beta1=Hyper(0.96, "[0, 1)", "how much of m is kept each step"),
    gamma=Hyper(0.01, "(0, inf)", "how much of the curvature counts; so that 10 to 50% are not clipped"),
    eps=Hyper(1e-12, "(0, inf)", "smallest curvature"),
    weight_decay=Hyper(0.0, "[0, inf)", "share of p removed each step, times lr"),
):
    m = beta1 * m + (1 - beta1) * g
    u = minimum(maximum(m / maximum(gamma * h, eps), -1), 1)
    p = p - lr * (u + weight_decay * p)
    return p, m, h


@dialect(sophia, optax={"beta1": 0.965, "eps": 1e-8, "weight_decay": 1e-4})
def corrected(p, g, t, m, h, lr, beta1, gamma, eps, weight_decay):
    """m is bias-corrected."""
    m = beta1 * m + (1 - beta1) * g
    m_hat = m / (1 - beta1**t)
    u = minimum(maximum(m_hat / maximum(gamma * h, eps), -1), 1)
    p = p - lr * (u + weight_decay * p)
    return p, m, h
