"""The generative stochastic network and its chains.  Kinds: reference, theorem, behaviour."""

import itertools
import math

import numpy as np
import pytest
import torch

from gan.baselines.chains import Chains
from gan.baselines.gsn import Gsn, salt_and_pepper
from gan.config import GsnConfig, RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.errors import ConfigError
from gan.randomness import stream
from gan.sampling import Sampler
from gan.tasks import start_run
from tests.gan.small import EXTENSIONS, OF_ALL, start_extension


def net(n_pixels: int, **settings: object) -> Gsn:
    """An untrained network of pictures one pixel high."""
    return Gsn(
        (1, 1, n_pixels),
        cfg=GsnConfig(**settings),
        pixel_mean=torch.full((n_pixels,), 0.5),
        rng=stream(0, "init"),
    )


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def parameters(model: Gsn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """W_1 .. W_L, each [below, above], and b_0 .. b_L."""
    weights = [layer.weight.detach().double().numpy() for layer in model.down]
    biases = [layer.bias.detach().double().numpy() for layer in model.down]
    return weights, [*biases, model.top_bias.detach().double().numpy()]


def renewed(x, h, weights, biases):
    """Means of the pixels and hidden layers after one noiseless transition, unit by unit."""
    layers = [x, *(layer.copy() for layer in h)]
    top = len(layers) - 1
    for parity in (1, 0):
        for i in range(top + 1):
            if i % 2 != parity:
                continue
            inputs = biases[i].copy()
            for unit in range(len(inputs)):
                if i > 0:
                    inputs[unit] += sum(layers[i - 1] * weights[i - 1][:, unit])
                if i < top:
                    inputs[unit] += sum(layers[i + 1] * weights[i][unit])
            layers[i] = sigmoid(inputs) if i == 0 else np.tanh(inputs)
    return layers[0], layers[1:]


def bits(n: int) -> np.ndarray:
    """All pictures of n black or white pixels, [2^n, n]."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def corruption_matrix(states: np.ndarray, share: float) -> np.ndarray:
    """C(x~ | x) of salt and pepper, [x, x~]."""
    agrees = states[:, None] == states[None]
    return np.where(agrees, 1 - share / 2, share / 2).prod(2)


def stationary(transition: np.ndarray) -> np.ndarray:
    """The distribution that a transition matrix [from, to] leaves as it is."""
    n = len(transition)
    system = np.vstack([transition.T - np.eye(n), np.ones(n)])
    return np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]


def test_salt_and_pepper_replaces_a_share_by_fair_coin_flips():
    x = torch.full((400, 500), 0.25)
    noisy = salt_and_pepper(x, 0.4, stream(0, "noise"))
    for value, share in ((0.25, 0.6), (0.0, 0.2), (1.0, 0.2)):
        assert (noisy == value).float().mean().item() == pytest.approx(share, abs=0.005)
    assert torch.equal(salt_and_pepper(x, 0.0, stream(0, "noise")), x)
    assert not bool((salt_and_pepper(x, 1.0, stream(0, "noise")) == 0.25).any())


@pytest.mark.parametrize("hidden", [(4,), (4, 3), (4, 3, 5), (2, 5, 3, 4)])
def test_a_transition_renews_odd_layers_before_even_ones(hidden):
    model = net(5, hidden=hidden, corruption=0.0, hidden_noise=0.0)
    weights, biases = parameters(model)
    x = torch.rand(5, generator=torch.Generator().manual_seed(1))
    state = model.clamp(x[None], stream(0, "noise"))
    h = [np.zeros(units) for units in hidden]
    for _ in range(4):
        pixels = state.layers[0][0].double().numpy()
        state = model.transition(state, stream(0, "noise"))
        p, h = renewed(pixels, h, weights, biases)
        np.testing.assert_allclose(torch.sigmoid(state.logits)[0].detach(), p, atol=1e-6)
        for mine, expected in zip(state.layers[1:], h, strict=True):
            np.testing.assert_allclose(mine[0].detach(), expected, atol=1e-6)


def test_noise_is_before_and_after_the_units_of_all_layers_but_the_first():
    model = net(3, hidden=(2, 2), hidden_noise=0.3)
    torch.nn.init.zeros_(model.down[1].weight)  # then h_2 is noise alone
    state = model.clamp(torch.rand(20_000, 3), stream(1, "noise"))
    corrupted = state.layers[0]
    with torch.no_grad():
        state = model.transition(state, stream(2, "noise"))
        h_1 = torch.tanh(corrupted @ model.down[0].weight)
    torch.testing.assert_close(state.layers[1], h_1)
    normal = torch.randn(2, 200_000, generator=stream(3, "noise"))
    expected = (0.3 * normal[0] + torch.tanh(0.3 * normal[1])).var()
    assert state.layers[2].mean().item() == pytest.approx(0, abs=0.01)
    assert state.layers[2].var().item() == pytest.approx(expected.item(), rel=0.03)


def test_walkback_is_the_sum_of_an_unrolled_walk():
    """Without corruption and with saturated pixels a walk has no chance in it."""
    model = net(4, hidden=(3, 2), corruption=0.0, hidden_noise=0.0, walkback=3)
    torch.nn.init.constant_(model.down[0].bias, 40.0)  # every drawn pixel is white
    with torch.no_grad():
        model.down[0].bias[:2] = -40.0
    weights, biases = parameters(model)
    x = torch.tensor([[0.0, 1.0, 0.25, 1.0], [1.0, 0.0, 0.5, 0.0]])
    total = 0.0
    for image in x.double().numpy():
        pixels, h = image, [np.zeros(3), np.zeros(2)]
        for _ in range(3):
            p, h_next = renewed(pixels, h, weights, biases)
            logit = weights[0] @ h_next[0] + biases[0]
            # -x log p - (1 - x) log(1 - p), with the logarithms written out
            total += sum(np.logaddexp(0, logit) - image * logit)
            pixels, h = p.round(), h_next
    loss = model.walkback_nats(x, stream(0, "noise"))
    assert loss.item() == pytest.approx(total / (3 * 2), rel=1e-5)


def test_the_gradient_of_walkback_is_that_of_finite_differences():
    model = net(4, hidden=(3, 2), walkback=2, corruption=0.5, hidden_noise=0.5).double()
    x = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss() -> torch.Tensor:
        return model.walkback_nats(x, stream(7, "noise"))

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        flat = parameter.data.view(-1)
        for i in range(0, len(flat), 3):
            value, step = flat[i].item(), 1e-6
            flat[i] = value + step
            above = loss().item()
            flat[i] = value - step
            below = loss().item()
            flat[i] = value
            slope = (above - below) / (2 * step)
            assert gradient.view(-1)[i].item() == pytest.approx(slope, abs=2e-6)


def test_with_the_exact_denoiser_the_chain_has_the_data_s_distribution():
    """Theorem 1, of three pixels that depend on each other."""
    states = bits(3)
    data = np.array([0.3, 0.02, 0.05, 0.13, 0.01, 0.09, 0.15, 0.25])
    corruption = corruption_matrix(states, 0.4)
    joint = data[:, None] * corruption
    denoiser = (joint / joint.sum(0)).T  # P(x | x~), [x~, x]
    np.testing.assert_allclose(stationary(corruption @ denoiser), data, atol=1e-12)

    table = torch.from_numpy(denoiser)
    places = torch.tensor([4, 2, 1])

    def transition(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        code = (salt_and_pepper(x, 0.4, rng).long() * places).sum(1)
        drawn = torch.multinomial(table[code], 1, generator=rng)[:, 0]
        return (drawn[:, None] // places % 2).double()

    chains = Chains(
        start=lambda n, rng: torch.zeros(n, 3, dtype=torch.float64),
        transition=transition,
        read=lambda x: x,
        rows_per_chain=20,
        burn_in=30,
        thinning=5,
    )
    rows = chains.sample(40_000, stream(0, "samples")).long()
    shares = (rows * places).sum(1).bincount(minlength=8) / len(rows)
    np.testing.assert_allclose(shares, data, atol=0.012)


def test_a_network_that_denoises_exactly_has_the_data_s_distribution():
    """Of independent pixels, where P(x | x~) is of independent pixels, too: one unit for each.

    sigmoid(w tanh(w x~ + c) + b) is to be P(x = 1 | x~) for x~ of 0 and of 1, by choice of c, b.
    """
    white = torch.tensor([0.2, 0.5, 0.9])
    share, w = 0.4, 2.0
    likelihoods = [share / 2, 1 - share / 2]  # C(x~ = 1 | x) for x of 0 and of 1
    odds = (white / (1 - white)).log()
    logits = torch.stack(
        [
            odds + math.log((1 - likelihoods[1]) / (1 - likelihoods[0])),
            odds + math.log(likelihoods[1] / likelihoods[0]),
        ]
    )
    model = net(3, hidden=(3,), corruption=share, burn_in=20)
    with torch.no_grad():
        # From its greatest at c = -w/2 on, w (tanh(w + c) - tanh(c)) falls to the rise of a logit.
        rise = (logits[1] - logits[0])[0].item()
        assert 2 * w * math.tanh(w / 2) > rise
        c = next(c for c in np.arange(-w / 2, 3, 1e-4) if w * np.diff(np.tanh([c, w + c])) < rise)
        model.down[0].weight.copy_(w * torch.eye(3))
        model.top_bias.fill_(c)
        model.down[0].bias.copy_(logits[0] - w * math.tanh(c))
    means = model.eval().sample(20_000, seed=0).view(-1, 3)
    torch.testing.assert_close(means.mean(0), white, atol=0.01, rtol=0)


def test_samples_have_the_moments_of_the_enumerated_chain():
    """Of an arbitrary network: what its transition matrix leaves as it is, not the data's."""
    model = net(3, hidden=(4,), corruption=0.3, burn_in=40, samples_per_chain=2)
    with torch.no_grad():
        model.down[0].weight.mul_(3)
        model.down[0].bias.copy_(torch.tensor([0.5, -0.4, 0.1]))
    (W,), (b_0, b_1) = parameters(model)
    states = bits(3)
    p = sigmoid(np.tanh(states @ W + b_1) @ W.T + b_0)  # means of the pixels after each x~
    drawn = np.where(states[None] == 1, p[:, None], 1 - p[:, None]).prod(2)
    share = stationary(corruption_matrix(states, 0.3) @ drawn) @ corruption_matrix(states, 0.3)
    samples = model.eval().sample(60_000, seed=1).view(-1, 3).double().numpy()
    np.testing.assert_allclose(samples.mean(0), share @ p, atol=0.01)
    second = (share[:, None, None] * p[:, :, None] * p[:, None]).sum(0)
    np.testing.assert_allclose(samples.T @ samples / len(samples), second, atol=0.01)


def test_of_two_pictures_it_learns_both_and_mixes():
    pictures = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    pictures[0, 0, :2], pictures[1, 0, 2:] = 255, 255
    images = ImageSet(images=pictures.repeat(20, 0), labels=None, digest="0" * 64)
    settings = {"train.n_steps": 300, "train.optimizer": "adam", "train.learning_rate": 0.02}
    settings |= {"train.report_every": 10, "evaluation.score_every": 300}
    settings |= {"gsn": {"hidden": [10, 10], "hidden_noise": 0.5, "burn_in": 20}}
    run = start_run(with_overrides(RunConfig(), OF_ALL | settings), images, device="cpu")
    nats = [report.metrics()["walkback_nats"] for report in run.train()]
    assert nats[-1] < 4 * math.log(2) < nats[0]
    drawn = run.saved().sampler().sample(500, seed=0).flatten(1)
    distances = torch.cdist(drawn, torch.from_numpy(pictures / 255).float().flatten(1))
    assert distances.min(1).values.median() < 0.5
    assert distances.argmin(1).bincount(minlength=2).min() > 100


@pytest.mark.parametrize("name", [name for name in EXTENSIONS if name.startswith("gsn")])
def test_samples_of_a_seed_do_not_depend_on_how_many_are_drawn(name):
    sampler: Sampler = start_extension(name).saved().sampler()
    many = sampler.sample(1203, seed=3)
    assert many.shape == (1203, 1, 4, 4)
    assert 0 <= many.min() <= many.max() <= 1
    assert torch.equal(sampler.sample(5, seed=3), many[:5])
    assert not torch.equal(sampler.sample(5, seed=4), many[:5])


def test_chains_are_read_after_burn_in_and_at_every_thinning():
    chains = Chains(
        start=lambda n, rng: torch.arange(n, dtype=torch.float64)[:, None] * 1000,
        transition=lambda state, rng: state + 1,
        read=lambda state: state,
        rows_per_chain=3,
        burn_in=7,
        thinning=4,
    )
    rows = chains.sample(8, stream(0, "samples"))[:, 0]
    assert rows.tolist() == [7, 1007, 2007, 11, 1011, 2011, 15, 1015]


def test_a_walk_too_short_for_the_last_layer_is_refused():
    with pytest.raises(ConfigError, match="walkback must be at least the 3 hidden layers"):
        with_overrides(RunConfig(), {"gsn": {"hidden": [6, 5, 4], "walkback": 2}})


def test_the_decoder_leads_from_the_first_hidden_layer_to_the_means():
    model = net(4, hidden=(3, 2))
    decoder, width = model.decoder()
    h = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    (W, _), (b_0, *_) = parameters(model)
    expected = sigmoid(h.double().numpy() @ W.T + b_0)
    np.testing.assert_allclose(decoder(h).detach(), expected, atol=1e-6)
