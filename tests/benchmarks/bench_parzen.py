"""The Parzen score against the released broadcast and against its own matrix products.

    python -m tests.benchmarks.bench_parzen

One protocol is a choice among ten widths on 1,000 images and a score of 10,000, with 10,000
samples of 784 pixels, all of MNIST.  Parts alternate, the fastest of three counts: a machine that
others use slows each of them down.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.config import DataConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.evaluation.parzen import PAPER_GRID, ParzenScore, choose_sigma, parzen_score
from tests.gan import oracles

N_SAMPLES, N_SIGMA_IMAGES, CHUNK = 10_000, 1_000, 500
N_REPEATS = 3


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def pixels(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images / np.float32(255)).flatten(1)


def products(x: Tensor, samples: Tensor, dtype: torch.dtype) -> None:
    """The matrix products of one pass over `x`, and nothing else."""
    points, centres = x.to(dtype), samples.to(dtype)
    out = torch.empty(CHUNK, len(centres), dtype=dtype)
    for start in range(0, len(points), CHUNK):
        torch.mm(points[start : start + CHUNK], centres.T, out=out)


def broadcast_seconds(x: Tensor, samples: Tensor, *, batch_size: int) -> tuple[float, float]:
    """Time of the released broadcast for one image and one width, in float64 NumPy.

    Returns:
        Of the first batch, which waits for gigabytes of fresh memory, and of the fastest later.
    """
    images, centres = x[:batch_size].double().numpy(), samples.double().numpy()

    def one_batch() -> object:
        return oracles.parzen_log_likelihood(images, centres, PAPER_GRID[2], batch_size)

    first, *later = (seconds(one_batch) / batch_size for _ in range(1 + N_REPEATS))
    return first, min(later)


def protocol(valid: Tensor, test: Tensor, samples: Tensor) -> ParzenScore:
    sigma = choose_sigma(valid, samples, grid=PAPER_GRID, chunk=CHUNK)
    return parzen_score(test, samples, sigma=sigma, chunk=CHUNK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch-size",
        type=int,
        default=10,
        help="images a pass of the broadcast; the released script's 100 takes 12 GB",
    )
    batch_size = parser.parse_args().batch_size

    train, valid_set = load_train_valid(DataConfig())
    samples = pixels(train.images[:N_SAMPLES])
    valid = pixels(valid_set.images[:N_SIGMA_IMAGES])
    test = pixels(load_test(DataConfig()).images)
    n_threads = torch.get_num_threads()

    parts: dict[str, Callable[[], object]] = {
        "protocol": lambda: protocol(valid, test, samples),
        "products, float64": lambda: products(torch.cat([valid, test]), samples, torch.float64),
        "products, float32": lambda: products(torch.cat([valid, test]), samples, torch.float32),
    }
    fastest = dict.fromkeys(parts, float("inf"))
    for _ in range(N_REPEATS):
        for name, call in parts.items():
            fastest[name] = min(fastest[name], seconds(call))
    first, later = broadcast_seconds(test, samples, batch_size=batch_size)
    n_image_widths = len(test) + len(PAPER_GRID) * len(valid)

    score = protocol(valid, test, samples)
    print(f"score {score.mean:.3f} nats, se {score.standard_error:.3f}, sigma {score.sigma:.5f}")
    print(f"{n_threads} threads")
    for name, spent in fastest.items():
        print(f"  {name:<20}{spent:8.2f} s")
    for name, image in (("first batch", first), ("later batches", later)):
        whole = image * n_image_widths
        print(f"  broadcast, {name}: {image:.3f} s an image and width, {whole:.0f} s in all")
        print(f"    broadcast / protocol        {whole / fastest['protocol']:7.0f}")
    for dtype in ("float64", "float32"):
        ratio = fastest["protocol"] / fastest[f"products, {dtype}"]
        print(f"  protocol / products, {dtype}  {ratio:7.2f}")

    torch.set_num_threads(1)
    choose = min(seconds(lambda: choose_sigma(valid, samples, grid=PAPER_GRID)) for _ in range(3))
    one = min(seconds(lambda: parzen_score(test, samples, sigma=0.167)) for _ in range(3))
    print("1 thread")
    print(f"  ten widths on {len(valid):,} images   {choose:6.2f} s")
    print(f"  score of {len(test):,} images       {one:6.2f} s")


if __name__ == "__main__":
    main()
