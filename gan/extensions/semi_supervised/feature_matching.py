"""Feature matching with K classes and fakes: P runs that train side by side.

D gives K logits l_1 .. l_K; that of the class "fake" is fixed at 0.  With Z(x) = logsumexp_k l_k,
D(x) = Z / (Z + 1) in terms of exponentials is the probability that x is an image, and

    labelled loss    E_labelled [ Z(x) - l_y(x) ]
    unlabelled loss  ( E_data [ softplus(Z) - Z ] + E_fakes [ softplus(Z) ] ) / 2
    loss of G        mean over features of ( E_data f(x) - E_fakes f(G(z)) )^2

with f the last hidden layer of D.  Gaussian noise is added to the pixels and to every hidden layer
but, for f, the last.  With `semi_supervised.consistency_weight` D's loss has a term more,

    E_data [ cross-entropy of D's classes of a distorted copy of x, given those of x itself ]

the latter without noise, and labelled images are distorted, too: knowledge of images that the
rest does not have.

Source: Salimans et al. (2016), sections 3.1 and 5, and their released code for MNIST
(improved-gan, train_mnist_feature_matching.py): nets, initial weights, noise and optimiser.
Differs: G's output begins at the mean image; the step size falls to 0 over the last part of
training; averages of the weights, if any, begin at the initial ones; only the training split's
images are used, none of the validation's.  Consistency: Sajjadi et al. (2016), Xie et al. (2020).
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.checkpoint import part_of
from gan.config import RunConfig, SemiSupervisedConfig
from gan.datasets.images import pixel_mean
from gan.extensions.distortions import Distortions, warp
from gan.extensions.semi_supervised.few_labels import FewLabels
from gan.extensions.semi_supervised.lanes import LaneOrder, Normals
from gan.extensions.semi_supervised.losses import (
    consistency_loss,
    consistency_targets,
    feature_loss,
    labelled_loss,
    unlabelled_loss,
)
from gan.extensions.semi_supervised.nets import LaneClassifier, LaneGenerator, classify
from gan.optimisers import build_descent
from gan.priors import Prior, build_prior
from gan.randomness import Streams, stream

THETA_SPREAD = 0.1
"""Standard deviation of D's initial directions."""
INIT_IMAGES = 500
"""Training images by which D's scales and biases are initialised."""
BIAS_FLOOR = 1e-3
"""Distance from 0 and 1 that pixels of G begin with at least."""
SHARES_MOMENTUM = 0.01
"""Part of a minibatch in how often D has given each class."""
SUPERVISED_RATE = 0.003
"""Step size of Adam where D learns from labels alone."""
WARM_UP_STEPS = 3
"""Steps before a step is captured, in which libraries allocate what they need."""


@dataclass(frozen=True)
class Averages:
    """Exponential averages of D and G, in place; parameters and running statistics alike."""

    D: LaneClassifier
    G: LaneGenerator
    decay: float

    @torch.no_grad()
    def update(self, D: LaneClassifier, G: LaneGenerator) -> None:
        """Take the present nets in."""
        kept = [*self.D.state_dict().values(), *self.G.state_dict().values()]
        present = [*D.state_dict().values(), *G.state_dict().values()]
        torch._foreach_lerp_(kept, present, 1 - self.decay)


