"""Shampoo is Adagrad for whole matrices: it learns which directions of a gradient are large, not elements.

L and R sum the products of a gradient's rows and of its columns; their inverse fourth roots, from both
sides, make directions that were large so far small, and the others large. A matrix longer than block_size is
cut into blocks, each with an L and an R of its own; the roots are renewed every precondition_frequency steps.
Roots that are renewed seldom want a smaller lr or a larger eps: those of the first few gradients enlarge what
none of them has touched by 1/sqrt(eps).

Paper: Gupta, Koren and Singer 2018, "Shampoo: Preconditioned Stochastic Tensor Optimization",
arXiv:1802.09568, Algorithm 1; blocks and stale roots are those of Anil et al. 2020, arXiv:2002.09018.
Deviations: eps is added when the root is taken, which is the same as starting L and R there. Tensors of more
than two dimensions are flattened to matrices. Vectors and numbers follow Adagrad, its form for diagonals.
torch: has none.
optax: has none.
Keras: has none.
"""

from descend.formula import Hyper, State, renamed, rule
from descend.formula.vocabulary import every, inverse_root, matmul, transpose

from .adagrad import adagrad


@rule(
    title="Shampoo",
    source="Gupta, Koren and Singer 2018, Algorithm 1, arXiv:1802.09568",
    otherwise=renamed(adagrad, eps="adagrad_eps"),
)
def shampoo(
    p,
    g,
    t,
    L=State("left", shape="left", block="block_size", doc="sum of g g'"),
    R=State("right", shape="right", block="block_size", doc="sum of g' g"),
    L_root=State("left_root", shape="left", block="block_size", doc="inverse fourth root of L"),
    R_root=State("right_root", shape="right", block="block_size", doc="inverse fourth root of R"),
    lr=Hyper(0.1, "[0, inf)", "learning rate"),
    eps=Hyper(1e-4, "(0, inf)", "what L and R start with on their diagonals"),
    precondition_frequency=Hyper(1, "[1, inf)", "steps between two takings of the roots"),
    block_size=Hyper(1024, "[1, inf)", "longest side of a block"),
):
    L = L + matmul(g, transpose(g))
    R = R + matmul(transpose(g), g)
    L_root = every(precondition_frequency, t, inverse_root(L, 4, eps), L_root)
    R_root = every(precondition_frequency, t, inverse_root(R, 4, eps), R_root)
    p = p - lr * matmul(matmul(L_root, g), R_root)
    return p, L, R, L_root, R_root
