"""AOT, TDPO and iterative DPO: what each does that its relatives do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from alignbench_dpo.aot import AOT
from alignbench_dpo.config import DPOConfig
from alignbench_dpo.config_further import AOTConfig, IterativeDPOConfig, TDPOConfig
from alignbench_dpo.iterative import IterativeDPO, every_pair
from alignbench_dpo.offline import DPO
from alignbench_dpo.optimum import token_optimum
from alignbench_dpo.tdpo import TDPO
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from peft import LoraConfig
from torch import Tensor

from alignbench import (
    REFERENCE,
    Annotator,
    PreferenceBatch,
    Prompt,
    ScoredRollout,
    Seeds,
    UserError,
    functional,
)
from alignbench.app.compose import load_config
from alignbench.pipeline.run import run
from alignbench.plugins import Kind, registry
from alignbench.scoring import AnnotatorRanks
from alignbench.testing.trial import Trial, settings
from alignbench.testing.world import BradleyTerry, World, total_variation
from tests import tiny
from tests.core.harness import SMALL
from tests.dpo.test_update import SIZE, apart, pairs, policy, weights

ADAM: dict[str, object] = SIZE | {"max_grad_norm": 0.0, "learning_rate": 0.0}


def gradients(on: HFPolicy) -> list[Tensor]:
    return [parameter.grad.detach().clone() for parameter in on.trainable() if parameter.grad is not None]


# AOT


@pytest.mark.parametrize("form", ["paired", "unpaired"])
@pytest.mark.parametrize("size", [6, 4, 1])
def test_aot_has_the_gradient_of_the_sorted_batch_whatever_the_micro_batches(form: str, size: int) -> None:
    """Against the loss of the whole batch written with torch.sort, in one pass."""
    on, other = policy(), policy()
    batch = pairs(on)
    assert batch.ref_chosen is not None and batch.ref_rejected is not None
    won, lost = (functional.summed_logprobs(other, side) for side in (batch.chosen, batch.rejected))
    if form == "paired":
        gap = (won - lost).sort().values - (batch.ref_chosen - batch.ref_rejected).sort().values
    else:
        gap = (won - batch.ref_chosen).sort().values - (lost - batch.ref_rejected).sort().values
    loss = torch.nn.functional.softplus(-2.0 * gap).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    config = AOTConfig(**(ADAM | {"form": form, "beta": 2.0, "micro_batch_size": size}))  # type: ignore[arg-type]
    metrics = AOT(config, policy=on, updates=4, seeds=Seeds(0)).update(batch).metrics
    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    wanted = gradients(other)
    assert max(float(g.abs().max()) for g in wanted) > 1e-2
    assert apart(gradients(on), wanted) < 1e-5


def test_the_order_is_that_of_the_batch_and_not_of_its_pairs() -> None:
    """DPO, which compares the responses of a pair, has another gradient on the same pairs."""
    seen = []
    for form in ("paired", "unpaired", "dpo"):
        on = policy()
        config = AOTConfig(**(ADAM | {"beta": 2.0} | ({} if form == "dpo" else {"form": form})))  # type: ignore[arg-type]
        algorithm = AOT(config, policy=on, updates=4, seeds=Seeds(0))
        if form == "dpo":
            algorithm._step(pairs(on), algorithm.judge)
        else:
            algorithm.update(pairs(on))
        seen.append(gradients(on))
    assert min(apart(seen[a], seen[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3


# TDPO


def adapted_head() -> HFPolicy:
    """Adapters on the output layer too: its logits are a role's own."""
    lora = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], lora_dropout=0.0, task_type="CAUSAL_LM")
    limits = PretrainedConfig(max_prompt_tokens=8, max_response_tokens=6)
    on = HFPolicy(limits, AdapterRoles(tiny.base_model(), lora), tiny.letters(), pretrained=True, device=tiny.CPU)
    tiny.move(on)
    return on


