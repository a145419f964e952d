"""What a run begins with: its device, its data and its model, and the refusal of what cannot be run before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignbench import distributed
from alignbench.app.config import RunConfig
from alignbench.app.ready import no_device
from alignbench.contracts import Annotator, DataSource, Evaluation, Policy, RewardSource
from alignbench.errors import UserError, unknown_name
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.suite import evaluation_prompts, reads_ordinary_text
from alignbench.optimizer_config import CorrectedConfig, LabelConfig, OfflineConfig, PreferenceConfig, RolloutConfig
from alignbench.pipeline.display import Display
from alignbench.pipeline.experience import fitting
from alignbench.plugins import Kind, registry
from alignbench.records import Consumes, Labelled, Prompt, Split
from alignbench.seeds import Seeds
from alignbench.selection import Selected


@dataclass(frozen=True)
class Data:
    """Where prompts come from, and who ranks the responses to them, where somebody has to."""

    source: DataSource
    annotator: Annotator | None


@dataclass(frozen=True)
class Prompts:
    """Those that fit the policy's window; `questions` are the held-out ones that the evaluation asks."""

    train: list[Prompt]
    held_out: list[Prompt]
    questions: list[Prompt]


def read_data(config: RunConfig, seeds: Seeds, display: Display) -> Data:
    """The data of a run. Raises UserError where it cannot give what the algorithm consumes."""
    with display.stage("data") as note:
        source: DataSource = config.data.build(seeds=seeds.child("data"))
        annotator: Annotator | None = None
        if needs_rankings(config) and not learns_labels(config, source):
            annotator = config.annotator.build(data=source, seeds=seeds.child("annotator"))
        refuse_impossible(config, source, annotator)
        note.text = ", ".join(f"{count} {reason}" for reason, count in source.counts().items() if count)
    say_notes(source, display)
    return Data(source, annotator)


def say_notes(source: DataSource, display: Display) -> None:
    """What of the data's files, or of the settings for them, was not read."""
    described = source.description()
    display.say_all(f"  {note}" for note in (described.notes if described else ()))


def load_model(config: RunConfig, data: DataSource, seeds: Seeds, display: Display) -> Policy:
    """The policy as it is before any training."""
    device = pick_device(config.device)
    with display.stage("model") as note:
        policy: Policy = config.model.build(tokenizer=data.tokenizer(), device=device, seeds=seeds.child("model"))
        note.text = f"{sum(p.numel() for p in policy.trainable()):,} trainable parameters on {device}"
    tells = type(policy).logprobs_and_reference_kl is not Policy.logprobs_and_reference_kl
    if config.algo.config.reads_distributions and not tells:
        raise UserError(
            f"algo={config.algo.label} needs the probabilities of all tokens, and model={config.model.label} tells those of given tokens "
            "alone: choose another model or algorithm."
        )
    return policy


def read_prompts(config: RunConfig, data: Data, policy: Policy, display: Display) -> Prompts:
    """Those that fit. Raises UserError for one that the policy cannot write, before anything is trained."""
    train = fit_window(policy, data.source.prompts(Split.TRAIN), "training", display)
    held_out = fit_window(policy, data.source.prompts(Split.EVALUATION), "evaluation", display)
    for ranking in data.annotator.recorded() if data.annotator else ():
        policy.prompt_tokens(ranking.prompt)
    for one in data.source.labelled() if learns_labels(config, data.source) else ():
        policy.prompt_tokens(one.prompt)
    return Prompts(train, held_out, evaluation_prompts(held_out, config.eval))


