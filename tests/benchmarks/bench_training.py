"""Images a second in training, against the customary loop and against the matrix products alone.

    python -m tests.benchmarks.bench_training

Part 1 trains the nets of PyTorch-GAN's `gan.py` (G 100-128-256-512-1024-784 with batch norm, D
784-512-256-1, batch 64, Adam) by `gan.algorithm1.train` and by the customary loop: a DataLoader
over torchvision's MNIST with ToTensor and Normalize, two forward passes of D, `.item()` on each
loss at every step.  Part 2 trains the paper's MNIST nets (batch 100, SGD) and counts the
floating-point operations of their matrix products a second, against `torch.mm` on the very shapes
of these products.  The contestants take turns, so that a change of the machine's speed meets all.
"""

import itertools
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan.config import RunConfig, load_config
from gan.datasets.images import ImageSet
from gan.datasets.mnist import read_mnist
from gan.run import Run

PYTORCH_GAN = [
    "generator.hidden=[128, 256, 512, 1024]",
    "generator.batch_norm=true",
    "generator.init_range=null",
    "discriminator.hidden=[512, 256]",
    "discriminator.activation=leaky_relu",
    "discriminator.dropout_input=0",
    "discriminator.dropout_hidden=0",
    "discriminator.init_range=null",
    "train.batch_size=64",
    "train.optimizer=adam",
    "train.learning_rate=0.0002",
    "train.report_every=100",
    "evaluation.score_every=100000",
    "train.n_steps=1000000",
]
N_ROUNDS, N_STEPS = 7, 100


def ours(settings: list[str], images: ImageSet) -> Callable[[], float]:
    """A function that trains N_STEPS steps and returns their seconds."""
    cfg: RunConfig = load_config({}, [*settings, f"train.report_every={N_STEPS}"]).base
    reports = Run(cfg, images, device="cpu").train()

    def steps() -> float:
        started_at = time.perf_counter()
        next(reports)
        return time.perf_counter() - started_at

    return steps


