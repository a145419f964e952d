"""Faults of what steps an algorithm's weights, and of what samples from them."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

LOOP, ADAMW, MUON, FREE, WSD, COSINE = (
    "sampler=loop",
    "optimizer=adamw",
    "optimizer=muon",
    "optimizer=schedule_free",
    "schedule=wsd",
    "schedule=cosine",
)

SAMPLERS = "alignbench_hf.decoding.samplers"

TRAINING = (
    Fault("step along the gradient", FREE, "value=-rate)", "value=rate)", "goes_downhill"),
    Fault(
        "second moment of zeros divided by itself",
        FREE,
        '.sqrt_().add_(group["eps"])',
        ".sqrt_()",
        "zero_gradients_move_nothing",
    ),
    Fault(
        "weight decay without the learning rate",
        FREE,
        "alpha=-rate * decay",
        "alpha=-decay",
        "weight_decay_is_decoupled",
    ),
    Fault(
        "weight decay not handed on",
        ADAMW,
        "weight_decay=settings.weight_decay",
        "weight_decay=0.0",
        "weight_decay_is_decoupled",
    ),
    Fault(
        "learning rate of the beginning",
        FREE,
        'rate, decay = group["lr"], group',
        'rate, decay = self.defaults["lr"], group',
        "learning_rate_is_read_at_each_step",
    ),
    Fault(
        "vectors left out",
        MUON,
        "self._parts.append(torch.optim.AdamW(",
        "(torch.optim.AdamW(",
        "groups_keep_their_names",
    ),
    Fault(
        "state that the parts no longer share",
        MUON,
        "        super().load_state_dict(state_dict)\n        self._share()",
        "        super().load_state_dict(state_dict)",
        "goes_on_from_its_state",
    ),
    Fault(
        "steps counted outside of the state",
        FREE,
        '_BETA2 ** group["steps"]',
        '_BETA2 ** self.__dict__.setdefault("_count", [0]).__iadd__([0]).__len__()',
        "goes_on_from_its_state",
    ),
    Fault("momentum a literal", MUON, "momentum=config.momentum", "momentum=0.9", "every_option_acts"),
    Fault(
        "twice the rate at the beginning",
        COSINE,
        "0.5 * (1.0 + math.cos(",
        "(1.0 + math.cos(",
        "stays_between_zero_and_the_whole_rate",
    ),
    Fault(
        "a count of calls in place of the progress",
        WSD,
        "def wsd(config: WSDConfig, *, progress: float) -> float:\n",
        "def wsd(config: WSDConfig, *, progress: float, seen: list[int] = []) -> float:\n    seen.append(1)\n    progress = min(len(seen) / 201, 1.0)\n",
        "depends_on_progress_alone",
    ),
    Fault("where it begins to fall a literal", WSD, "/ config.decay", "/ 0.2", "every_option_changes_the_schedule"),
    Fault(
        "rows that go on after their end",
        LOOP,
        "logprob, request.eos)",
        "logprob, request.eos[:0])",
        "responses_end_at_their_first_eos",
        SAMPLERS,
    ),
    Fault(
        "log-probabilities at temperature 1",
        LOOP,
        "logits.float() / request.sampling.temperature, request",
        "logits.float(), request",
        "logprobs_are_the_models_own",
        SAMPLERS,
    ),
    Fault(
        "randomness of its own",
        LOOP,
        "request.chances[alive, step]",
        "torch.rand(len(alive)).double()",
        "the_same_chances_give_the_same_responses",
        SAMPLERS,
    ),
    Fault(
        "chances of other rows",
        LOOP,
        "request.chances[alive, step]",
        "request.chances[: len(alive), step]",
        "the_same_chances_give_the_same_responses",
        SAMPLERS,
    ),
    Fault(
        "chances that are not uniform",
        LOOP,
        "request.chances[alive, step]",
        "request.chances[alive, step] ** 2",
        "draws_from_the_models_distribution",
        SAMPLERS,
    ),
    Fault(
        "top_k not handed on",
        LOOP,
        "temperature, request.sampling, request",
        "temperature, type(request.sampling)(), request",
        "top_k_of_one_is_greedy",
        SAMPLERS,
    ),
    Fault("watch never called", LOOP, "request.watch(found)", "found", "whoever_watches_is_told", SAMPLERS),
)
