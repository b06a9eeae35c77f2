"""Ask the gate, and if it agrees make the winner the champion."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.datasets.splits import load_train_valid
from gan.evaluation.features import Extractor, build_extractor
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.suite import Evaluation
from gan.files import sha256
from gan.metric_names import FRECHET_DISTANCE_VALID, PARZEN_SIGMA, PARZEN_SIGMA_FINE
from gan.objectives import OBJECTIVES
from gan.run import score_samples
from gan.saved_generator import SavedSampler
from gan.tasks import OF_IMAGES, load_sampler, task_of
from pipeline.artifacts import MANIFEST, Lineage, load_artifact, verify, write_artifact
from pipeline.errors import StageError
from pipeline.evaluation import PAIRED, extractors_folder, read_evaluation
from pipeline.gate import (
    Check,
    Verdict,
    better_than_champion,
    finite_scores,
    run_gate,
    same_data,
)
from pipeline.graph import Work
from pipeline.product import Candidate, quality_checks
from pipeline.products import product_of
from pipeline.registry import (
    GeneratorVersion,
    current_champion,
    download,
    is_registered,
    register,
)
from pipeline.stages.data import FACTS, load_valid
from pipeline.stages.evaluate import PROTOCOL, SCORES
from pipeline.stages.sweep import logged_winner
from tuning.provenance import provenance
from tuning.tracking import tracking_uri

PROMOTION, ARTIFACT = "promotion.json", "generator"

SETTINGS = (*PROTOCOL, "sample_seed")
"""What `scores.json` holds beside scores."""

ON_CARD = ("authenticity_valid", PARZEN_SIGMA, PARZEN_SIGMA_FINE)
"""The scores that an artifact has with it beside those of its product that are told."""


def run(work: Work) -> None:
    """Write `promotion.json` and the folder `generator`: the champion, whether old or new.

    Raises:
        ArtifactError: if the champion in the registry was altered.
        DatasetError: if the images are no longer those of the sweep.
        StageError: if MLflow has not the winner's run, or `evaluate` had another protocol.
        TrackingError: if MLflow does not answer.
    """
    uri, model = tracking_uri(), work.config.promote.model
    winner = logged_winner(work, stage="promote")
    scores = json.loads((work.inputs["evaluate"] / SCORES).read_text())
    _require_same_protocol(work, scores)
    champion = current_champion(uri, model)
    if champion is not None:
        download(uri, champion, work.out / ARTIFACT)
    verdict = _judge(work, champion, scores)
    made = None
    if verdict.outcome == "promote":
        _write_artifact(work, winner, scores)
        made = register(
            uri,
            model=model,
            artifact=work.out / ARTIFACT,
            run_id=winner["run_id"],
            replaces=champion,
        )
    promotion = {
        "outcome": "promoted" if made else verdict.outcome,
        "model": model,
        "version": made.version if made else (champion.version if champion else None),
        "previous_version": champion.version if champion and made else None,
        "reason": verdict.reason,
        "checks": [asdict(check) for check in verdict.checks],
    }
    (work.out / PROMOTION).write_text(json.dumps(promotion, indent=2) + "\n")


def is_settled(folder: Path) -> bool:
    """Whether the store in use still has the version.

    A refusal is asked again each time: the champion may be another by then.
    """
    promotion = json.loads((folder / PROMOTION).read_text())
    if promotion["outcome"] == "refused":
        return False
    return is_registered(
        tracking_uri(),
        promotion["model"],
        promotion["version"],
        manifest_sha256=sha256(folder / ARTIFACT / MANIFEST),
    )


def _require_same_protocol(work: Work, scores: Mapping[str, float]) -> None:
    """Refuse to score the champion in another way than the candidate was scored."""
    cfg = work.config.base.evaluation
    differing = [
        f"evaluation.{name}={scores.get(name, 'unknown')} and not {getattr(cfg, name)}"
        for name in PROTOCOL
        if scores.get(name) != getattr(cfg, name)
    ]
    if differing:
        raise StageError(
            f"the winner was scored with {', '.join(differing)}, as the champion would be: score "
            f"it anew by `gan run --from evaluate` with the settings of now, or leave them as "
            f"they were",
            stage="promote",
            input="evaluate",
        )


def _judge(work: Work, champion: GeneratorVersion | None, scores: dict[str, float]) -> Verdict:
    evaluation, extractor_digest = read_evaluation(work.inputs["evaluate"])
    checks = [finite_scores({k: v for k, v in scores.items() if k not in SETTINGS})]
    product = product_of(work.config.base)
    checks += quality_checks(product, evaluation, work.config.promote.limits)
    manifest = None if champion is None else verify(work.out / ARTIFACT)
    known = None if manifest is None else manifest.lineage.data_digest
    data = same_data(_data_digest(work), known)
    if not data.passed:
        return run_gate([*checks, data])
    weights = sha256(work.inputs["sweep"] / "winner" / task_of(work.config.base).weights)
    is_champion = manifest is not None and manifest.weights_sha256 == weights
    theirs = None
    comparable: list[Check] = []
    if manifest is not None and not is_champion:
        candidate = load_sampler(work.inputs["sweep"] / "winner")
        saved = load_artifact(work.out / ARTIFACT)
        comparable = product.compared(candidate, saved)
        if not all(check.passed for check in comparable):
            return run_gate([*checks, data, *comparable])
        seed = int(scores["sample_seed"])
        theirs = _champion_values(work, saved, sample_seed=seed, extractor_digest=extractor_digest)
    better = better_than_champion(
        _candidate_values(work, evaluation),
        theirs,
        objective=OBJECTIVES[work.config.sweep.objective],
        min_standard_errors=work.config.promote.min_standard_errors,
        is_champion=is_champion,
    )
    return run_gate([*checks, data, *comparable, better])


def _candidate_values(work: Work, evaluation: Evaluation) -> NDArray[np.float64]:
    objective = work.config.sweep.objective
    with np.load(work.inputs["evaluate"] / PAIRED, allow_pickle=False) as paired:
        if objective not in paired:
            why = "; ".join(evaluation.unavailable.values())
            raise StageError(
                f"{objective}, by which candidate and champion compare, could not be taken: {why}",
                stage="promote",
                input="evaluate",
            )
        values: NDArray[np.float64] = paired[objective]
    return values


def _champion_values(
    work: Work, saved: SavedSampler, *, sample_seed: int, extractor_digest: str
) -> NDArray[np.float64]:
    """What the objective pairs, of the champion, by the candidate's protocol."""
    config, objective = work.config.base, work.config.sweep.objective
    valid = load_valid(work)
    if objective not in OF_IMAGES:
        candidate = Candidate(
            saved=saved,
            config=config,
            split="valid",
            extractors=extractors_folder(work.workspace),
            seed=sample_seed,
        )
        return product_of(config).values(candidate)[objective]
    samples = saved.sampler().sample(config.evaluation.n_samples, seed=sample_seed)
    if objective == FRECHET_DISTANCE_VALID:
        extractor = _same_extractor(work, extractor_digest)
        points = extractor(valid.to(samples)), extractor(samples)
        values = frechet_distance(*points, seed=sample_seed).by_group
    else:
        score = score_samples(samples, valid, valid=valid, cfg=config.evaluation)
        values = score.log_likelihood
    array: NDArray[np.float64] = values.numpy()
    return array


