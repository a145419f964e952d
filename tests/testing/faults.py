"""Faults to plant: each is one small change to the source of an algorithm or a reward source, and the checks that
must catch it. docs/conformance.md is made from this table."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import linecache
import sys
import types
from collections.abc import Iterator

from alignbench.plugins import Component, Kind, registry
from tests.testing.algorithm_faults import ALGORITHM_FAULTS
from tests.testing.fault import Fault as Fault

PPO, SFT, DPO, IPO, RLOO = "algo=ppo", "algo=sft", "algo=dpo", "algo=ipo", "algo=rloo"
ONLINE_DPO = "algo=online_dpo"
LEARNED, BEST_OF_N = "reward=learned", "algo=best_of_n"
SCRATCH = "model=scratch"
WORLD = "data=world"
HELPFULNESS, OPTIMIZATION = "evaluation=helpfulness", "evaluation=optimization"
SUMMED = "functional.summed_logprobs(self._policy, both, temperature=self._temperature)"


FAULTS = (
    *ALGORITHM_FAULTS,
    # Rewards
    Fault("KL penalty with the wrong sign", PPO, "mask, -kl_coef * functional", "mask, kl_coef * functional", "reaches_its_optimum"),
    Fault("KL penalty of half its weight", PPO, "mask, -kl_coef * functional", "mask, -0.5 * kl_coef * functional", "reaches_its_optimum"),
    Fault("KL penalty left out", PPO, "mask, -kl_coef * functional.kl_k1(logprobs, ref_logprobs), ", "mask, torch.zeros_like(logprobs), ", "reaches_its_optimum"),
    Fault("KL penalty at all tokens but the first", PPO, "return rewards\n\n\ndef gae", "rewards[:, 0] += kl_coef * functional.kl_k1(logprobs, ref_logprobs)[:, 0]\n    return rewards\n\n\ndef gae", "reaches_its_optimum"),
    Fault("the k3 estimate as the penalty", PPO, "-kl_coef * functional.kl_k1(", "-kl_coef * functional.kl_k3(", "reaches_its_optimum"),
    Fault("the policy itself as its reference", PPO, "role=REFERENCE, temp", "role=POLICY, temp", "kl_is_in_nats_per_response"),
    Fault("score added at the last column", PPO, "last = (mask.sum(1) - 1).clamp(min=0)", "last = torch.full_like(mask.sum(1), mask.shape[1] - 1)", "padding_makes_no_difference"),
    Fault("score added one token early", PPO, "(mask.sum(1) - 1).clamp(min=0)", "(mask.sum(1) - 2).clamp(min=0)", "reaches_its_optimum"),
    Fault("score multiplied by the length", PPO, "last] += scores", "last] += scores * mask.sum(1)", "reaches_its_optimum"),
    Fault("score with the wrong sign", PPO, "last] += scores", "last] -= scores", "rewards_rise"),
    # Advantages
    Fault("scores centred in the batch itself", PPO, 'require_finite("the reward", batch.scores, hint="Check the reward source.")', 'require_finite("the reward", batch.scores, hint="Check the reward source.").sub_(batch.scores.mean())', "batch_stays_as_it_was"),
    Fault("advantages with the wrong sign", PPO, "advantages[:, t] = following", "advantages[:, t] = -following", "reaches_its_optimum"),
    Fault("temporal difference with the wrong sign", PPO, "gamma * next_value - values[:, t]", "gamma * next_value + values[:, t]", "reaches_its_optimum"),
    Fault("gae_lambda ignored", PPO, "gamma * lam * following", "gamma * following", "every_option_acts"),
    Fault("value bootstrapped beyond the end", PPO, "        # 3. Advantages", "        ends = mask.sum(1, keepdim=True)\n        beyond = self._value.values(sequences).detach().gather(1, ends)\n        rewards = rewards.scatter_add(1, ends - 1, beyond)\n        # 3. Advantages", "reaches_its_optimum"),
    Fault("whitening over the padding", PPO, "functional.masked_whiten(advantages, mask)", "functional.masked_whiten(advantages, torch.ones_like(mask))", "padding_makes_no_difference"),
    Fault("mask made from token ids", PPO, "samples.sequences, samples.sequences.response_mask.bool()", "samples.sequences, samples.sequences.response_ids != 0", "tokens_at_padding_are_not_read"),
    # Steps
    Fault("ratio upside down", PPO, "policy_loss(new, part.logprobs, part", "policy_loss(part.logprobs, new, part", "reaches_its_optimum"),
    Fault("policy loss on the first token alone", PPO, "part.advantages, mask, self", "part.advantages, mask & (mask.cumsum(1) < 2), self", "reaches_its_optimum"),
    Fault("policy loss without the last token", PPO, "part.advantages, mask, self", "part.advantages, mask & (mask.flip(1).cumsum(1).flip(1) > 1), self", "reaches_its_optimum"),
    Fault("policy loss with the mask of the next column", PPO, "part.advantages, mask, self", "part.advantages, mask.roll(-1, 1) & mask, self", "micro_batches_change_memory_alone"),
    Fault("loss divided by the tokens of a micro-batch", PPO, "        return loss.total / tokens", "        return loss.total / mask.sum()", "micro_batches_change_memory_alone"),
    Fault("temperature left out after the first step", PPO, "new = self._policy.logprobs(part.sequences, temperature=temperature)", "new = self._policy.logprobs(part.sequences)", "temperature_divides_the_logits"),
    Fault("temperature left out of the reference", PPO, "role=REFERENCE, temperature=config.temperature)", "role=REFERENCE)", "kl_is_in_nats_per_response"),
    Fault("temperature ignored everywhere", PPO, "temperature=config.temperature", "temperature=1.0", "temperature_divides_the_logits"),
    Fault("epochs ignored", PPO, "epochs=self._config.epochs, count", "epochs=1, count", "steps_for_every_minibatch"),
    Fault("minibatches that do not step", PPO, "count=self._config.minibatches, gen", "count=1, gen", "steps_for_every_minibatch"),
    Fault("steps reported by a formula that is wrong", PPO, "UpdateReport(metrics, self._optimizer.steps - steps_before, stop)", "UpdateReport(metrics, config.epochs * 2, stop)", "reports_the_steps_it_makes"),
    Fault("learning rate never scheduled", PPO, "self._optimizer.steps, self._optimizer.next_update()", "self._optimizer.steps, config.learning_rate", "learning_rate_follows_its_schedule"),
    Fault("reward model trained as the value network", PPO, 'self._value = policy.scalar("value", init_from="reward" if from_reward else POLICY)', 'self._value = policy._scalars["reward"]', "nothing_else_moves"),
    Fault("value network asked before the policy's backward pass", PPO, "                new = self._policy.logprobs(part.sequences, temperature=temperature)\n", "                new = self._policy.logprobs(part.sequences, temperature=temperature)\n                self._value.values(part.sequences)\n", "roles_take_turns"),
    Fault("value network in another unit than its reward", PPO, '        roles = {"policy"', '        self._value.rescale(0.5, 2.0)\n        roles = {"policy"', "values_start_as_the_reward_model"),
    # State, seeds, reports
    Fault("adapted kl_coef left out of the state", PPO, 'self._kl_coef = state["kl_coef"]', "pass", "goes_on_from_its_state"),
    Fault("shuffling left out of the state", PPO, 'self._shuffle.set_state(state["shuffle"])', "pass", "goes_on_from_its_state"),
    Fault("value network left out of the state", PPO, "parameter.copy_(saved)", "pass", "goes_on_from_its_state"),
    Fault("torch's global generator", PPO, "generator=self._shuffle\n", "generator=torch.default_generator\n", "same_seed_same_updates"),
    Fault("KL reported per token", PPO, '"kl": float(kl.mean())', '"kl": float(kl.sum() / mask.sum())', "kl_is_in_nats_per_response"),
    Fault("a metric that is a tensor", PPO, '"kl": float(kl.mean())', '"kl": kl.mean()', "metrics_are_finite_floats"),
    Fault("NaN scores turned into 0", PPO, 'require_finite("the reward", batch.scores, hint="Check the reward source.")', "batch = ScoredRollout(batch.rollout, torch.nan_to_num(batch.scores))", "refuses_what_is_not_finite"),
    # Supervised fine-tuning
    Fault("loss divided by the tokens of a micro-batch", SFT, ".logprobs, part.response_mask) / tokens", ".logprobs, part.response_mask) / part.response_mask.sum()", "micro_batches_change_memory_alone"),
    Fault("loss divided by each response's length", SFT, "functional.masked_sum(self._policy.logprobs(part).logprobs, part.response_mask) / tokens", "functional.masked_mean(self._policy.logprobs(part).logprobs, part.response_mask, dim=1).sum() / len(sequences)", "imitates_its_demonstrations"),
    Fault("loss divided by all columns", SFT, "tokens = sequences.response_mask.sum()", "tokens = sequences.response_mask.numel()", "padding_makes_no_difference"),
    Fault("end of the response not learnt", SFT, "self._policy.logprobs(part).logprobs, part.response_mask)", "self._policy.logprobs(part).logprobs, part.response_mask & (part.response_ids != 1))", "imitates_its_demonstrations"),
    Fault("learning rate never scheduled", SFT, "learning_rate = self._optimizer.next_update()", "learning_rate = 0.0", "learning_rate_follows_its_schedule"),
    # Pairs
    Fault("chosen and rejected exchanged", DPO, "chosen.log_ratio - rejected.log_ratio,\n            config.beta", "rejected.log_ratio - chosen.log_ratio,\n            config.beta", "rewards_rise"),
    Fault("beta left out of the loss", DPO, "config.beta,\n            loss=config.loss", "1.0,\n            loss=config.loss", "coefficient_pulls_to_the_reference"),
    Fault("beta in the denominator", DPO, "config.beta,\n            loss=config.loss", "1.0 / config.beta,\n            loss=config.loss", "coefficient_pulls_to_the_reference"),
    Fault("soft labels ignored", DPO, "probability=known(probability) if config.soft_labels else None", "probability=None", "reaches_its_optimum"),
    Fault("soft labels of the other response", DPO, "probability=known(probability) if", "probability=1 - known(probability) if", "reaches_its_optimum"),
    Fault("label smoothing with soft labels", DPO, "1 - label_smoothing if probability is None else probability", "1 - label_smoothing if probability is None else 0.9 * probability + 0.05", "reaches_its_optimum", "alignbench_dpo.losses"),
    Fault("no reference", DPO, "return self.logprob - self.ref_logprob", "return self.logprob - 0 * self.ref_logprob", "reaches_its_optimum", "alignbench_dpo.pairs"),
    Fault("mean over tokens in place of the sum", DPO, SUMMED, "functional.masked_mean(self._policy.logprobs(both, temperature=self._temperature).logprobs, both.response_mask, dim=1)", "reaches_its_optimum", "alignbench_dpo.pairs"),
    Fault("last token of a response left out", DPO, SUMMED, "functional.masked_sum(self._policy.logprobs(both, temperature=self._temperature).logprobs[:, :-1], both.response_mask[:, 1:], dim=1)", "reaches_its_optimum", "alignbench_dpo.pairs"),
    Fault("end of a response not counted", DPO, SUMMED, "functional.masked_sum(self._policy.logprobs(both, temperature=self._temperature).logprobs, both.response_ids != 1, dim=1)", "reaches_its_optimum", "alignbench_dpo.pairs"),
    Fault("loss divided by the pairs of a micro-batch", DPO, "(objective.loss.sum() / len(batch)).backward()", "objective.loss.mean().backward()", "micro_batches_change_memory_alone", "alignbench_dpo.pairs"),
    Fault("reference of another pair", DPO, "tokens[count:], part.ref_rejected)", "tokens[count:], part.ref_rejected.roll(1))", "order_makes_no_difference", "alignbench_dpo.pairs"),
    Fault("learning rate scheduled once", DPO, "learning_rate = self._optimizer.next_update()", "learning_rate = self._optimizer.next_update() if not self._optimizer.steps else 0.0", "learning_rate_follows_its_schedule", "alignbench_dpo.pairs"),
    Fault("state of the optimizer not loaded", DPO, "self._optimizer.load_state_dict(state)", "pass", "goes_on_from_its_state", "alignbench_dpo.pairs"),
    Fault("margin with a factor of its own", IPO, "(2 * probability - 1) / (2 * tau)", "(2 * probability - 1) / tau", "reaches_its_optimum", "alignbench_dpo.losses"),
    Fault("KL from the sampler's log-probabilities", ONLINE_DPO, "functional.sequence_kl(own, ref, mask)", "functional.sequence_kl(batch.rollout.logprobs, ref, mask)", "kl_is_in_nats_per_response"),
    # Groups
    Fault("baseline of the neighbouring group", RLOO, "return rewards - others", "return rewards - others.roll(1, 0)", "order_makes_no_difference"),
    Fault("baseline as the advantage", RLOO, "return rewards - others", "return others", "reaches_its_optimum"),
    Fault("groups across prompts", RLOO, "groups = rewards.reshape(-1, config.samples_per_prompt)", "groups = rewards.reshape(config.samples_per_prompt, -1).T", "order_makes_no_difference", "alignbench_group.groups"),
    Fault("KL penalty added to the score", RLOO, "rewards = scores - config.kl_coef * kl", "rewards = scores + config.kl_coef * kl", "reaches_its_optimum", "alignbench_group.groups"),
    Fault("minibatches drawn without a seed", RLOO, "torch.randperm(rows, generator=generator).chunk(count)", "torch.randperm(rows).chunk(count)", "same_seed_same_updates", "alignbench.functional"),
    Fault("weights decayed by hand", SFT, "norms = self._optimizer.step()", "norms = self._optimizer.step()\n        [p.data.mul_(0.99) for p in self._policy.trainable()]", "without_learning_rate_nothing_moves"),
    Fault("no step", SFT, "norms = self._optimizer.step()", 'norms = {"policy": 0.0}', "policy_moves"),
    # Best-of-n
    Fault("a distribution that does not sum to 1", BEST_OF_N, "functional.best_of_n(problem.reference, problem.rewards, config.n)", "functional.best_of_n(problem.reference, problem.rewards, config.n) * config.n", "optimum_is_a_distribution"),
    Fault("the worst of n", BEST_OF_N, "best_of_n(problem.reference, problem.rewards, config.n)", "best_of_n(problem.reference, -problem.rewards, config.n)", "optimum_is_that_of_its_candidates"),
    # Models
    Fault("padding read as if it were the prompt", SCRATCH, "    mask = prompt_mask.bool()\n", "    mask = torch.ones_like(prompt_mask, dtype=torch.bool)\n", "a_row_does_not_depend_on_its_batch", "alignbench_hf.prompts"),
    Fault("logits scaled on their way out", SCRATCH, "logits = logits.view(*states.shape[:-1], logits.shape[-1])", "logits = 1.05 * logits.view(*states.shape[:-1], logits.shape[-1])", "logprobs_are_those_of_transformers", "alignbench_hf.architecture.output"),
    Fault("temperature left out of sampling", SCRATCH, "logits.float() / request.sampling.temperature", "logits.float()", "sampled_logprobs_are_those_that_it_computes", "alignbench_hf.sampling"),
    Fault("chances that are not uniform", SCRATCH, "below = chances.double()[:, None] *", "below = chances.double()[:, None] ** 1.3 *", "tokens_come_as_often_as_their_probability_says", "alignbench_hf.sampling"),
    Fault("chances drawn without their generator", SCRATCH, "torch.rand(len(rows), limit, generator=rng,", "torch.rand(len(rows), limit,", "sampling_depends_on_its_generator_alone", "alignbench_hf.policy"),
    Fault("dropout on the states", SCRATCH, "hidden, output = self._states(role, sequences)", "hidden, output = self._states(role, sequences)\n        hidden = nn.functional.dropout(hidden, 0.1)", "dropout_is_off", "alignbench_hf.policy"),
    Fault("a trainable weight that is not used", SCRATCH, "return list(self._roles.named_parameters(POLICY).values())", "return [*self._roles.named_parameters(POLICY).values(), nn.Parameter(torch.ones(2))]", "every_trainable_weight_learns", "alignbench_hf.policy"),
    Fault("half of the gradient", SCRATCH, "hidden[:, :-1],\n            output", "(hidden + hidden.detach())[:, :-1] / 2,\n            output", "gradients_are_those_of_its_logprobs", "alignbench_hf.policy"),
    Fault("the reference is the policy itself", SCRATCH, "copy.deepcopy(self._models[init_from])", "self._models[init_from]", "roles_are_independent", "alignbench_hf.roles"),
    Fault("a whole response counted as cut", SCRATCH, "len(row) <= self.max_response_tokens", "len(row) < self.max_response_tokens", "a_response_at_the_limit_is_whole", "alignbench_hf.policy"),
    Fault("weights not loaded", SCRATCH, "self._models[POLICY].load_state_dict(loaded)", "pass", "saved_and_loaded_it_is_the_same", "alignbench_hf.roles"),
    # The learned reward
    Fault("score read at the last column", LEARNED, "values.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)", "values[:, -1]", "scores_do_not_depend_on_padding"),
    Fault("score read before the last token", LEARNED, "sequences.response_mask.sum(1, keepdim=True).long()", "(sequences.response_mask.sum(1, keepdim=True) - 2).clamp(min=0)", "fitting_predicts_rankings"),
    Fault("scores normalised within the batch", LEARNED, "scores = read_last(self._role.values(samples.sequences), samples.sequences)\n", "scores = read_last(self._role.values(samples.sequences), samples.sequences)\n        scores = scores - scores.mean()\n", "scores_do_not_depend_on_the_batch"),
    Fault("gradient kept", LEARNED, "        with torch.no_grad():\n            scores = read_last(self._role.values(samples", "        if True:\n            scores = read_last(self._role.values(samples", "scores_are_one_number_a_response"),
    Fault("head saved before it is normalised", LEARNED, "        self._role.save(path)", "        self._role.rescale(-1.0, 0.5)\n        self._role.save(path)\n        self._role.rescale(2.0, 2.0)", "saved_and_loaded_it_scores_alike"),
    Fault("scores normalised beside the head", LEARNED, "self._role.rescale(float(raw.mean()), deviation if deviation > 1e-6 else 1.0)", "unit = float(raw.mean()), deviation\n        self.score = lambda samples: (type(self).score(self, samples) - unit[0]) / unit[1]", "values_start_in_its_unit"),
    Fault("variance in place of its root", LEARNED, "deviation = float(raw.std(correction=0))", "deviation = float(raw.var(correction=0))", "normalised_on_its_baseline"),
    Fault("dropout while scoring", LEARNED, "scores = read_last(self._role.values(samples.sequences), samples.sequences)\n", "scores = read_last(self._role.values(samples.sequences), samples.sequences)\n        scores = torch.nn.functional.dropout(scores, 0.1)\n", "scoring_changes_nothing"),
    Fault("progress counted from 0", LEARNED, "progress(update, updates", "progress(update - 1, updates", "fitting_is_reported"),
    Fault("rankings drawn without a seed", LEARNED, 'self._seeds.torch("order")', "torch.default_generator", "fitting_is_repeatable"),
    Fault("loss with the wrong sign", LEARNED, "part_loss.backward()", "(-part_loss).backward()", "fitting_predicts_rankings"),
    # Evaluations
    Fault("a missing verdict counted as 0", HELPFULNESS, "return None if generation.verdict is None else generation.verdict.gold_reward", "return 0.0 if generation.verdict is None else generation.verdict.gold_reward", "what_does_not_apply_is_left_out", "alignbench_suite.scores"),
    Fault("a metric without its spec", HELPFULNESS, 'MetricSpec("helpfulness/accuracy", Direction.HIGHER, "share of responses", share=True),', "", "specs_cover_every_metric"),
    Fault("each response an example", HELPFULNESS, "groups, matched = subject.by_prompt()", "groups, matched = [[g] for g in subject.generations]", "examples_are_scored_once"),
    Fault("opponents paired by position", HELPFULNESS, "(g.prompt.id, g.index): g for g in baseline}", "(g.prompt.id, g.index): b for g, b in zip(sorted(baseline, key=lambda g: (g.prompt.id, g.index)), baseline)}", "order_of_generations_is_irrelevant", "alignbench_suite.helpfulness.win_rate"),
    Fault("a random choice without a seed", OPTIMIZATION, "lambda g: float(g.tokens)", "lambda g: float(g.tokens) + __import__('random').random()", "same_generations_same_scores"),
    # Data sources
    Fault("demonstrations that nobody seeded", WORLD, 'self._seeds.python("demonstrator")', "random.Random()", "same_seed_same_data"),
    Fault("prompts of both splits that count alike", WORLD, 'f"evaluation/{question.id}/{opinion.value}"', 'f"train/{len(prompts):05d}"', "what_is_held_out_teaches_nothing"),
    Fault("ids that say too little", WORLD, 'f"lesson/{entity}-{relation}-{form}"', 'f"lesson/{entity}-{relation}"', "an_id_is_one_conversation"),
    Fault("truth about the evaluation alone", WORLD, "        assessment = self.assess(", "        if prompt.id.startswith('train'):\n            return None\n        assessment = self.assess(", "truth_is_known_of_all_or_of_none"),
)  # fmt: skip


_PLANTED = "_planted_"


def original(fault: Fault) -> Component:
    kind, _, name = fault.component.partition("=")
    return registry().get(Kind(kind), name)


def planted(fault: Fault) -> Component:
    """The component with the fault, in a copy of its module; no other component sees it."""
    component = original(fault)
    home, _, attribute = component.target.partition(":")
    where = fault.module or home
    importlib.import_module(home)
    source = inspect.getsource(importlib.import_module(where))
    assert fault.old in source, f"{fault.name}: {where} has no {fault.old!r}"
    faulty = _module(where, fault.name, source.replace(fault.old, fault.new))
    if where != home:
        # A base class or a function from elsewhere: the modules of the package are read again, and find the faulty one.
        sources = {name: _source(name) for name in [*_siblings(home), home] if name != where}
        with contextlib.ExitStack() as stack:
            stack.enter_context(_standing_in(where, faulty))
            for name, text in sources.items():
                faulty = _module(name, fault.name, text)
                stack.enter_context(_standing_in(name, faulty))
    return dataclasses.replace(component, target=f"{faulty.__name__}:{attribute}")


def _siblings(home: str) -> list[str]:
    """The loaded modules of the class's package that hold code of their own and no config, those read first first."""
    package = home.rpartition(".")[0]
    names = [name for name in sys.modules if name.startswith(f"{package}.") and _PLANTED not in name]
    names = [name for name in names if name != home and not name.endswith(".config") and _has_code(name)]
    return sorted(names, key=lambda name: _source(name).count(f"from {package}."))


def _has_code(name: str) -> bool:
    """An empty __init__.py has no source to read again."""
    return bool(linecache.getlines(getattr(sys.modules[name], "__file__", None) or ""))


def _source(name: str) -> str:
    return inspect.getsource(sys.modules[name])


def _module(name: str, fault: str, source: str) -> types.ModuleType:
    # In the package that it is from: the kit looks there for what belongs to a component.
    made = types.ModuleType(name + _PLANTED + "".join(c if c.isalnum() else "_" for c in fault))
    made.__file__ = sys.modules[name].__file__  # a module may look for its data beside itself
    sys.modules[made.__name__] = made
    exec(compile(source, f"<{name} {fault}>", "exec"), made.__dict__)
    return made


@contextlib.contextmanager
def _standing_in(name: str, module: types.ModuleType) -> Iterator[None]:
    """`module` is what importing `name` gives."""
    package, _, attribute = name.rpartition(".")
    before = sys.modules[name]
    sys.modules[name] = module
    setattr(sys.modules[package], attribute, module)
    try:
        yield
    finally:
        sys.modules[name] = before
        setattr(sys.modules[package], attribute, before)
