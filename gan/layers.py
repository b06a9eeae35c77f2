"""Linear layers, maxout, dropout masks and initial weights."""

import itertools
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from gan.contrast import Brightness


def dropout_mask(n: int, width: int, *, drop: float, rng: torch.Generator) -> Tensor:
    """Inverted-dropout factors, [n, width]: 0 with probability `drop`, else 1/(1 - drop).

    One 64-bit draw serves four units, with 16 bits each: a third of the time of `bernoulli_`.

    Differs: `drop` is rounded to a multiple of 2^-16 below 1, and the scale is the exact inverse
    of the rounded value, so the expectation of a factor is 1.
    """
    n_words = math.ceil(n * width / 4)
    words = torch.empty(n_words, dtype=torch.int64, device=rng.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=rng)
    bits = words.view(torch.int16)[: n * width].view(n, width)
    n_kept_values = max(1, round((1 - drop) * 2**16))
    mask = torch.empty(n, width, device=rng.device)
    # Straight to float: no pass through bool.  `le`: the bound must be an int16 even at drop = 0.
    torch.le(bits, n_kept_values - 2**15 - 1, out=mask)
    return mask.mul_(2**16 / n_kept_values)


class Linear(nn.Linear):
    """`torch.nn.Linear`, in about half the time where a CPU multiplies float32 matrices.

    torch hands these products to MKL, which takes twice as long as oneDNN on AMD's processors;
    oneDNN is inside torch too, but torch itself calls it for other types only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in] -> [n, n_out]."""
        if _is_for_onednn(x, self.weight):
            return cast(Tensor, _OneDnnLinear.apply(x, self.weight, self.bias))
        return super().forward(x)


HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
"""Whether this build of torch has the operator: what it compiles inference to, so not public."""

ONEDNN_PRODUCTS = 500_000
"""Multiplications below which the way to oneDNN takes longer than it saves."""


def product(x: Tensor, W: Tensor) -> Tensor:
    """X W by the fastest way there is, without gradients: [n, k], [k, m] -> [n, m]."""
    return _times_transposed(x, W.T) if _is_for_onednn(x, W) else x @ W


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    if torch.compiler.is_compiling():  # also exporting: to ask for n would fix it
        return False
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and len(x) * weight.numel() >= ONEDNN_PRODUCTS
        and not torch.is_autocast_enabled("cpu")
    )


