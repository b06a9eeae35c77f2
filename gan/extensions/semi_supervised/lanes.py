"""Nets of one shape that train side by side in one process, each with data and seed of its own.

Every tensor has a leading dimension of P lanes, so that a layer is one batched product, and an
update of all lanes one update of the stacks.  No lane reads another: alone (P = 1) it is the
ordinary run, and beside others the same but for the rounding of the products.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gan.extensions.semi_supervised.few_labels import FewLabels, require_minibatch
from gan.layers import product

VARIANCE_FLOOR = 1e-6
"""Added to the variances of batch normalisation."""
STATISTICS_MOMENTUM = 0.1
"""Share of a minibatch in the running statistics of batch normalisation."""


def lane_product(x: Tensor, W: Tensor) -> Tensor:
    """X W of every lane, without gradients: [P, n, k], [P, k, m] -> [P, n, m] float32."""
    if x.dtype != torch.float32:
        return torch.bmm(x, W).float()
    if len(W) == 1:
        return product(x.squeeze(0), W.squeeze(0)).unsqueeze(0)
    return torch.bmm(x, W)


def _rounded(x: Tensor, bfloat16: bool) -> Tensor:
    return x.bfloat16() if bfloat16 else x


@dataclass(frozen=True)
class Directions:
    """What passes through a layer of normalised weights have in common between two updates.

    Attributes:
        rounded: theta in the precision of the product.
        inverse_norms: 1 / |theta_j|, [P, 1, n_out].
    """

    rounded: Tensor
    inverse_norms: Tensor


class _NormalisedProduct(torch.autograd.Function):
    """x theta_j / |theta_j| scale_j, whose backward pass visits theta and its gradient once.

    With c = scale / |theta| and g the gradient in y, that in theta is
    x^T (g c) - theta (c / |theta|^2) sum_n g (x theta).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, theta: Tensor, scale: Tensor, directions: Directions
    ) -> Tensor:
        """[P, n, n_in], [P, n_in, n_out], [P, 1, n_out] -> [P, n, n_out]."""
        rounded, inverse_norms = directions.rounded, directions.inverse_norms
        x = x.to(rounded.dtype)
        projections = lane_product(x, rounded)
        ctx.save_for_backward(x, rounded, theta, scale, projections, inverse_norms)
        return projections * (scale * inverse_norms)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        """[P, n, n_out] -> gradients of x, theta and scale."""
        x, rounded, theta, scale, projections, inverse_norms = ctx.saved_tensors
        (grad,) = grad_outputs
        needs_x, needs_theta, needs_scale, _ = ctx.needs_input_grad
        factors = scale * inverse_norms
        scaled = (grad * factors).to(x.dtype)
        in_x = in_theta = in_scale = None
        if needs_x:
            in_x = lane_product(scaled, rounded.mT)
        if needs_theta or needs_scale:
            in_factors = (grad * projections).sum(1, keepdim=True)
            in_scale = in_factors * inverse_norms
        if needs_theta:
            in_theta = lane_product(x.mT, scaled)
            in_theta.addcmul_(theta, in_factors * factors * inverse_norms.square(), value=-1)
        return in_x, in_theta, in_scale if needs_scale else None, None


class _Product(torch.autograd.Function):
    """x W of every lane."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bfloat16: bool) -> Tensor:
        """[P, n, n_in], [P, n_in, n_out] -> [P, n, n_out]."""
        x, W = _rounded(x, bfloat16), _rounded(W, bfloat16)
        ctx.save_for_backward(x, W)
        return lane_product(x, W)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        """[P, n, n_out] -> gradients of x and W."""
        x, W = ctx.saved_tensors
        grad = grad_outputs[0].to(x.dtype)
        needs_x, needs_W, _ = ctx.needs_input_grad
        return (
            lane_product(grad, W.mT) if needs_x else None,
            lane_product(x.mT, grad) if needs_W else None,
            None,
        )


class NormalisedLayer(nn.Module):
    """Weight normalisation: y_j = scale_j (x . theta_j) / |theta_j| + bias_j.

    Args:
        theta: directions, [P, n_in, n_out].
        is_scale_trained: whether `scale` is a parameter, or stays as it was initialised.
        bfloat16: multiply matrices in bfloat16.

    Source: Salimans and Kingma (2016), equation 2.
    Differs: the product is divided by the norm, rather than the weights; the result is the same,
    and the weights need not be written once more at every pass.
    """

    scale: Tensor

    def __init__(
        self, theta: Tensor, *, is_scale_trained: bool = False, bfloat16: bool = False
    ) -> None:
        super().__init__()
        n_lanes, _, n_out = theta.shape
        self.theta = nn.Parameter(theta)
        self.bias = nn.Parameter(torch.zeros(n_lanes, 1, n_out))
        scale = torch.ones(n_lanes, 1, n_out)
        if is_scale_trained:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        self.in_bfloat16 = bfloat16

    @torch.no_grad()
    def directions(self) -> Directions:
        """Of theta as it is now: good for passes until the next update."""
        norms = self.theta.square().sum(1, keepdim=True)
        return Directions(_rounded(self.theta.detach(), self.in_bfloat16), norms.rsqrt_())

    def forward(self, x: Tensor, directions: Directions | None = None) -> Tensor:
        """[P, n, n_in] -> [P, n, n_out]; by directions that are known, or by new ones."""
        directions = self.directions() if directions is None else directions
        y: Tensor = _NormalisedProduct.apply(x, self.theta, self.scale, directions)
        return y + self.bias

    def weights(self) -> tuple[Tensor, Tensor]:
        """The same layer as weight [P, n_in, n_out] and bias [P, 1, n_out]."""
        return self.theta * self._factors(), self.bias

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Set scale and bias so that every y_j has mean 0 and variance 1 over x; returns y.

        Source: Salimans and Kingma (2016), equations 5 and 6.
        """
        y: Tensor = _NormalisedProduct.apply(x, self.theta, self.scale, self.directions())
        spread, mean = torch.std_mean(y, 1, correction=0, keepdim=True)
        self.scale.div_(spread)
        self.bias.copy_(-mean / spread)
        return (y - mean) / spread

    def _factors(self) -> Tensor:
        """Scale / |theta|, [P, 1, n_out]."""
        return self.scale * self.theta.square().sum(1, keepdim=True).rsqrt()


