"""The value function of equation 1 and what each player descends, on logits.

D(x) = sigmoid(a) for the logit a, so log D = -softplus(-a) and log(1 - D) = -softplus(a): exact
where a sigmoid followed by a logarithm has already saturated.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-V(D, G) of equation 1: -E log D(x) - E log(1 - D(G(z))); log 4 where D = 1/2.

    Args:
        real_logits: D's logits of images, [n].
        fake_logits: D's logits of samples, [m].

    Returns:
        Scalar, nats.
    """
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor) -> Tensor:
    """G's part of V(D, G) in equation 1: E log(1 - D(G(z))); saturates where D rejects samples.

    Args:
        fake_logits: D's logits of samples, [m].

    Returns:
        Scalar, nats.
    """
    return -softplus(fake_logits).mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)): the same fixed point, a strong gradient early in learning (section 3).

    Args:
        fake_logits: D's logits of samples, [m].

    Returns:
        Scalar, nats.
    """
    return softplus(-fake_logits).mean()


GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": minimax_generator_loss,
    "non_saturating": non_saturating_generator_loss,
}
