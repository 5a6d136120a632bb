"""SOAP is Adam in the directions that Shampoo finds: the gradient is turned, stepped, and turned back.

L and R average the products of the gradient's rows and columns; Q_L and Q_R are their eigenvectors. In that
basis a matrix's gradient is nearly diagonal, and Adam's second moments, which know elements only, describe it
well. The basis is renewed every precondition_frequency steps, by one step of the orthogonal iteration; m,
which is kept in the basis, is turned back and into the new one.

Paper: Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321, Algorithm 3,
and the authors' code, which keeps m in the basis and takes no step at the first gradient: that one only makes
the basis.
Deviations: the authors sort the basis by its eigenvalues, and v with it; here every direction keeps its
place, which is the same step. Tensors of more than two dimensions are flattened to matrices. Vectors and
numbers follow AdamW, from the first gradient on.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, rule
from descend.formula.vocabulary import eigenbasis, every, matmul, sqrt, transpose, where

from .adamw import adamw


@rule(title="SOAP", source="Vyas et al. 2024, Algorithm 3, arXiv:2409.11321", otherwise=adamw)
def soap(
    p,
    g,
    t,
    m=State("exp_avg", doc="average of the turned gradients"),
    v=State("exp_avg_sq", doc="average of the squared turned gradients"),
    L=State("left", shape="left", limit="max_precond_dim", doc="average of g g'"),
    R=State("right", shape="right", limit="max_precond_dim", doc="average of g' g"),
    Q_L=State("left_basis", shape="left", limit="max_precond_dim", doc="eigenvectors of L"),
    Q_R=State("right_basis", shape="right", limit="max_precond_dim", doc="eigenvectors of R"),
    lr=Hyper(3e-3, "[0, inf)", "learning rate: the size of a step"),
    beta1=Hyper(0.95, "[0, 1)", "how much of m is kept each step"),
    beta2=Hyper(0.95, "[0, 1)", "how much of v is kept each step"),
    shampoo_beta=Hyper(0.95, "[0, 1)", "how much of L and R is kept each step"),
    eps=Hyper(1e-8, "[0, inf)", "keeps the division finite where v is zero"),
    weight_decay=Hyper(0.01, "[0, inf)", "share of p removed each step, times lr"),
    precondition_frequency=Hyper(10, "[1, inf)", "steps between two renewals of the basis"),
    max_precond_dim=Hyper(10000, "[0, inf)", "longest side that is turned"),
):
    ready = where(t < 2, 0, 1)
    turned = matmul(matmul(transpose(Q_L), g), Q_R)
    m = m + ready * (1 - beta1) * (turned - m)
    v = v + ready * (1 - beta2) * (turned**2 - v)
    scale = where(t < 2, 0, sqrt(1 - beta2 ** (t - 1)) / (1 - beta1 ** (t - 1)))
    step = lr * scale * matmul(matmul(Q_L, m / (sqrt(v) + eps)), transpose(Q_R))
    p = p - (step + ready * lr * weight_decay * (p - step))
    L = shampoo_beta * L + (1 - shampoo_beta) * matmul(g, transpose(g))
    R = shampoo_beta * R + (1 - shampoo_beta) * matmul(transpose(g), g)
    m_back = matmul(matmul(Q_L, m), transpose(Q_R))
    Q_L = every(precondition_frequency, t, eigenbasis(L, Q_L), Q_L)
    Q_R = every(precondition_frequency, t, eigenbasis(R, Q_R), Q_R)
    m = every(precondition_frequency, t, matmul(matmul(transpose(Q_L), m_back), Q_R), m)
    return p, m, v, L, R, Q_L, Q_R