class FeatureMatching:
    """Both nets of P lanes in training, with everything that a later step depends on.

    Args:
        config: of every lane, but for its seed.
        few: the data of each lane; all have the same pixels.
        seeds: of the lanes.
        device: where to train; initial weights do not depend on it.
        is_supervised: train D on the labelled images alone, and G not at all.

    Attributes:
        step: updates of every lane so far.
        losses: sums over the steps since they were last read, [4, P]: labelled, unlabelled, G's,
            consistency.
    """

    def __init__(
        self,
        config: RunConfig,
        few: Sequence[FewLabels],
        *,
        seeds: Sequence[int],
        device: torch.device | str,
        is_supervised: bool = False,
    ) -> None:
        self.config, self.cfg = config, settings(config)
        self.few, self.is_supervised = few, is_supervised
        self.step = 0
        D, G = _initial_nets(config, few, seeds=seeds, is_supervised=is_supervised)
        self.D, self.G = D.to(device), G.to(device)
        self.device = next(self.D.parameters()).device
        self.streams = [Streams(seed, self.device) for seed in seeds]
        self._prior: Prior = build_prior(config.prior)
        self._pixels = few[0].pixels.to(self.device)
        train = config.train
        self.d_descent = build_descent(D.parameters(), train, learning_rate=_d_rate(config))
        self.g_descent = build_descent(G.parameters(), train, learning_rate=train.learning_rate)
        self.averages: Averages | None = None
        if train.average_decay:
            self.averages = Averages(
                copy.deepcopy(self.D), copy.deepcopy(self.G), train.average_decay
            )
        data = [streams.data for streams in self.streams]
        self._order = LaneOrder(few, batch_size=train.batch_size, rngs=data)
        self._rows = torch.zeros(
            4, len(few), train.batch_size, dtype=torch.int64, device=self.device
        )
        self._noise = self._make_noise()
        self._z = torch.zeros(len(few), 2 * train.batch_size, self._prior.dim, device=self.device)
        self._distortions = Distortions.of(self.cfg)
        self._maps = self._make_maps()
        K = few[0].n_classes
        self._shares = torch.full((len(few), 1, K), 1 / K, device=self.device)
        self.losses = torch.zeros(4, len(few), device=self.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def n_lanes(self) -> int:
        """P."""
        return len(self.few)

    @property
    def is_consistent(self) -> bool:
        """Whether distorted copies have a part in D's loss."""
        return self.cfg.consistency_weight > 0 and not self.is_supervised

    @property
    def learning_rate(self) -> float:
        """Step size of G's next update."""
        self._set_rates()
        return self.g_descent.learning_rate

    def advance(self) -> None:
        """One update of D and one of G, in every lane."""
        self._rows.copy_(next(self._order))
        self._noise.draw()
        if not self.is_supervised:
            n = self._z.shape[1]
            for row, streams in zip(self._z, self.streams, strict=True):
                row.copy_(self._prior.sample(n, streams.noise))
        if self._distortions.is_moving:
            shape, n = self.few[0].image_shape, self._maps.shape[1]
            for maps, streams in zip(self._maps, self.streams, strict=True):
                maps.copy_(self._distortions.maps(n, shape, streams.noise))
        self._set_rates()
        if self._graph is None:
            self._update()
        else:
            self._graph.replay()
        self.step += 1

    def capture(self) -> None:
        """Train a few steps, then record one, which all later ones replay; on CUDA, with Adam.

        A replay costs one launch rather than some 300, and gives what the step itself gives: all
        that it reads lies where it lay, and what changes outside it is written there.

        Raises:
            ValueError: training is on another device, or by another optimiser.
        """
        if self.device.type != "cuda" or self.config.train.optimizer != "adam":
            raise ValueError(
                "a step is captured on CUDA with train.optimizer=adam, got "
                f"{self.device.type} and {self.config.train.optimizer}"
            )
        for descent in (self.d_descent, self.g_descent):
            descent.rate_on_device = torch.zeros((), device=self.device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                self.advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update()
        self._graph = graph

    def read_losses(self) -> Tensor:
        """Sums of the losses since the last reading, [4, P] on the CPU."""
        sums = self.losses.to("cpu", copy=True)
        self.losses.zero_()
        return sums

    def nets(self) -> tuple[LaneClassifier, LaneGenerator]:
        """Those to use: the averages if any are kept."""
        return (self.D, self.G) if self.averages is None else (self.averages.D, self.averages.G)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name; `step` included."""
        self._set_rates()  # a replay counts no updates
        parts: dict[str, Mapping[str, Tensor]] = {
            "D": self.D.state_dict(),
            "G": self.G.state_dict(),
            "d_descent": self.d_descent.state(),
            "g_descent": self.g_descent.state(),
            "order": self._order.state(),
        }
        for lane, streams in enumerate(self.streams):
            parts[f"streams.{lane}"] = streams.state()
        if self.averages is not None:
            parts |= {
                "average.D": self.averages.D.state_dict(),
                "average.G": self.averages.G.state_dict(),
            }
        flat = {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}
        if self.is_consistent:
            flat["shares"] = self._shares
        return flat | {"step": torch.tensor(self.step)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.D.load_state_dict(part_of(state, "D/"))
        self.G.load_state_dict(part_of(state, "G/"))
        self.d_descent.set_state(part_of(state, "d_descent/"))
        self.g_descent.set_state(part_of(state, "g_descent/"))
        self._order.set_state(part_of(state, "order/"))
        for lane, streams in enumerate(self.streams):
            streams.set_state(part_of(state, f"streams.{lane}/"))
        if self.averages is not None:
            self.averages.D.load_state_dict(part_of(state, "average.D/"))
            self.averages.G.load_state_dict(part_of(state, "average.G/"))
        if self.is_consistent:
            self._shares.copy_(state["shares"])
        self.step = int(state["step"])

    def _update(self) -> None:
        """The arithmetic of a step: reads and writes tensors alone, where they lie."""
        if self.is_supervised:
            self._update_supervised()
            return
        n = self.config.train.batch_size
        labelled, labels, unlabelled, for_g = self._rows
        of_labels, x = self._images(labelled), self._images(unlabelled)
        with torch.no_grad():
            fake = self.G(self._z[:, :n])
        seen = [self._distorted(of_labels, self._maps[:, :n]), x, fake]
        if self.is_consistent:
            seen.append(self._distorted(x, self._maps[:, n:]))
        n_layers, directions = len(self.D.layers), self.D.directions()
        disturbed = self.D(torch.cat(seen, 1), self._noise.tensors[:n_layers], directions)
        logits = disturbed.split(n, 1)
        first = labelled_loss(logits[0], labels)
        second = unlabelled_loss(logits[1], logits[2])
        loss = first + self.cfg.unlabelled_weight * second
        fourth = torch.zeros_like(first)
        if self.is_consistent:
            with torch.no_grad():
                targets = self._targets(self.D(x, None, directions))
            fourth = consistency_loss(logits[3], targets)
            loss = loss + self.cfg.consistency_weight * fourth
        self.d_descent.update(self.d_descent.gradients(loss.sum()))

        noise, directions = self._noise.tensors[n_layers:], self.D.directions()
        half = len(noise) // 2
        self.D.requires_grad_(False)
        real = self.D.features(self._images(for_g), noise[:half], directions)
        fake = self.D.features(self.G(self._z[:, n:]), noise[half:], directions)
        third = feature_loss(fake, real)
        self.g_descent.update(self.g_descent.gradients(third.sum()))
        self.D.requires_grad_(True)
        self._finish(first, second, third, fourth)

    def _update_supervised(self) -> None:
        labelled, labels, _, _ = self._rows
        x = self._distorted(self._images(labelled), self._maps)
        loss = labelled_loss(self.D(x, self._noise.tensors), labels)
        self.d_descent.update(self.d_descent.gradients(loss.sum()))
        zero = torch.zeros_like(loss)
        self._finish(loss, zero, zero, zero)

    def _finish(self, *losses: Tensor) -> None:
        with torch.no_grad():
            self.losses += torch.stack(losses)
        if self.averages is not None:
            self.averages.update(self.D, self.G)

    def _images(self, rows: Tensor) -> Tensor:
        """[P, n] -> [P, n, n_pixels] float32 in [0, 1]."""
        pixels = self._pixels.index_select(0, rows.flatten())
        return pixels.to(torch.float32).div_(255).view(*rows.shape, -1)

    def _distorted(self, x: Tensor, maps: Tensor) -> Tensor:
        """Images [P, n, n_pixels], each by its map [P, n, 2, 3]; x itself without distortions."""
        if not self._distortions.is_moving:
            return x
        moved = warp(x.flatten(0, 1), maps.flatten(0, 1), self.few[0].image_shape)
        return moved.view(x.shape)

    def _targets(self, logits: Tensor) -> Tensor:
        """What D is to say of distorted copies of images of which it says this, [P, n, K]."""
        if self.cfg.consistency_balance:
            self._shares.lerp_(logits.softmax(2).mean(1, keepdim=True), SHARES_MOMENTUM)
        return consistency_targets(logits, self._shares, power=self.cfg.consistency_power)

    def _make_maps(self) -> Tensor:
        """Room for a map of every labelled image and every copy of a step, [P, n, 2, 3]."""
        n = self.config.train.batch_size * (2 if self.is_consistent else 1)
        return torch.zeros(self.n_lanes, n, 2, 3, device=self.device)

    def _make_noise(self) -> Normals:
        widths = [self._pixels.shape[1], *self.cfg.hidden]
        n = self.config.train.batch_size
        shapes = [(n, width) for width in widths]
        if not self.is_supervised:
            n_kinds = 4 if self.is_consistent else 3
            of_d = [(n_kinds * n, width) for width in widths]
            shapes = of_d + 2 * shapes[:-1]
        return Normals(shapes, rngs=[streams.dropout for streams in self.streams])

    def _set_rates(self) -> None:
        """Step sizes of the next update: constant, then linearly to 0 at the last."""
        n_steps, start = self.config.train.n_steps, self.cfg.anneal_from
        left = max(0.0, 1 - self.step / n_steps)
        factor = min(1.0, left / (1 - start)) if start < 1 else 1.0
        for descent in (self.d_descent, self.g_descent):
            # A replayed update does not count itself.
            descent.n_updates = self.step
            descent.rate_factor = factor
            if descent.rate_on_device is not None:
                descent.rate_on_device.fill_(descent.learning_rate)


def supervised_config(config: RunConfig) -> RunConfig:
    """The run that trains D on the labels alone, whatever the others are trained by."""
    cfg = settings(config)
    train = dataclasses.replace(
        config.train,
        n_steps=cfg.supervised_steps,
        optimizer="adam",
        learning_rate=SUPERVISED_RATE,
        d_learning_rate=None,
        decay_per_step=1.0,
        min_learning_rate=0.0,
        # The step size falls to 0, so that the last weights need no average.
        average_decay=0.0,
    )
    return dataclasses.replace(config, train=train)


def train_supervised(config: RunConfig, few: FewLabels) -> Callable[[Tensor], Tensor]:
    """D trained on the labelled images alone, on the CPU.

    Returns:
        uint8 [n, n_pixels] -> logits [n, K].
    """
    own = supervised_config(config)
    run = FeatureMatching(own, [few], seeds=[config.seed], device="cpu", is_supervised=True)
    while run.step < own.train.n_steps:
        run.advance()
    return lambda pixels: classify(run.D, pixels)[0]


def settings(config: RunConfig) -> SemiSupervisedConfig:
    """The section of this extension."""
    assert config.semi_supervised is not None  # noqa: S101 (else this is another task)
    return config.semi_supervised


def _d_rate(config: RunConfig) -> float:
    train = config.train
    return train.learning_rate if train.d_learning_rate is None else train.d_learning_rate


def _initial_nets(
    config: RunConfig, few: Sequence[FewLabels], *, seeds: Sequence[int], is_supervised: bool
) -> tuple[LaneClassifier, LaneGenerator]:
    """Both nets at step 0, on the CPU; no lane's depend on the others."""
    mean = torch.from_numpy(pixel_mean(few[0].pixels.numpy()))
    lanes = [
        _initial_lane(config, lane, seed=seed, pixel_mean=mean, is_supervised=is_supervised)
        for lane, seed in zip(few, seeds, strict=True)
    ]
    D, G = copy.deepcopy(lanes[0])
    for net, of_lanes in zip((D, G), zip(*lanes, strict=True), strict=True):
        states = [lane.state_dict() for lane in of_lanes]
        for name, tensor in itertools.chain(net.named_parameters(), net.named_buffers()):
            tensor.data = torch.cat([state[name] for state in states])
    return D, G


def _initial_lane(
    config: RunConfig, few: FewLabels, *, seed: int, pixel_mean: Tensor, is_supervised: bool
) -> tuple[LaneClassifier, LaneGenerator]:
    """Both nets of one lane, drawn from the stream "init" of its seed."""
    cfg, bfloat16 = settings(config), config.train.precision == "bfloat16"
    n_pixels = few.pixels.shape[1]
    rng = stream(seed, "init")
    widths = [n_pixels, *cfg.hidden, few.n_classes]
    D = LaneClassifier(
        [
            torch.randn(1, a, b, generator=rng).mul_(THETA_SPREAD)
            for a, b in itertools.pairwise(widths)
        ],
        noise_input=cfg.noise_input,
        noise_hidden=cfg.noise_hidden,
        bfloat16=bfloat16,
    )
    *hidden, theta = [
        _glorot(a, b, rng)
        for a, b in itertools.pairwise([config.prior.dim, *cfg.generator_hidden, n_pixels])
    ]
    rows = few.labelled if is_supervised else few.unlabelled
    chosen = rows[torch.randperm(len(rows), generator=rng)[:INIT_IMAGES]]
    x = few.pixels[chosen].to(torch.float32).div_(255).unsqueeze(0)
    if cfg.init_from_data:
        D.initialise(x, [torch.randn(1, len(chosen), w, generator=rng) for w in widths[:-1]])
    G = LaneGenerator(hidden, theta, bfloat16=bfloat16)
    with torch.no_grad():
        G.output.bias.copy_(torch.logit(pixel_mean, eps=BIAS_FLOOR))
    return D, G


def _glorot(n_in: int, n_out: int, rng: torch.Generator) -> Tensor:
    """[1, n_in, n_out], uniform with variance 2 / (n_in + n_out)."""
    bound = math.sqrt(6 / (n_in + n_out))
    return torch.empty(1, n_in, n_out).uniform_(-bound, bound, generator=rng)
