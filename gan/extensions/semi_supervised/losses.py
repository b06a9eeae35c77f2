"""The losses of feature matching and of consistency, a number a lane.

With Z(x) = logsumexp_k l_k(x) over the K logits of D, and that of the class "fake" fixed at 0.

Source: Salimans et al. (2016), sections 3.1 and 5, and their released code for MNIST.
"""

from torch import Tensor
from torch.nn.functional import softplus


def labelled_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the K classes in each lane, nats: [P, n, K], [P, n] -> [P]."""
    of_label = logits.gather(2, labels.unsqueeze(2)).squeeze(2)
    return (logits.logsumexp(2) - of_label).mean(1)


def unlabelled_loss(unlabelled: Tensor, fake: Tensor) -> Tensor:
    """Half of -E log D(x) - E log(1 - D(G(z))) in each lane, nats: twice [P, n, K] -> [P]."""
    z_unlabelled, z_fake = unlabelled.logsumexp(2), fake.logsumexp(2)
    # softplus(Z) - Z = softplus(-Z), without a difference of large numbers
    return (softplus(-z_unlabelled).mean(1) + softplus(z_fake).mean(1)) / 2


def consistency_loss(distorted: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of distorted copies in each lane, nats: twice [P, n, K] -> [P].

    Args:
        distorted: logits of the copies.
        targets: class probabilities of the images themselves; constants.
    """
    return -(targets * distorted.log_softmax(2)).sum(2).mean(1)


def consistency_targets(logits: Tensor, shares: Tensor, *, power: float) -> Tensor:
    """Class probabilities that copies are to have: p_k = (q_k / s_k)^power, normalised.

    Args:
        logits: of the images, [P, n, K]; q is their softmax.
        shares: s, how often each class was given lately, [P, 1, K].
        power: 1: as they are; larger: surer.

    Source: Berthelot et al., MixMatch (2019), equation 7, for the power; ReMixMatch (2020),
    section 3.1, for the shares, with classes that are alike frequent.
    """
    return ((logits - shares.log()) * power).softmax(2)


def feature_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of the mean features in each lane: twice [P, n, units] -> [P]."""
    return (fake.mean(1) - real.mean(1)).square().mean(1)
