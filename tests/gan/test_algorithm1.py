"""Algorithm 1.  Kinds: independent reference, algorithm, invariance."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from gan.algorithm1 import train
from gan.datasets.images import ImageSet
from gan.errors import DivergedError
from gan.layers import dropout_mask
from gan.losses import discriminator_loss, non_saturating_generator_loss
from gan.minibatches import Minibatches
from gan.optimisers import Descent
from gan.priors import build_prior
from gan.randomness import Streams
from gan.run import Run
from tests.gan.small import small_config, small_images, small_run

ORDERS = ("alternating", "simultaneous")


@pytest.fixture(params=ORDERS)
def order(request):
    return request.param


def parameters(net):
    return [p.detach().clone() for p in net.parameters()]


# Independent reference: the same draws, everything else by hand and in float64


class Reference:
    """Both players as lists of matrices; D sees images and samples in separate passes."""

    def __init__(self, run):
        self.cfg = run.cfg
        self.G = [p.detach().double().requires_grad_() for p in run.gan.G.parameters()]
        self.D = [p.detach().double().requires_grad_() for p in run.gan.D.parameters()]
        self.velocities = {"G": [0.0] * len(self.G), "D": [0.0] * len(self.D)}
        self.n_updates = {"G": 0, "D": 0}
        self.prior, self.streams = build_prior(run.cfg.prior), Streams(run.cfg.seed)
        self.images = Minibatches(
            torch.from_numpy(small_images().images).flatten(1),
            batch_size=run.cfg.train.batch_size,
            rng=self.streams.data,
        )

    def g_masks(self, n):
        cfg = self.cfg.generator
        return [self.mask(n, width, cfg.dropout_hidden) for width in cfg.hidden]

    def d_masks(self, n):
        cfg = self.cfg.discriminator
        first = self.mask(n, 16, cfg.dropout_input)
        return [first] + [self.mask(n, width, cfg.dropout_hidden) for width in cfg.hidden]

    def mask(self, n, width, drop):
        return dropout_mask(n, width, drop=drop, rng=self.streams.dropout).double()

    def generate(self, n):
        h = self.prior.sample(n, self.streams.noise).double()
        *hidden, (W, b) = pairs(self.G)
        for (V, c), mask in zip(hidden, self.g_masks(n), strict=True):
            h = torch.clamp(h @ V.T + c, min=0) * mask
        return 1 / (1 + torch.exp(-(h @ W.T + b)))

    def probability(self, x, masks):
        """D(x), through maxout units whose pieces are compared one by one."""
        *hidden, (W, b) = pairs(self.D)
        h = x.double() * masks[0]
        for (V, c), mask in zip(hidden, masks[1:], strict=True):
            n_units = mask.shape[1]
            a = h @ V.T + c
            best = a[:, :n_units]
            for start in range(n_units, a.shape[1], n_units):
                best = torch.maximum(best, a[:, start : start + n_units])
            h = best * mask
        return 1 / (1 + torch.exp(-(h @ W.T + b)[:, 0]))

    def g_loss(self, d_fake):
        if self.cfg.train.generator_loss == "minimax":
            return torch.log(1 - d_fake).mean()
        return -torch.log(d_fake).mean()

    def descend(self, player, gradients):
        cfg, t = self.cfg.train, self.n_updates[player]
        rate = cfg.d_learning_rate if player == "D" else cfg.learning_rate
        rate = max(cfg.min_learning_rate, rate / cfg.decay_per_step**t)
        share = min(1, t / cfg.momentum_steps)
        momentum = (1 - share) * cfg.momentum + share * cfg.final_momentum
        velocities = [
            momentum * v + g for v, g in zip(self.velocities[player], gradients, strict=True)
        ]
        with torch.no_grad():
            for p, v in zip(getattr(self, player), velocities, strict=True):
                p.copy_(p - rate * v)
        self.velocities[player], self.n_updates[player] = velocities, t + 1

    def d_only_update(self):
        x = next(self.images)
        fakes, masks = self.generate(len(x)), self.d_masks(2 * len(x))
        d_real = self.probability(x, [m[: len(x)] for m in masks])
        d_fake = self.probability(fakes.detach(), [m[len(x) :] for m in masks])
        loss = -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
        self.descend("D", torch.autograd.grad(self.cfg.train.d_loss_scale * loss, self.D))
        return loss.item()

    def g_only_update(self):
        n = self.cfg.train.batch_size
        fakes = self.generate(n)
        loss = self.g_loss(self.probability(fakes, self.d_masks(n)))
        self.descend("G", torch.autograd.grad(loss, self.G))
        return loss.item()

    def simultaneous_update(self):
        x = next(self.images)
        masks = self.d_masks(2 * len(x))
        d_real = self.probability(x, [m[: len(x)] for m in masks])
        d_fake = self.probability(self.generate(len(x)), [m[len(x) :] for m in masks])
        d_loss = -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
        g_loss = self.g_loss(d_fake)
        scaled = self.cfg.train.d_loss_scale * d_loss
        d_gradients = torch.autograd.grad(scaled, self.D, retain_graph=True)
        g_gradients = torch.autograd.grad(g_loss, self.G)
        self.descend("D", d_gradients)
        self.descend("G", g_gradients)
        return d_loss.item(), g_loss.item()

    def step(self):
        k = self.cfg.train.d_steps
        if self.cfg.train.update_order == "simultaneous":
            for _ in range(k - 1):
                self.d_only_update()
            return self.simultaneous_update()
        d_losses = [self.d_only_update() for _ in range(k)]
        return d_losses[-1], self.g_only_update()


def pairs(flat):
    return zip(flat[::2], flat[1::2], strict=True)


@pytest.mark.parametrize("generator_loss", ["non_saturating", "minimax"])
@pytest.mark.parametrize("k", [1, 3])
def test_training_follows_the_algorithm_written_out(order, k, generator_loss):
    run = small_run(
        train__update_order=order,
        train__d_steps=k,
        train__generator_loss=generator_loss,
        train__learning_rate=0.3,
        train__d_learning_rate=0.2,
        train__d_loss_scale=0.5,
        train__decay_per_step=1.05,
        generator__dropout_hidden=0.3,
    )
    reference = Reference(run)
    for progress in run.train():
        expected = reference.step()
        assert_allclose((progress.d_loss, progress.g_loss), expected, rtol=1e-5, atol=0)
    assert run.gan.step == 4
    for net, theirs in ((run.gan.G, reference.G), (run.gan.D, reference.D)):
        assert_close([p.double() for p in parameters(net)], theirs, rtol=1e-4, atol=1e-6)


# Algorithm


def updates_of(run, monkeypatch):
    """The updates that training makes: whose, and the parameters of both before and after."""
    gan, log, update = run.gan, [], Descent.update

    def spy(descent, gradients):
        before = parameters(gan.G), parameters(gan.D)
        update(descent, gradients)
        player = "G" if descent is gan.g_descent else "D"
        log.append((player, before, (parameters(gan.G), parameters(gan.D))))

    monkeypatch.setattr(Descent, "update", spy)
    list(run.train())
    return log


def are_equal(these, those):
    return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_d_is_updated_k_times_for_each_update_of_g(order, k, monkeypatch):
    run = small_run(train__update_order=order, train__d_steps=k)
    updates = updates_of(run, monkeypatch)
    assert "".join(player for player, *_ in updates) == ("D" * k + "G") * 4
    assert (run.gan.d_descent.n_updates, run.gan.g_descent.n_updates) == (4 * k, 4)


def test_each_update_moves_its_own_player_alone(order, monkeypatch):
    run = small_run(train__update_order=order, train__d_steps=2)
    updates = updates_of(run, monkeypatch)
    assert len(updates) == 12
    for player, (g_before, d_before), (g_after, d_after) in updates:
        moved = (not are_equal(g_before, g_after), not are_equal(d_before, d_after))
        assert moved == (player == "G", player == "D")


class _RecordingPrior:
    def __init__(self, prior):
        self.prior, self.dim, self.draws = prior, prior.dim, []

    def sample(self, n, rng):
        self.draws.append(self.prior.sample(n, rng))
        return self.draws[-1]


@pytest.mark.parametrize(("order", "n_draws"), [("alternating", 3 + 1), ("simultaneous", 3)])
def test_every_update_has_fresh_noise_but_for_the_simultaneous_pair(order, n_draws):
    run = small_run(train__update_order=order, train__d_steps=3, train__n_steps=1)
    run.gan.prior = _RecordingPrior(run.gan.prior)
    list(run.train())
    draws = run.gan.prior.draws
    assert len(draws) == n_draws
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


class _Calls:
    """What D was asked and what it answered, and the parameters when gradients were taken."""

    def __init__(self, gan, monkeypatch):
        self.gan, self.asked, self.answers, self.parameters = gan, [], [], []
        discriminate, gradients = gan.discriminate, Descent.gradients

        def spy_discriminate(x, masks=None):
            self.asked.append((x, masks))
            self.answers.append(discriminate(x, masks))
            return self.answers[-1]

        def spy_gradients(descent, loss, **settings):
            self.parameters.append((parameters(gan.G), parameters(gan.D)))
            return gradients(descent, loss, **settings)

        monkeypatch.setattr(gan, "discriminate", spy_discriminate)
        monkeypatch.setattr(Descent, "gradients", spy_gradients)


def test_simultaneous_players_learn_from_the_same_answers_of_d(monkeypatch):
    run = small_run(train__update_order="simultaneous", train__n_steps=1)
    calls = _Calls(run.gan, monkeypatch)
    (progress,) = run.train()
    both, again = calls.answers  # images and samples for D, the same samples for G
    real, fake = both.chunk(2)
    assert_close(again, fake, rtol=1e-5, atol=1e-6)
    assert_allclose(progress.d_loss, discriminator_loss(real, fake).item(), rtol=1e-6, atol=0)
    g_loss = non_saturating_generator_loss(fake).item()
    assert_allclose(progress.g_loss, g_loss, rtol=1e-6, atol=0)


def test_simultaneous_gradients_are_taken_from_the_same_parameters(monkeypatch):
    run = small_run(train__update_order="simultaneous", train__n_steps=1)
    calls = _Calls(run.gan, monkeypatch)
    list(run.train())
    of_d, of_g = calls.parameters
    assert_close(of_d, of_g, rtol=0, atol=0)


def test_alternating_g_learns_from_d_as_it_is_after_its_updates(monkeypatch):
    run = small_run(train__n_steps=1)
    calls = _Calls(run.gan, monkeypatch)
    list(run.train())
    (_, d_before), (_, d_after) = calls.parameters
    assert not are_equal(d_before, d_after)


def test_gradients_of_d_are_prepared_for_its_own_updates_alone(order, monkeypatch):
    run = small_run(train__update_order=order, train__n_steps=1)
    discriminate, are_prepared = run.gan.discriminate, []

    def spy(*arguments):
        are_prepared.append({p.requires_grad for p in run.gan.D.parameters()})
        return discriminate(*arguments)

    monkeypatch.setattr(run.gan, "discriminate", spy)
    list(run.train())
    assert are_prepared == [{True}, {False}]
    assert all(p.requires_grad for p in run.gan.D.parameters())


def test_images_and_samples_meet_different_masks(monkeypatch):
    run = small_run(train__update_order="simultaneous", train__n_steps=1)
    calls = _Calls(run.gan, monkeypatch)
    list(run.train())
    (_, masks), (_, masks_for_g) = calls.asked
    assert len(masks) == len(masks_for_g) == 3
    for both, for_g in zip(masks, masks_for_g, strict=True):
        real, fake = both.chunk(2)
        assert torch.equal(fake, for_g)
        assert not torch.equal(real, fake)


def test_d_learns_to_tell_the_data_from_a_fixed_generator():
    """Proposition 1: D approaches p_data / (p_data + p_g)."""
    p_data = np.array([0.55, 0.25, 0.15, 0.05])
    points = np.array([[0, 0], [0, 255], [255, 0], [255, 255]], dtype=np.uint8)
    data = points.repeat((2_000 * p_data).round().astype(int), axis=0).reshape(-1, 1, 1, 2)
    cfg = small_config(
        prior__kind="bernoulli",
        prior__dim=2,
        generator__hidden=[2],
        discriminator__hidden=[16],
        discriminator__dropout_input=0.0,
        discriminator__dropout_hidden=0.0,
        train__optimizer="adam",
        train__d_learning_rate=0.03,
        train__decay_per_step=1.005,
        train__n_steps=800,
        train__batch_size=400,
        train__report_every=800,
        evaluation__score_every=800,
    )
    run = Run(cfg, ImageSet(images=data, labels=None, digest=""), device="cpu")
    with torch.no_grad():  # z = +-1 to pixels 1 and 0, so saturated that G never moves
        first, last = run.gan.G.linears
        first.weight.copy_(torch.eye(2))
        last.weight.copy_(400 * torch.eye(2))
        last.bias.fill_(-200)
    list(run.train())
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    with torch.no_grad():
        answers = torch.sigmoid(run.gan.D(corners))
    assert_allclose(answers.numpy(), p_data / (p_data + 0.25), rtol=0, atol=0.02)


# Progress


@pytest.mark.parametrize(("n_steps", "steps"), [(7, [3, 6, 7]), (6, [3, 6]), (2, [2])])
def test_reports_come_every_so_many_steps_and_at_the_end(n_steps, steps):
    run = small_run(train__n_steps=n_steps, train__report_every=3, evaluation__score_every=3)
    assert [progress.step for progress in run.train()] == steps


@pytest.mark.parametrize("k", [1, 3])
def test_images_seen_counts_what_d_was_shown(order, k, monkeypatch):
    run = small_run(train__update_order=order, train__d_steps=k)
    n_shown = 0
    draw = Minibatches.__next__

    def spy(source):
        nonlocal n_shown
        x = draw(source)
        n_shown += len(x)
        return x

    monkeypatch.setattr(Minibatches, "__next__", spy)
    for progress in run.train():
        assert progress.images_seen == n_shown == progress.step * k * 8


def test_a_report_is_the_mean_over_the_steps_since_the_last(order):
    of_each_step = means(small_run(train__update_order=order))
    of_two_steps = means(small_run(train__update_order=order, train__report_every=2))
    expected = of_each_step.reshape(2, 2, 4).mean(axis=1)
    assert_allclose(of_two_steps, expected, rtol=1e-6, atol=0)


def means(run):
    reports = [(p.d_loss, p.g_loss, p.d_real_mean, p.d_fake_mean) for p in run.train()]
    return np.array(reports)


def test_means_of_d_are_not_swapped(order):
    white = ImageSet(images=np.full((16, 1, 4, 4), 255, dtype=np.uint8), labels=None, digest="")
    cfg = small_config(
        train__update_order=order, train__n_steps=1, generator__output_bias_from_data=False
    )
    run = Run(cfg, white, device="cpu")

    def knows_all(x, masks=None):
        is_image = (x == 1).all(1)
        return torch.where(is_image, 3.0, -2.0) + 0 * run.gan.D(x, masks)

    run.gan.discriminate = knows_all
    (progress,) = run.train()
    assert_allclose(progress.d_real_mean, 1 / (1 + math.exp(-3)), rtol=1e-6, atol=0)
    assert_allclose(progress.d_fake_mean, 1 / (1 + math.exp(2)), rtol=1e-6, atol=0)


def test_learning_rate_of_a_report_is_that_of_the_next_update_of_g():
    run = small_run(train__decay_per_step=1.5, train__d_steps=2)
    rates = [progress.learning_rate for progress in run.train()]
    assert_allclose(rates, [0.1 / 1.5**t for t in (1, 2, 3, 4)], rtol=1e-12, atol=0)


def test_training_that_is_done_reports_nothing():
    run = small_run()
    assert len(list(run.train())) == 4
    assert list(run.train()) == []


# Divergence


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where():
    run = small_run(train__learning_rate=1e6, train__n_steps=200, train__decay_per_step=1.0)
    with pytest.raises(
        DivergedError,
        match=r"losses must be finite, got d_loss = .*, g_loss = .* at step \d+ "
        r"with learning rate 1e\+06: lower train.learning_rate",
    ) as caught:
        list(run.train())
    assert caught.value.step == run.gan.step < 200
    assert caught.value.learning_rate == 1e6
    assert not all(math.isfinite(value) for value in caught.value.losses.values())


def test_divergence_between_two_reports_is_seen_at_the_next():
    run = small_run(
        train__learning_rate=1e6,
        train__n_steps=500,
        train__report_every=250,
        evaluation__score_every=250,
    )
    with pytest.raises(DivergedError, match="at step 250 with"):
        list(run.train())


def test_a_diverged_error_survives_the_way_to_another_process():
    error = DivergedError(step=7, losses={"d_loss": math.inf}, learning_rate=0.1)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (copy.step, copy.losses, copy.learning_rate) == (7, {"d_loss": math.inf}, 0.1)
    assert str(copy) == str(error)


# Invariance


def test_same_seed_same_run_and_another_seed_another(order):
    def final(seed):
        run = small_run(seed=seed, train__update_order=order)
        list(run.train())
        return torch.cat([p.flatten() for p in parameters(run.gan.G) + parameters(run.gan.D)])

    assert_array_equal(final(0), final(0))
    assert not torch.equal(final(0), final(1))


def test_stopping_and_asking_again_is_the_same_run(order):
    whole, halves = small_run(train__update_order=order), small_run(train__update_order=order)
    expected = list(whole.train())
    first = list(itertools.islice(halves.train(), 2))
    assert first + list(halves.train()) == expected


def test_training_leaves_the_global_stream_alone():
    run = small_run(generator__dropout_hidden=0.2)
    before = torch.get_rng_state()
    list(run.train())
    assert_array_equal(torch.get_rng_state(), before)


def test_noise_does_not_depend_on_dropout_nor_images_on_either():
    runs = [small_run(discriminator__dropout_hidden=drop) for drop in (0.0, 0.5)]
    for run in runs:
        run.gan.prior = _RecordingPrior(run.gan.prior)
        list(run.train())
    first, second = (run.gan.prior.draws for run in runs)
    assert_close(first, second, rtol=0, atol=0)
    assert_array_equal(*(run.minibatches.state()["order"] for run in runs))


def test_any_iterator_of_minibatches_will_do():
    run = small_run()
    reports = list(train(run.gan, itertools.repeat(torch.full((8, 16), 0.5)), run.cfg.train))
    assert len(reports) == 4
