"""The nets of feature matching, side by side in lanes, and one lane of them alone.

Source: Salimans et al. (2016) and their released code for MNIST: layers, noise, normalisation.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gan.checkpoint import part_of
from gan.extensions.semi_supervised.lanes import (
    BatchNormalisedLayer,
    Directions,
    NormalisedLayer,
)
from gan.layers import Linear
from gan.nets import Player


class LaneClassifier(nn.Module):
    """D of P lanes: pixels and noise to K logits, ReLU hidden layers with weight normalisation.

    Args:
        thetas: directions of each layer, [P, n_in, n_out].
        noise_input: standard deviation of the noise that is added to the pixels.
        noise_hidden: the same of each hidden layer.
        bfloat16: multiply matrices in bfloat16.
    """

    def __init__(
        self,
        thetas: Sequence[Tensor],
        *,
        noise_input: float,
        noise_hidden: float,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        last = len(thetas) - 1
        self.spreads = [noise_input, *(noise_hidden for _ in range(last))]
        self.layers = nn.ModuleList(
            NormalisedLayer(theta, is_scale_trained=i == last, bfloat16=bfloat16)
            for i, theta in enumerate(thetas)
        )

    def directions(self) -> list[Directions]:
        """Of each layer as it is now: good for passes until the next update."""
        return [cast(NormalisedLayer, layer).directions() for layer in self.layers]

    def features(
        self, x: Tensor, noise: Sequence[Tensor] | None, directions: Sequence[Directions]
    ) -> Tensor:
        """The last hidden layer, [P, n, units]; `noise` as for `forward`, the last is not read."""
        h = x
        for i, (layer, of_layer) in enumerate(zip(self.layers[:-1], directions[:-1], strict=True)):
            h = layer(self._disturbed(h, noise, i), of_layer).relu()
        return h

    def forward(
        self,
        x: Tensor,
        noise: Sequence[Tensor] | None,
        directions: Sequence[Directions] | None = None,
    ) -> Tensor:
        """Logits [P, n, K] of images [P, n, n_pixels].

        Args:
            x: the images.
            noise: a standard normal [P, n, width] a layer; None: no noise.
            directions: of the layers as they are, where these are known.
        """
        directions = self.directions() if directions is None else directions
        h = self.features(x, noise, directions)
        last = len(self.layers) - 1
        logits: Tensor = self.layers[-1](self._disturbed(h, noise, last), directions[-1])
        return logits

    def initialise(self, x: Tensor, noise: Sequence[Tensor]) -> None:
        """Give every unit mean 0 and variance 1 over x [P, n, n_pixels], before its ReLU."""
        h = x
        for i, layer in enumerate(self.layers):
            h = cast(NormalisedLayer, layer).initialise(self._disturbed(h, noise, i)).relu()

    def _disturbed(self, h: Tensor, noise: Sequence[Tensor] | None, i: int) -> Tensor:
        if noise is None:
            return h
        return torch.add(h, noise[i], alpha=self.spreads[i])


class LaneGenerator(nn.Module):
    """G of P lanes: noise through softplus layers with batch normalisation to pixels in (0, 1).

    Args:
        hidden: weights of each hidden layer, [P, n_in, n_out].
        theta: directions of the output layer, [P, n_in, n_pixels].
        bfloat16: multiply matrices in bfloat16.
    """

    def __init__(self, hidden: Sequence[Tensor], theta: Tensor, *, bfloat16: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BatchNormalisedLayer(w, bfloat16=bfloat16) for w in hidden)
        self.output = NormalisedLayer(theta, is_scale_trained=True, bfloat16=bfloat16)

    def forward(self, z: Tensor) -> Tensor:
        """[P, n, dim] -> [P, n, n_pixels]; running statistics move if gradients are recorded."""
        h = z
        for layer in self.layers:
            h = softplus(layer(h))
        return torch.sigmoid(self.output(h))


class PlainClassifier(nn.Module):
    """D of one lane in evaluation mode: rows [n, n_pixels] in [0, 1] to logits [n, K].

    Args:
        widths: units of each layer, of the pixels on.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_pixels] -> [n, K]."""
        h = x
        for i, linear in enumerate(self.linears):
            h = linear(h.relu() if i else h)
        return h


class PlainGenerator(Player):
    """G of one lane in evaluation mode: softplus hidden layers, sigmoid pixels.

    Args:
        widths: units of each layer, of z on.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """None: nothing is dropped."""
        return [None for _ in self.linears[1:]]

    def forward(self, z: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim] -> [n, n_pixels] in (0, 1)."""
        h = z
        for linear in self.linears[:-1]:
            h = softplus(linear(h))
        return torch.sigmoid(self.linears[-1](h))


def plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first lane of D or of G as a plain net in evaluation mode, by name.

    Args:
        state: as from `state_dict` of `LaneClassifier` or `LaneGenerator`.
    """
    names = {name.rpartition(".")[0] for name in state}
    plain = {}
    for i, name in enumerate(sorted(names, key=lambda name: (name == "output", len(name), name))):
        W, bias = _layer(part_of(state, f"{name}.")).weights()
        plain[f"linears.{i}.weight"] = W[0].T.contiguous()
        plain[f"linears.{i}.bias"] = bias[0, 0]
    return plain


def _layer(state: Mapping[str, Tensor]) -> NormalisedLayer | BatchNormalisedLayer:
    """The layer with this state; other names in it are passed over."""
    layer: NormalisedLayer | BatchNormalisedLayer
    if "theta" in state:
        layer = NormalisedLayer(state["theta"])
    else:
        layer = BatchNormalisedLayer(state["weight"])
    layer.load_state_dict({name: state[name] for name in layer.state_dict()})
    return layer.requires_grad_(False)


@torch.no_grad()
def classify(D: LaneClassifier, pixels: Tensor, *, chunk: int = 1000) -> Tensor:
    """Logits of D without noise in every lane: uint8 [n, n_pixels] -> [P, n, K]."""
    weights = [cast(NormalisedLayer, layer).weights() for layer in D.layers]
    logits = []
    for part in torch.split(pixels, chunk):
        x = part.to(torch.float32).div_(255)
        h = x.expand(len(weights[0][0]), -1, -1)
        for i, (W, bias) in enumerate(weights):
            h = torch.baddbmm(bias, h.relu() if i else h, W)
        logits.append(h)
    return torch.cat(logits, 1)
