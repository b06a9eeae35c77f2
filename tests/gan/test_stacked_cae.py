"""The stacked contractive autoencoder and its walk.  Kinds: reference, invariant, behaviour."""

import math

import numpy as np
import pytest
import torch

from gan.baselines.stacked_cae import ContractiveLayer
from gan.config import RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.randomness import stream
from gan.sampling import Sampler
from gan.tasks import start_run
from tests.gan.small import OF_ALL, start_extension


def layer(n_visible: int = 5, n_hidden: int = 4, *, scale: float = 2.0) -> ContractiveLayer:
    """In float64, with weights large enough for units that are neither linear nor saturated."""
    made = ContractiveLayer(n_visible, n_hidden, rng=stream(0, "init")).double()
    with torch.no_grad():
        made.down.weight.mul_(scale)
        made.bias.copy_(torch.linspace(-0.5, 0.7, n_hidden))
        made.down.bias.copy_(torch.linspace(0.3, -0.6, n_visible))
    return made


def points(n: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(n, width, dtype=torch.float64, generator=rng)


def jacobian(made: ContractiveLayer, x: torch.Tensor) -> torch.Tensor:
    """That of the encoder at one point by automatic differentiation, [n_hidden, n_visible]."""
    return torch.autograd.functional.jacobian(lambda x: made.encode(x[None])[0], x)


def test_contraction_is_the_squared_norm_of_autograd_s_jacobian():
    made, x = layer(), points(7, 5)
    expected = torch.stack([jacobian(made, row).square().sum() for row in x]).mean()
    torch.testing.assert_close(made.losses(x)[1], expected, rtol=1e-12, atol=0)


def test_reconstruction_is_the_cross_entropy_of_what_is_decoded():
    made, x = layer(), points(7, 5)
    p = made.decode(made.encode(x))
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()
    torch.testing.assert_close(made.losses(x)[0], expected, rtol=1e-12, atol=0)


def test_gradients_of_both_losses_are_those_of_finite_differences():
    made, x = layer(), points(6, 5)
    for which in (0, 1):
        gradients = torch.autograd.grad(
            made.losses(x)[which], list(made.parameters()), materialize_grads=True
        )
        for parameter, gradient in zip(made.parameters(), gradients, strict=True):
            flat = parameter.data.view(-1)
            for i in range(len(flat)):
                value, step = flat[i].item(), 1e-6
                flat[i] = value + step
                above = made.losses(x)[which].item()
                flat[i] = value - step
                below = made.losses(x)[which].item()
                flat[i] = value
                slope = (above - below) / (2 * step)
                assert gradient.view(-1)[i].item() == pytest.approx(slope, abs=1e-8)


def test_a_step_of_the_walk_is_that_of_a_loop_with_the_whole_jacobian():
    made, x = layer(), points(6, 5)
    with torch.no_grad():
        after = made.walk(x, stream(3, "noise"), std=0.7)
    eps = 0.7 * torch.randn(6, 4, generator=stream(3, "noise"))
    for i, row in enumerate(x):
        J = jacobian(made, row).numpy()
        h = made.encode(row[None])[0].detach().numpy() + J @ J.T @ eps[i].double().numpy()
        for pixel in range(5):
            logit = sum(h * made.down.weight[pixel].detach().numpy())
            logit += made.down.bias[pixel].item()
            assert after[i, pixel].item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-6)


def test_the_walk_s_noise_has_the_mean_and_covariance_of_the_source():
    """Among hidden units h: mean f(x), covariance std^2 (J J^T)^2."""
    made, n = layer(), 100_000
    x = points(1, 5)
    with torch.no_grad():
        after = made.walk(x.expand(n, 5), stream(4, "noise"), std=0.7)
        # Back from pixels: five equations for four hidden units.
        logits = torch.logit(after) - made.down.bias
        h = torch.linalg.lstsq(made.down.weight, logits.T).solution.T
        J = jacobian(made, x[0])
        covariance = 0.49 * torch.linalg.matrix_power(J @ J.T, 2)
        size = covariance.diagonal().max().sqrt().item()
        torch.testing.assert_close(h.mean(0), made.encode(x)[0], atol=0.02 * size, rtol=0)
        torch.testing.assert_close(torch.cov(h.T), covariance, atol=0.02 * size**2, rtol=0)


