"""The page of `gan theory`.  Kinds: contract, end to end."""

import dataclasses
import json
import re

import pytest

from gan import one_dimension
from pipeline import cli, theory
from pipeline.errors import PipelineError
from pipeline.theory import CLAIMS, PAGE, Claim, write_theory


@pytest.fixture
def short(monkeypatch):
    """The GAN of one pixel for a few updates: what it reaches is another test's."""
    train = dataclasses.replace(one_dimension.CONFIG.train, n_steps=40)
    config = dataclasses.replace(one_dimension.CONFIG, train=train)
    monkeypatch.setattr(one_dimension, "D_ONLY_STEPS", 100)
    figure1 = one_dimension.figure1
    monkeypatch.setattr(theory, "figure1", lambda seed: figure1(seed, config=config))


def test_every_claim_that_is_not_of_the_gan_holds_and_the_page_stands_alone(short, tmp_path):
    claims = write_theory(tmp_path / "new", seed=3)
    failed = [claim.text for claim in claims if not claim.holds]
    assert all("Algorithm 1 brings G near" in text or "maxout" in text for text in failed)
    assert len(claims) == 14
    page = (tmp_path / "new" / PAGE).read_text()
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)) == set()
    assert page.count("<svg") == 5
    assert "data:image/gif;base64," in page
    facts = json.loads((tmp_path / "new" / CLAIMS).read_text())
    assert [fact["holds"] for fact in facts["claims"]] == [claim.holds for claim in claims]


@pytest.mark.parametrize(("measured", "holds"), [(0.5, True), (1.0, True), (1.1, False)])
def test_a_claim_holds_within_its_bounds(measured, holds):
    claim = Claim(text="", source="", measured=measured, low=0.5, high=1.0, kind="exact")
    assert claim.holds is holds
    assert not dataclasses.replace(claim, measured=float("nan")).holds


def test_a_claim_that_fails_is_the_command_s_failure(monkeypatch, tmp_path):
    claim = Claim(text="", source="", measured=2.0, low=0.0, high=1.0, kind="exact")
    monkeypatch.setattr(theory, "write_theory", lambda folder, *, seed: [claim])
    with pytest.raises(PipelineError, match="1 of 1 claims do not hold"):
        cli.theory(tmp_path, 0, as_json=False)