def _same_extractor(work: Work, digest: str) -> Extractor:
    """The extractor by which the candidate was scored."""
    config = work.config.base
    train, _ = load_train_valid(config.data)
    folder = extractors_folder(work.workspace)
    extractor = build_extractor(config.evaluation, config.data, train, folder=folder)
    if extractor.digest != digest:
        raise StageError(
            f"the winner was scored by another extractor than evaluation.extractor="
            f"{config.evaluation.extractor} is now: score it anew by `gan run --from evaluate`",
            stage="promote",
            input="evaluate",
        )
    return extractor


def _write_artifact(work: Work, winner: dict[str, Any], scores: dict[str, float]) -> None:
    lineage = Lineage(
        run_id=winner["run_id"],
        sweep=winner["sweep"],
        trial=str(winner["trial"]),
        step=int(winner["step"]),
        data_digest=_data_digest(work),
        git_commit=provenance().get("mlflow.source.git.commit"),
    )
    saved = load_sampler(work.inputs["sweep"] / "winner")
    names = (*product_of(work.config.base).told, *ON_CARD)
    on_card = {k: v for k, v in scores.items() if k.removesuffix("_se") in names}
    write_artifact(work.out / ARTIFACT, saved=saved, scores=on_card, lineage=lineage)


def _data_digest(work: Work) -> str:
    facts: dict[str, str] = json.loads((work.inputs["data"] / FACTS).read_text())
    return facts["train_digest"]