def build_judge(
    config: RunConfig, policy: Policy, data: DataSource, seeds: Seeds, display: Display
) -> SourceJudge | None:
    """Who answers where the data does not know, if the user chose somebody."""
    if not config.judge:
        return None
    source: RewardSource = config.judge.build(policy=policy, data=data, seeds=seeds.child("judge"))
    return SourceJudge(config.judge.label, source, policy, display.say)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise no_device(name)
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(
            f"device={name}: this machine has {gpus or 'no'} usable GPUs; choose device=auto or device=cpu."
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what asks for no device by name takes the present one
    return device


def needs_rankings(config: RunConfig) -> bool:
    """Whether this run's algorithm or its reward source learns from rankings. One that asks the annotator itself, round by round, is
    judged by the held-out ones too."""
    if needs_reward(config):
        return bool(config.reward.load().needs_rankings(config.reward.config))
    return isinstance(config.algo.config, OfflineConfig) or asks_annotator(config)


def asks_annotator(config: RunConfig) -> bool:
    """Whether the annotator ranks what the algorithm samples."""
    return isinstance(config.algo.config, RolloutConfig) and config.algo.config.asks_annotator


def learns_labels(config: RunConfig, data: DataSource) -> bool:
    """Whether the algorithm learns from labels that the data brings, so that nobody has to rank."""
    return config.algo.config.consumes is Consumes.LABELS and bool(data.labelled())


def labels_to_learn(config: RunConfig, data: DataSource, prompts: Prompts) -> list[Labelled]:
    """The data's labels of prompts that are not asked in the evaluation, for an algorithm that learns from labels."""
    held_out = {prompt.id for prompt in prompts.held_out}
    labelled = data.labelled() if learns_labels(config, data) else ()
    kept = [one for one in labelled if one.prompt.id not in held_out]
    if labelled and not kept:
        raise UserError(
            f"All {len(labelled)} labels of data={config.data.label} are of evaluation prompts: nothing is left to learn from."
        )
    return kept


def needs_reward(config: RunConfig) -> bool:
    """Whether this run's algorithm learns from scores, or chooses by them."""
    return bool(config.algo.config.needs_scores)


def refuse_impossible(config: RunConfig, data: DataSource, annotator: Annotator | None) -> None:
    """Refuses, before any model is loaded, a run whose data cannot give what its algorithm consumes."""
    algo, source = f"algo={config.algo.label}", f"data={config.data.label}"
    consumes = config.algo.config.consumes
    if consumes is Consumes.DEMONSTRATIONS and not data.demonstrations():
        raise UserError(f"{algo} learns from demonstrations, and {source} has none: choose another algo or data.")
    if not data.prompts(Split.TRAIN) or not data.prompts(Split.EVALUATION):
        raise UserError(f"{source} has no training or no evaluation prompts: there is nothing to respond to.")
    for slot in ("algo", "sft", *(["reward"] if needs_reward(config) else [])):
        refuse_alone(slot, getattr(config, slot))
    if needs_reward(config):
        config.reward.component.load().check_data(config.reward.config, data)
        refuse_overlap(config)
    refuse_judge(config, data)
    chosen = config.algo.config
    asks = chosen.needs_probabilities if isinstance(chosen, PreferenceConfig) else ""
    if annotator and asks and not annotator.knows_probabilities:
        without = f"give {asks.removesuffix('=true')}=false" if asks.endswith("=true") else "change that setting"
        raise UserError(
            f"{algo} is to learn from the annotator's own probabilities ({asks}), and annotator={config.annotator.label} "
            f"knows none as it is set: {without}, or choose an annotator that does."
        )
    if annotator and asks_annotator(config) and not annotator.samples_responses:
        raise UserError(
            f"{algo} has fresh responses ranked, and annotator={config.annotator.label} brings rankings of its own: choose an annotator "
            "that ranks sampled responses."
        )
    if annotator and not annotator.samples_responses and not annotator.recorded():
        raise UserError(without_rankings(config, data))


def refuse_overlap(config: RunConfig) -> None:
    """Refuses to score ahead where there is nobody else to wait for: the reward would train and score at once on one machine."""
    chosen = config.algo.config
    if not isinstance(chosen, CorrectedConfig) or not chosen.overlap:
        return
    if not config.reward.component.load().asks_elsewhere(config.reward.config):
        raise UserError(
            f"algo.overlap=1 is for a reward that asks another program, and reward={config.reward.label} computes in this one: "
            "choose algo.overlap=0, or a reward such as judge."
        )
    if distributed.world_size() > 1:
        raise UserError(
            f"algo.overlap=1 runs in one process, and here are {distributed.world_size()}: choose algo.overlap=0."
        )


def refuse_mixture(config: RunConfig, policy: Policy) -> None:
    """Refuses, before anything is trained, an algorithm that samples a mixture which this model cannot draw from."""
    chosen = config.algo.config
    mixes = isinstance(chosen, RolloutConfig) and any(source.reference_share for source in chosen.sources)
    if mixes and not policy.mixes_reference:
        raise UserError(
            f"algo={config.algo.label} samples a mixture of the policy and its reference, from which model={config.model.label} as it is set "
            "cannot draw: choose another model or sampler (model.sampler=loop can), or algo.reference_share=0."
        )


def refuse_unmeasured(config: RunConfig, evaluations: Sequence[Evaluation], data: DataSource, policy: Policy) -> None:
    """Refuses, before anything is trained, a run none of whose evaluations can measure anything, or that is about a metric that none
    of them has."""
    ordinary_text = reads_ordinary_text(policy, data)
    if not any(evaluation.applies(data, ordinary_text=ordinary_text) for evaluation in evaluations):
        raise UserError(measures_nothing(config))
    known = {spec.name for evaluation in evaluations for spec in evaluation.specs()}
    others = {component.name for component in registry().of(Kind.EVALUATION)} - {
        name.partition("/")[0] for name in known
    }
    for name in config.eval.primary:  # a preset's may be of a family that was not chosen
        if not any(one in known or one.partition("/")[0] in others for one in name.split("|")):
            raise unknown_name("metric", name, known, where="eval.primary")


def measures_nothing(config: RunConfig) -> str:
    return (
        f"eval.families=[{','.join(config.eval.families)}] measures nothing on data={config.data.label} with "
        f"model={config.model.label}: choose eval=standard, or other families."
    )


def without_rankings(config: RunConfig, data: DataSource) -> str:
    """Why there is nothing to learn from, and what to choose."""
    annotator, source = f"annotator={config.annotator.label}", f"data={config.data.label}"
    if data.labelled():
        learner = f"reward={config.reward.label}" if needs_reward(config) else f"algo={config.algo.label}"
        learners = [c.name for c in registry().of(Kind.ALGORITHM) if issubclass(c.config, LabelConfig)]
        return (
            f"{learner} learns from pairs, and {source} has labels of single responses and no pairs: choose "
            f"algo={'|'.join(learners)}, or an annotator that ranks sampled responses."
        )
    return (
        f"{annotator} has no rankings: {source} brings none. Give annotator.path=<rankings.jsonl>, choose data that has "
        "human rankings, or an annotator that ranks sampled responses."
    )


def refuse_alone(slot: str, chosen: Selected) -> None:
    """Refuses, where several processes share a run, what can only be alone."""
    if distributed.world_size() > 1 and not getattr(chosen.component.load(), "shares_batches", True):
        raise UserError(
            f"{slot}={chosen.label} cannot share its batches among {distributed.world_size()} processes "
            "(shares_batches is False): run it in one."
        )


def refuse_judge(config: RunConfig, data: DataSource) -> None:
    """Refuses a judge that cannot serve this data, or that would have to learn from rankings first."""
    if not config.judge:
        return
    judge: type[RewardSource] = config.judge.load()
    refuse_alone("reward@judge", config.judge)
    judge.check_data(config.judge.config, data)
    if judge.needs_rankings(config.judge.config):
        raise UserError(
            f"reward@judge={config.judge.label} is fitted to rankings, and a judge is to know better than they do: "
            "choose one that is not."
        )


def fit_window(policy: Policy, prompts: Sequence[Prompt], what: str, display: Display) -> list[Prompt]:
    """The prompts that fit; those that do not are counted aloud."""
    kept = fitting(policy, prompts)
    if not kept:
        raise UserError(
            f"None of the {len(prompts)} {what} prompts fits model.max_prompt_tokens={policy.max_prompt_tokens}: "
            "raise it."
        )
    if len(kept) < len(prompts):
        dropped = len(prompts) - len(kept)
        display.say(f"  {dropped} of {len(prompts)} {what} prompts set aside: over {policy.max_prompt_tokens} tokens")
    return kept