class _OneDnnLinear(torch.autograd.Function):
    """x W^T + b.

    Unlike the operators of torch, a function of our own computes the gradient of everything that
    requires one, asked for or not: hence `Gan.fixed_discriminator`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[n, n_in], [n_out, n_in], [n_out] -> [n, n_out]."""
        ctx.save_for_backward(x, weight)
        return _times_transposed(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        """[n, n_out] -> gradients of x, W and b."""
        x, weight = ctx.saved_tensors
        (grad,) = grad_outputs
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _times_transposed(grad, weight.T) if needs_x else None,
            _times_transposed(grad.T, x.T) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _times_transposed(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A B^T + bias, [n, k], [m, k], [m] -> [n, m]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


class Maxout(nn.Module):
    """Maxout units: h_j(x) = max over i of x^T W_ij + b_ij.

    The pieces lie on the outer of the two unit axes: the maximum runs over contiguous rows.

    Args:
        n_in: inputs.
        units: outputs.
        pieces: linear pieces of one unit.

    Source: Goodfellow et al. (2013), "Maxout Networks", equation in section 3.
    """

    def __init__(self, n_in: int, units: int, *, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.linear = Linear(n_in, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in] -> [n, units]."""
        # Not len(x): exporting would fix it.
        pieces = self.linear(x).view(x.shape[0], self.pieces, self.units)
        return cast(Tensor, _PieceMaximum.apply(pieces))


class ConvMaxout(nn.Module):
    """A convolution with maxout units, then the maximum over windows of each feature map.

    Windows begin `pool_stride` units apart as long as they begin within the map, so the last may
    reach beyond its border: with a side of n units there are ceil((n - pool) / pool_stride) + 1.

    Args:
        n_in: feature maps below.
        channels: feature maps made.
        pieces: linear pieces of one unit.
        kernel: height and width of the kernel.
        padding: zeros on each side.
        pool: height and width of a window.
        pool_stride: from one window to the next.

    Source: Goodfellow et al. (2013), section 3; pylearn2's `MaxoutConvC01B`, with biases tied.
    """

    def __init__(
        self,
        n_in: int,
        channels: int,
        *,
        pieces: int,
        kernel: int,
        padding: int,
        pool: int,
        pool_stride: int,
    ) -> None:
        super().__init__()
        self.channels, self.pieces = channels, pieces
        self.kernel, self.padding = kernel, padding
        self.pool, self.pool_stride = pool, pool_stride
        self.conv = nn.Conv2d(n_in, channels * pieces, kernel, padding=padding)

    def side(self, side_below: int) -> int:
        """Height or width of the maps made of maps of this height or width; below 1: none."""
        detectors = side_below + 2 * self.padding - self.kernel + 1
        if detectors < self.pool:
            return 0
        return math.ceil((detectors - self.pool) / self.pool_stride) + 1

    def forward(self, maps: Tensor) -> Tensor:
        """[n, n_in, height, width] -> [n, channels, side(height), side(width)], channels last.

        Channels lie last in memory: oneDNN and cuDNN convolve so faster, and the maximum over
        pieces runs over contiguous rows.
        """
        found = self.conv(maps.contiguous(memory_format=torch.channels_last))
        n, _, height, width = found.shape
        pieces = found.permute(0, 2, 3, 1).reshape(-1, self.pieces, self.channels)
        units = cast(Tensor, _PieceMaximum.apply(pieces)).view(n, height, width, self.channels)
        return max_pool2d(units.permute(0, 3, 1, 2), self.pool, self.pool_stride, ceil_mode=True)


class Deconvolution(nn.Module):
    """Square feature maps to an image by a transposed convolution, with a bias a pixel.

    Side of the image: stride * (side of a map - 1) + kernel.

    Args:
        channels: feature maps.
        side: height and width of each.
        image_channels: of the image.
        kernel: height and width of the kernel.
        stride: pixels from one position of the kernel to the next.

    Source: `Deconv` in deconv.py of the released code, with biases untied.
    """

    def __init__(
        self, channels: int, *, side: int, image_channels: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.maps_shape = (channels, side, side)
        self.conv = nn.ConvTranspose2d(channels, image_channels, kernel, stride, bias=False)
        image_side = stride * (side - 1) + kernel
        self.image_shape = (image_channels, image_side, image_side)
        self.bias = nn.Parameter(torch.zeros(math.prod(self.image_shape)))

    def forward(self, units: Tensor) -> Tensor:
        """[n, channels * side * side] -> [n, pixels of the image]."""
        image: Tensor = self.conv(units.view(-1, *self.maps_shape))
        return image.flatten(1) + self.bias


class UnitPixels(nn.Module):
    """Linear outputs to pixels: shift + scale * outputs, cut off outside of [0, 1].

    Args:
        brightness: shift and scale.
    """

    def __init__(self, brightness: Brightness) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        # Buffers, as they are of the training images: they are kept with the weights.
        self.register_buffer("shift", torch.tensor(brightness.shift))
        self.register_buffer("scale", torch.tensor(brightness.scale))

    def forward(self, outputs: Tensor) -> Tensor:
        """[n, n_pixels] -> [n, n_pixels] in [0, 1]."""
        return (outputs * self.scale + self.shift).clamp(0, 1)


class _PieceMaximum(torch.autograd.Function):
    """The maximum over dim 1; each piece that attains it receives the whole gradient.

    `amax` divides the gradient between equal pieces, `max` looks up indices: both take four to
    seven times as long, and with real-valued inputs no two pieces are equal.  (In bfloat16 two
    largest ones are, for about one unit in 400.)
    """

    @staticmethod
    def forward(ctx: Any, pieces: Tensor) -> Tensor:
        """[n, k, units] -> [n, units]."""
        largest = pieces.amax(1)
        ctx.save_for_backward(pieces, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        """[n, units] -> [n, k, units]."""
        pieces, largest = ctx.saved_tensors
        chosen = torch.empty_like(pieces)
        torch.eq(pieces, largest.unsqueeze(1), out=chosen)
        return chosen.mul_(grad_outputs[0].unsqueeze(1))


def init_uniform(module: nn.Module, *, init_range: float | None, rng: torch.Generator) -> None:
    """Draw every weight of linear layers and convolutions uniform; biases start at 0.

    Args:
        module: net whose layers are drawn in order.
        init_range: half the width of the interval; None for 1/sqrt(inputs of the layer's unit).
        rng: a generator of random numbers on the CPU.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            is_transposed = isinstance(layer, nn.ConvTranspose2d)  # inputs on the first axis
            n_inputs = (layer.weight[:, 0] if is_transposed else layer.weight[0]).numel()
            bound = 1 / math.sqrt(n_inputs) if init_range is None else init_range
            nn.init.uniform_(layer.weight, -bound, bound, generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_sparse(linear: nn.Linear, *, n_inputs: int, rng: torch.Generator) -> None:
    """Draw a few incoming weights of each unit from N(0, 1); all others become 0.

    Args:
        linear: layer whose weights, [n_out, n_in], are drawn; its bias stays.
        n_inputs: weights of each unit that are not 0; of which inputs, is drawn for each unit.
        rng: a generator of random numbers on the CPU.

    Raises:
        ValueError: the layer has fewer inputs.

    Source: `sparse_init` of pylearn2, after Martens (2010), "Deep learning via Hessian-free
    optimization", section 5.
    """
    n_out, n_in = linear.weight.shape
    if n_inputs > n_in:
        raise ValueError(f"n_inputs must be at most the {n_in} of the layer, got {n_inputs}")
    chosen = torch.rand(n_out, n_in, generator=rng).topk(n_inputs, dim=1).indices
    values = torch.randn(n_out, n_inputs, generator=rng)
    linear.weight.zero_().scatter_(1, chosen, values)


def trained_weights(net: nn.Module) -> list[Tensor]:
    """Weights of linear layers and convolutions that are not frozen, a unit at each first index.

    In a maxout layer each linear piece is a unit of its own.  In a transposed convolution pixels
    that lie differently between the kernel's positions read different weights: the parameter is
    given in parts, one for each such place, which share its memory.
    """
    found: list[Tensor] = []
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad:
            found.append(layer.weight)
        elif isinstance(layer, nn.ConvTranspose2d) and layer.weight.requires_grad:
            found += _parts_by_pixel(layer)
    return found


def _parts_by_pixel(layer: nn.ConvTranspose2d) -> list[Tensor]:
    """Weights that pixels of the same place modulo the stride read, [n_out, n_in, ...] each."""
    weight = layer.weight.detach().transpose(0, 1)  # inputs on the first axis
    height, width = (
        range(min(pair)) for pair in zip(layer.stride, layer.kernel_size, strict=True)
    )
    return [
        weight[:, :, row :: layer.stride[0], column :: layer.stride[1]]
        for row, column in itertools.product(height, width)
    ]