class BatchNormalisedLayer(nn.Module):
    """y = x W, normalised over the minibatch of its lane, + bias.

    Args:
        weight: [P, n_in, n_out].
        bfloat16: multiply matrices in bfloat16.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, weight: Tensor, *, bfloat16: bool = False) -> None:
        super().__init__()
        n_lanes, _, n_out = weight.shape
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(n_lanes, 1, n_out))
        self.register_buffer("mean", torch.zeros(n_lanes, 1, n_out))
        self.register_buffer("var", torch.ones(n_lanes, 1, n_out))
        self.in_bfloat16 = bfloat16

    def forward(self, x: Tensor) -> Tensor:
        """[P, n, n_in] -> [P, n, n_out]; running statistics move if gradients are recorded."""
        y: Tensor = _Product.apply(x, self.weight, self.in_bfloat16)
        # A tenth of the time of `var_mean` over this dimension, on a CPU.
        mean = y.mean(1, keepdim=True)
        centred = y - mean
        var = centred.square().mean(1, keepdim=True)
        if torch.is_grad_enabled():
            n = x.shape[1]
            self.mean.lerp_(mean.detach(), STATISTICS_MOMENTUM)
            self.var.lerp_(var.detach() * (n / (n - 1)), STATISTICS_MOMENTUM)
        return centred * torch.rsqrt(var + VARIANCE_FLOOR) + self.bias

    def weights(self) -> tuple[Tensor, Tensor]:
        """The layer in evaluation mode as weight [P, n_in, n_out] and bias [P, 1, n_out]."""
        factors = torch.rsqrt(self.var + VARIANCE_FLOOR)
        return self.weight * factors, self.bias - self.mean * factors


class Normals:
    """Standard normal numbers of every lane, drawn at once and handed out as tensors.

    Args:
        shapes: (rows, width) of each tensor.
        rngs: stream of each lane, on one device.

    They lie in one place in memory, where a captured step finds the next ones.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int]], *, rngs: Sequence[torch.Generator]
    ) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self._rngs = rngs
        self._flat = torch.zeros(len(rngs), sum(sizes), device=rngs[0].device)
        parts = torch.split(self._flat, sizes, 1)
        self.tensors = [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        """[P, rows, width] each."""

    def draw(self) -> None:
        """Replace all numbers by new ones."""
        for row, rng in zip(self._flat, self._rngs, strict=True):
            row.normal_(generator=rng)


class LaneOrder:
    """Endless minibatches of rows of the pixels, those of each lane from its own labels.

    A pass is as many minibatches as the lane with the fewest unlabelled images fills.  In a pass
    unlabelled images come in a new permutation for D, and in another one for G; the labelled ones
    come in permutations that follow each other without a gap.

    Args:
        few: the data of each lane.
        batch_size: rows of a minibatch.
        rngs: stream of each lane, on the device that trains.
    """

    def __init__(
        self, few: Sequence[FewLabels], *, batch_size: int, rngs: Sequence[torch.Generator]
    ) -> None:
        device = rngs[0].device
        self._batch_size, self._rngs = batch_size, rngs
        self._labelled = [torch.stack([lane.labelled, lane.labels]).to(device) for lane in few]
        self._unlabelled = [lane.unlabelled.to(device) for lane in few]
        fewest = min(len(rows) for rows in self._unlabelled)
        require_minibatch(fewest, batch_size)
        self._n_steps = fewest // batch_size
        # [steps, 4, P, batch_size]: labelled rows, their labels, unlabelled ones for D, for G
        self._pass = torch.zeros(
            self._n_steps, 4, len(few), batch_size, dtype=torch.int64, device=device
        )
        self._position = self._n_steps

    def __next__(self) -> Tensor:
        """[4, P, batch_size]: labelled rows, their labels, unlabelled rows for D, and for G."""
        if self._position == self._n_steps:
            for lane in range(len(self._rngs)):
                self._pass[:, :, lane] = self._lay_out(lane)
            self._position = 0
        rows = self._pass[self._position]
        self._position += 1
        return rows

    def _lay_out(self, lane: int) -> Tensor:
        """[steps, 4, batch_size]."""
        n, rng, labelled = self._n_steps * self._batch_size, self._rngs[lane], self._labelled[lane]
        n_repeats, n_labels = math.ceil(n / labelled.shape[1]), labelled.shape[1]
        # All permutations at once: 20 labels need 2,500 of them.
        ranks = torch.rand(n_repeats, n_labels, generator=rng, device=rng.device)
        order = ranks.argsort(1).flatten()[:n]
        unlabelled = self._unlabelled[lane]
        rows = [
            *labelled[:, order],
            *(unlabelled[_permutation(len(unlabelled), rng)[:n]] for _ in range(2)),
        ]
        return torch.stack(rows).view(4, self._n_steps, self._batch_size).transpose(0, 1)

    def state(self) -> dict[str, Tensor]:
        """Where in which pass it is."""
        return {"pass": self._pass, "position": torch.tensor(self._position)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self._pass.copy_(state["pass"])
        self._position = int(state["position"])


def _permutation(n: int, rng: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=rng, device=rng.device)