def customary(root: Path) -> Callable[[], float]:
    """The customary loop over torchvision's MNIST, as a function like that of `ours`."""
    from torchvision import transforms
    from torchvision.datasets import MNIST

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    dataset = MNIST(root, train=True, transform=transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    G, D = _customary_generator(), _customary_discriminator()
    bce = nn.BCELoss()
    g_adam = torch.optim.Adam(G.parameters(), lr=0.0002, betas=(0.5, 0.999))
    d_adam = torch.optim.Adam(D.parameters(), lr=0.0002, betas=(0.5, 0.999))
    batches = _endless(loader)

    def steps() -> float:
        started_at = time.perf_counter()
        for _ in range(N_STEPS):
            x = next(batches)
            valid, fake = torch.ones(len(x), 1), torch.zeros(len(x), 1)
            g_adam.zero_grad()
            x_fake = G(torch.randn(len(x), 100))
            g_loss = bce(D(x_fake), valid)
            g_loss.backward()
            g_adam.step()
            d_adam.zero_grad()
            d_loss = (bce(D(x), valid) + bce(D(x_fake.detach()), fake)) / 2
            d_loss.backward()
            d_adam.step()
            _ = d_loss.item(), g_loss.item()
        return time.perf_counter() - started_at

    return steps


def products_of_a_step(cfg: RunConfig, *, n_pixels: int) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of every matrix product of one alternating step with k = 1."""
    m = cfg.train.batch_size
    G = _layer_shapes([cfg.prior.dim, *cfg.generator.hidden, n_pixels])
    pieces = cfg.discriminator.pieces
    widths = [n_pixels, *cfg.discriminator.hidden]
    D = [(a, b * pieces) for a, b in itertools.pairwise(widths)]
    D.append((widths[-1], 1))
    forward_G = [(m, a, b) for a, b in G]
    d_step = [(2 * m, a, b) for a, b in D] + [(b, 2 * m, a) for a, b in D]
    d_step += [(2 * m, b, a) for a, b in D[1:]]
    g_step = [(m, a, b) for a, b in D] + [(m, b, a) for a, b in D]
    g_step += [(b, m, a) for a, b in G] + [(m, b, a) for a, b in G[1:]]
    return [*forward_G, *d_step, *forward_G, *g_step]


def mm_alone(products: list[tuple[int, int, int]]) -> Callable[[], float]:
    """The matrix products of N_STEPS steps and nothing else, as a function like that of `ours`."""
    factors = [(torch.randn(n, k), torch.randn(k, m), torch.empty(n, m)) for n, k, m in products]

    def steps() -> float:
        started_at = time.perf_counter()
        for _ in range(N_STEPS):
            for a, b, out in factors:
                torch.mm(a, b, out=out)
        return time.perf_counter() - started_at

    return steps


def take_turns(contestants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one round that does not count."""
    for steps in contestants.values():
        steps()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(N_ROUNDS):
        for name, steps in contestants.items():
            seconds[name].append(steps())
    return seconds


def write_idx(root: Path, images: ImageSet) -> None:
    """MNIST's training files as torchvision expects them below `root`."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = images.images.reshape(-1, 28, 28)
    labels = images.labels
    assert labels is not None
    header = struct.pack(">IIII", 0x803, *pixels.shape)
    (raw / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    header = struct.pack(">II", 0x801, len(labels))
    (raw / "train-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        # torchvision looks whether they are there; this benchmark does not read them.
        (raw / name).write_bytes((raw / name.replace("t10k", "train")).read_bytes())


def against_the_customary_loop(images: ImageSet) -> None:
    """Print part 1."""
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder), images)
        seconds = take_turns(
            {
                "customary": customary(Path(folder)),
                "alternating": ours(PYTORCH_GAN, images),
                "simultaneous": ours([*PYTORCH_GAN, "train.update_order=simultaneous"], images),
            }
        )
    for name, rounds in seconds.items():
        ratios = [a / b for a, b in zip(seconds["customary"], rounds, strict=True)]
        print(
            f"  {name:<13}{64 * N_STEPS / statistics.median(rounds):8,.0f} images/s"
            f"   {statistics.median(ratios):5.2f} x the customary loop"
            f"   (rounds {min(ratios):.2f} to {max(ratios):.2f})"
        )


def against_the_products(images: ImageSet) -> None:
    """Print part 2."""
    products = products_of_a_step(RunConfig(), n_pixels=784)
    gflop = 2e-9 * sum(n * k * m for n, k, m in products) * N_STEPS
    settings = ["train.n_steps=1000000", "evaluation.score_every=100000"]
    seconds = take_turns({"mm": mm_alone(products), "training": ours(settings, images)})
    for name, rounds in seconds.items():
        print(f"  {name:<13}{gflop / statistics.median(rounds):8.0f} GFLOP/s")
    ratios = [a / b for a, b in zip(seconds["mm"], seconds["training"], strict=True)]
    print(
        f"  training runs at {statistics.median(ratios):.0%} of the rate of mm"
        f" (rounds {min(ratios):.0%} to {max(ratios):.0%})"
    )


def main() -> None:
    images = read_mnist("train")
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        print(f"PyTorch-GAN's nets, batch 64, threads: {n_threads}, medians of {N_ROUNDS} rounds")
        against_the_customary_loop(images)
        print(f"The paper's MNIST nets, batch 100, threads: {n_threads}")
        against_the_products(images)


def _layer_shapes(widths: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(widths))


def _endless(loader: "torch.utils.data.DataLoader[tuple[Tensor, Tensor]]") -> Iterator[Tensor]:
    while True:
        for x, _ in loader:
            yield x


def _customary_generator() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(100, 128), nn.LeakyReLU(0.2)]
    for a, b in [(128, 256), (256, 512), (512, 1024)]:
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(0.2)]
    layers += [nn.Linear(1024, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))]
    return nn.Sequential(*layers)


def _customary_discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.LeakyReLU(0.2),
        nn.Linear(512, 256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, 1),
        nn.Sigmoid(),
    )


if __name__ == "__main__":
    main()