@pytest.mark.parametrize("made", [tiny.scratch, tiny.adapters, adapted_head])
@pytest.mark.parametrize("chunk", [None, 30], ids=["whole", "chunks"])
def test_kl_of_tokens_is_that_of_whole_distributions(
    made: Callable[[], HFPolicy], chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradient, against plain log-softmaxes of both roles' logits, a response at a time."""
    on = made()
    on.freeze_reference()
    tiny.move(on, seed=1, scale=0.1)
    shown = tiny.sequences(on, n=1)
    if chunk:
        monkeypatch.setattr("alignbench.tokens.logprobs.most_logits", lambda device: chunk)
    scores, kl = on.logprobs_and_reference_kl(shown, temperature=0.7)
    (scores.logprobs.sum() + 2 * kl.sum()).backward()  # type: ignore[no-untyped-call]
    found = gradients(on)
    for parameter in on.trainable():
        parameter.grad = None

    def logits(role: str, row: int) -> Tensor:
        prompt = shown.prompt_ids[row][shown.prompt_mask[row].bool()]
        response = shown.response_ids[row][shown.response_mask[row].bool()]
        model = on._roles.use(role)
        every: Tensor = model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(every.double() / 0.7, -1)

    for row in range(len(shown)):
        length = int(shown.response_mask[row].sum())
        with torch.no_grad():
            base = logits(REFERENCE, row)
        own = logits("policy", row)
        wanted = (base.exp() * (base - own)).sum(-1)
        said = own.gather(-1, shown.response_ids[row, :length, None]).squeeze(-1)
        torch.testing.assert_close(kl[row, :length].double(), wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scores.logprobs[row, :length].double(), said, atol=1e-5, rtol=1e-4)
        assert (kl[row, length:] == 0).all()
        (said.sum() + 2 * wanted.sum()).backward()
    assert float(kl.detach().max()) > 1e-3
    assert apart(found, gradients(on)) < 1e-4 * max(float(g.abs().max()) for g in found)


@pytest.mark.parametrize("variant", ["tdpo1", "tdpo2"])
def test_tdpo_step_against_whole_distributions(variant: str) -> None:
    """Loss and gradient of both variants from log-probabilities and KL that the test makes by itself."""
    on, other = policy(), policy()
    batch = pairs(on)
    assert batch.ref_chosen is not None and batch.ref_rejected is not None
    (won, w_kl), (lost, l_kl) = (
        [functional.masked_sum(part, side.response_mask, dim=1) for part in (scores.logprobs, kl)]
        for side in (batch.chosen, batch.rejected)
        for scores, kl in [other.logprobs_and_reference_kl(side)]
    )
    delta = l_kl - w_kl if variant == "tdpo1" else 0.5 * (l_kl - w_kl.detach())
    loss = torch.nn.functional.softplus(-0.3 * (won - batch.ref_chosen - lost + batch.ref_rejected - delta)).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    config = TDPOConfig(**(ADAM | {"beta": 0.3, "variant": variant, "micro_batch_size": 4}))  # type: ignore[arg-type]
    metrics = TDPO(config, policy=on, updates=4, seeds=Seeds(0)).update(batch).metrics
    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert metrics["reference_kl_chosen"] == pytest.approx(float(w_kl.detach().mean()), rel=1e-4)
    assert metrics["reference_kl_rejected"] == pytest.approx(float(l_kl.detach().mean()), rel=1e-4)
    assert apart(gradients(on), gradients(other)) < 1e-5 < max(float(g.abs().max()) for g in gradients(on))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_token_optimum_gives_every_pair_the_margin_of_its_rewards(share: float) -> None:
    """By enumeration of a tree: beta (log pi / pi_ref + share times the KL along a response) differs as the rewards do."""
    world = World(3, prompts=3, tokens=3)
    problem, beta = world.problem, 0.7
    found = token_optimum(problem, beta, share)
    torch.testing.assert_close(found.sum(1), torch.ones(3).double())

    def given(table: Tensor, start: tuple[int, ...]) -> Tensor:
        """[X, tokens]: log-probability of each next token after a beginning."""
        inside = [y[: len(start)] == start and len(y) > len(start) for y in problem.completions]
        mass = [
            table[:, [i and y[len(start)] == token for i, y in zip(inside, problem.completions, strict=True)]].sum(1)
            for token in sorted({y[len(start)] for i, y in zip(inside, problem.completions, strict=True) if i})
        ]
        return (torch.stack(mass, 1) / torch.stack(mass, 1).sum(1, keepdim=True)).log()

    offsets = []
    for row, y in enumerate(problem.completions):
        spent = torch.zeros(3).double()
        for end in range(len(y)):
            base, own = given(problem.reference, y[:end]), given(found, y[:end])
            spent += (base.exp() * (base - own)).sum(1)
        worth = beta * ((found / problem.reference).log()[:, row] + share * spent)
        offsets.append(worth - problem.rewards[:, row])
    spread = torch.stack(offsets)
    torch.testing.assert_close(spread, spread[:1].expand_as(spread), atol=1e-9, rtol=0)
    plain = functional.kl_optimum(problem.reference, problem.rewards, beta)
    assert (total_variation(found, plain) < 1e-9) == (share == 0)


def test_hard_labels_of_tdpo2_pull_to_the_reference() -> None:
    """Why no optimum is claimed: in the mean over labels the gradient at the optimum of soft labels is not 0, and that of TDPO1 is."""
    world = World(0, prompts=1, tokens=2)
    problem = world.problem
    wins = torch.sigmoid(problem.rewards[0][:, None] - problem.rewards[0][None])
    size = len(problem.completions)
    first, second = (part.flatten() for part in torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
    component = registry().get(Kind.ALGORITHM, "tdpo")

    def largest(variant: str) -> float:
        config = dataclasses.replace(
            settings(component, rows=4, beta=1.0, variant=variant, max_grad_norm=0.0), micro_batch_size=size**2
        )
        trial = Trial(component, 0, world=world, moved=0.0, config=config)
        optimum = token_optimum(problem, 1.0, config.kl_share)  # type: ignore[attr-defined]
        with torch.no_grad():
            set_distribution(trial, world, optimum)
        every = world.everything()
        ref = trial.policy.logprobs(every, role=REFERENCE).logprobs.sum(1)
        batch = PreferenceBatch(every.select(first), every.select(second), None, ref[first], ref[second])
        optimizer = trial.optimizer
        chosen, rejected = optimizer._sides(batch)  # type: ignore[attr-defined]
        loss = optimizer.judge(chosen, rejected, None).loss  # type: ignore[attr-defined]
        (gradient,) = torch.autograd.grad((wins.flatten() * loss).sum() / size**2, [trial.policy.logits])
        return float(gradient.abs().max())

    assert largest("tdpo1") < 1e-5 < 1e-3 < largest("tdpo2")


def set_distribution(trial: Trial, world: World, wanted: Tensor) -> None:
    """Makes the tabular policy give this distribution over responses."""
    logits = torch.full_like(trial.policy.logits, -30.0).double()
    everything = world.everything()
    prompts, states = trial.policy.states(everything)
    actions, inside = trial.policy.actions(everything), everything.response_mask.bool()
    mass = torch.zeros_like(logits)
    for row, (prompt, chance) in enumerate(zip(prompts.tolist(), wanted.flatten().tolist(), strict=True)):
        for t in range(inside.shape[1]):
            if inside[row, t]:
                mass[prompt, states[row, t], actions[row, t]] += chance
    trial.policy.logits.copy_(torch.where(mass > 0, mass.log(), logits).float())


# Iterative DPO


def iterative(on: HFPolicy, **changes: object) -> IterativeDPO:
    config = IterativeDPOConfig(**(SIZE | {"batch_size": 12, "samples_per_prompt": 2} | changes))  # type: ignore[arg-type]
    return IterativeDPO(config, policy=on, updates=4, seeds=Seeds(0))


def test_every_pair_of_a_ranking() -> None:
    found = every_pair(torch.tensor([0.0, -1.0, -1.0, -2.0, -2.0, -2.0]), 3)
    assert (found.best.tolist(), found.worst.tolist(), found.ties) == ([0, 0], [1, 2], 1)


@pytest.mark.parametrize("reference", ["sft", "round"])
def test_the_reference_of_a_round(reference: str) -> None:
    """One step of a round is DPO's on its pairs: against the SFT model, or against the policy as it stood, where every margin is 0."""
    on, other = policy(), policy()
    batch = tiny.scored(on, n=2)
    report = iterative(on, reference=reference, minibatches=1).update(batch)
    better = every_pair(batch.scores, 2)
    shown = batch.rollout.samples.sequences
    role = REFERENCE if reference == "sft" else "policy"
    with torch.no_grad():
        known = functional.summed_logprobs(other, shown, role=role)
    given = PreferenceBatch(
        shown.select(better.best), shown.select(better.worst), None, known[better.best], known[better.worst]
    )
    wanted = DPO(DPOConfig(**SIZE), policy=other, updates=4, seeds=Seeds(0)).update(given).metrics
    assert report.metrics["loss"] == pytest.approx(wanted["loss"], abs=1e-6)
    assert report.metrics["margin"] == pytest.approx(wanted["margin"], abs=1e-5)
    assert (abs(report.metrics["margin"]) < 1e-6) == (reference == "round")
    assert report.metrics["kl"] > 1e-3, "of the SFT model, whatever the reference"
    assert apart(weights(on), weights(other)) < 1e-5
    assert "reward" not in report.metrics


def test_steps_of_a_round_keep_prompts_whole() -> None:
    on = policy()
    batch = tiny.scored(on, n=4)
    report = iterative(on, batch_size=24, samples_per_prompt=4, pairs="all", epochs=3, minibatches=2).update(batch)
    assert report.optimizer_steps == 6
    assert report.metrics["pairs"] == 36
    assert report.metrics["tokens"] == float(batch.rollout.samples.sequences.response_mask.sum())


class Shorter(Annotator):
    """Prefers short responses; of equal ones the first. Notes what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        self.shown.append(tuple(responses))
        order = sorted(range(len(responses)), key=lambda k: (len(responses[k]), k))
        return tuple(order.index(k) for k in range(len(order)))


def test_an_annotators_ranks_are_scores_of_neighbours() -> None:
    """Equal responses are shown once and have one rank; a prompt whose responses are all equal is not asked about."""
    on, annotator, names = policy(), Shorter(), list[str]()

    def anew(name: str) -> Annotator:
        names.append(name)
        return annotator

    texts = ["a b c", "a", "a", "b c", "c", "c", "c", "c", "a b", "b", "a b c d", "d d d d d"]
    prompts = [prompt for prompt in tiny.PROMPTS[:3] for _ in range(4)]
    source = AnnotatorRanks(anew, 4)
    assert source.score(on.encode(prompts, texts)).tolist() == [-2, 0, 0, -1, 0, 0, 0, 0, -1, 0, -2, -3]
    assert annotator.shown == [("a b c", "a", "b c"), ("a b", "b", "a b c d", "d d d d d")]
    source.score(on.encode(prompts, texts))
    source.score(on.encode(prompts, ["a", *texts[1:]]))
    assert names[0] == names[1] != names[2]


def test_rankings_that_are_plackett_luce_lead_to_the_optimum() -> None:
    """Hard labels of all pairs, ranked anew in each round: the claim of `optimum`, with an annotator that ranks."""
    component, world = registry().get(Kind.ALGORITHM, "iterative_dpo"), World(0)
    size = {"samples_per_prompt": 8, "batch_size": 1024, "micro_batch_size": 4096, "minibatches": 4, "pairs": "all"}
    config = dataclasses.replace(
        settings(component, updates=30, beta=1.0, learning_rate=0.2, adam_eps=1e-5, lr_schedule="linear"),
        **size, temperature=1.0,
    )  # fmt: skip
    optimum = IterativeDPO.optimum(config, world.problem)  # type: ignore[arg-type]
    assert optimum is not None
    trial = Trial(component, 0, world=world, moved=0.0, config=config)
    ranks = AnnotatorRanks(lambda name: BradleyTerry(world, seeds=Seeds(0).child(name)), 8)
    for _ in range(config.updates):
        batch = trial.batch()
        assert isinstance(batch, ScoredRollout)
        trial.update(ScoredRollout(batch.rollout, ranks.score(batch.rollout.samples)))
    left = total_variation(world.distribution(trial.policy), optimum)
    assert left < 0.05 < 0.2 < total_variation(world.problem.reference, optimum)


def test_a_run_asks_its_annotator_in_every_round(tmp_path: Path) -> None:
    small = [*SMALL, "algo.updates=2", "algo.minibatches=2", "algo.samples_per_prompt=4", f"results_dir={tmp_path}"]
    directory = run(load_config(["algo=iterative_dpo", "eval.families=[optimization]", *small]))
    lines = (directory / "train.jsonl").read_text()
    assert '"score_gap"' in lines and '"reward"' not in lines
    assert (directory / "result.json").is_file()


def test_recorded_rankings_rank_nothing_fresh(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="annotator=recorded brings rankings of its own"):
        run(
            load_config(
                ["experiment=exact", "algo=iterative_dpo", "annotator=recorded", *SMALL[:6], f"results_dir={tmp_path}"]
            )
        )