def test_layers_are_trained_one_after_the_other():
    run = start_extension("stacked_cae", stacked_cae__hidden=[6, 5, 4], train__n_steps=6)
    before = {name: tensor.clone() for name, tensor in run.saved().tensors().items()}
    for report in run.train():
        turn = (report.step - 1) // 2
        after = {name: tensor.clone() for name, tensor in run.saved().tensors().items()}
        moved = {name for name in after if not torch.equal(after[name], before[name])}
        assert moved == {name for name in after if name.startswith(f"stack.{turn}.")}
        assert {name.split("_")[0] for name in report.means} == {f"layer{turn + 1}"}
        before = after


def test_a_report_across_two_turns_has_the_means_of_each():
    run = start_extension("stacked_cae", train__report_every=4)
    (report,) = run.train()
    single = [r.means for r in start_extension("stacked_cae").train()]
    for i, steps in ((1, single[:2]), (2, single[2:])):
        name = f"layer{i}_reconstruction_nats"
        mean = sum(step[name] for step in steps) / 2
        assert report.means[name] == pytest.approx(mean, rel=1e-6)


def test_the_second_layer_learns_the_codes_of_the_first():
    run = start_extension("stacked_cae", train__n_steps=2)
    reports = list(run.train())
    model = run.saved().model
    fresh = start_extension("stacked_cae", train__n_steps=2)
    next(iter(fresh.train()))
    x = next(fresh.minibatches)
    with torch.no_grad():
        nats, _ = fresh.model.layers[1].losses(model.layers[0].encode(x))
    assert reports[1].means["layer2_reconstruction_nats"] == pytest.approx(nats.item(), rel=1e-6)


def test_samples_are_the_last_layer_s_codes_decoded_down():
    model = start_extension("stacked_cae", stacked_cae__burn_in=2).saved().model
    rng = stream(5, "samples")
    x = torch.randint(2, (334, 16), generator=rng).float()  # three images of each walk
    codes = model.layers[0].encode(x)
    for _ in range(2):
        codes = model.layers[1].walk(codes, rng, std=1.0)
    images = model.sample(334, seed=5).flatten(1)
    torch.testing.assert_close(images, model.layers[0].decode(codes), rtol=0, atol=0)


def test_of_two_pictures_it_draws_both():
    pictures = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    pictures[0, 0, :2], pictures[1, 0, 2:] = 255, 255
    images = ImageSet(images=pictures.repeat(20, 0), labels=None, digest="0" * 64)
    settings = {"train.n_steps": 400, "train.optimizer": "adam", "train.learning_rate": 0.02}
    settings |= {"train.report_every": 20, "evaluation.score_every": 400}
    settings |= {"stacked_cae": {"hidden": [8, 8], "burn_in": 20}}
    run = start_run(with_overrides(RunConfig(), OF_ALL | settings), images, device="cpu")
    reports = [report.means for report in run.train()]
    assert reports[9]["layer1_reconstruction_nats"] < math.log(2)
    assert reports[0]["layer1_reconstruction_nats"] > 4 * math.log(2)
    drawn = run.saved().sampler().sample(500, seed=0).flatten(1)
    distances = torch.cdist(drawn, torch.from_numpy(pictures / 255).float().flatten(1))
    assert distances.min(1).values.median() < 0.5
    assert distances.argmin(1).bincount(minlength=2).min() > 50


def test_samples_of_a_seed_do_not_depend_on_how_many_are_drawn():
    sampler: Sampler = start_extension("stacked_cae").saved().sampler()
    many = sampler.sample(1203, seed=3)
    assert many.shape == (1203, 1, 4, 4)
    assert 0 <= many.min() <= many.max() <= 1
    assert torch.equal(sampler.sample(5, seed=3), many[:5])
    assert not torch.equal(sampler.sample(5, seed=4), many[:5])


def test_the_decoder_leads_from_the_first_codes_to_pixels():
    model = start_extension("stacked_cae").saved().model
    decoder, width = model.decoder()
    h = torch.rand(3, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoder(h), model.layers[0].decode(h))
