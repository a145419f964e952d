"""Faults to plant: each is one small change to the source of an algorithm or a reward source, and the checks that
must catch it. docs/conformance.md is made from this table."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import types
from dataclasses import dataclass

from alignbench.plugins import Component, Kind, registry

PPO, SFT, LEARNED = "algo=ppo", "algo=sft", "reward=learned"


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in the module of `component`'s class, wherever it occurs. `caught_by`: one of the checks."""

    name: str
    component: str
    old: str
    new: str
    caught_by: str
    settings: tuple[tuple[str, object], ...] = ()


FAULTS = (
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
    Fault("gae_lambda ignored", PPO, "gamma * lam * following", "gamma * following", "options_have_an_effect"),
    Fault("value bootstrapped beyond the end", PPO, "        # 3. Advantages", "        ends = mask.sum(1, keepdim=True)\n        beyond = self._value.values(sequences).detach().gather(1, ends)\n        rewards = rewards.scatter_add(1, ends - 1, beyond)\n        # 3. Advantages", "reaches_its_optimum"),
    Fault("whitening over the padding", PPO, "functional.masked_whiten(advantages, mask)", "functional.masked_whiten(advantages, torch.ones_like(mask))", "padding_makes_no_difference"),
    # Steps
    Fault("ratio upside down", PPO, "torch.exp(logprobs - old_logprobs)", "torch.exp(old_logprobs - logprobs)", "reaches_its_optimum"),
    Fault("policy loss without a mask", PPO, "masked_sum(torch.maximum(plain, clipped), mask), ((clipped > plain) & mask).sum())\n\n\ndef value", "torch.maximum(plain, clipped)[:, :1].sum(), ((clipped > plain) & mask).sum())\n\n\ndef value", "reaches_its_optimum"),
    Fault("policy loss without the last token", PPO, "policy_loss(new, old, advantages, mask, config", "policy_loss(new, old, advantages, mask & (mask.flip(1).cumsum(1).flip(1) > 1), config", "reaches_its_optimum"),
    Fault("policy loss with the mask of the next column", PPO, "policy_loss(new, old, advantages, mask, config", "policy_loss(new, old, advantages, mask.roll(-1, 1) & mask, config", "micro_batches_change_memory_alone"),
    Fault("loss divided by the tokens of a micro-batch", PPO, "(policy.total / tokens).backward()", "(policy.total / mask.sum()).backward()", "micro_batches_change_memory_alone"),
    Fault("temperature left out after the first step", PPO, "new = self._policy.logprobs(sequences, temperature=config.temperature)", "new = self._policy.logprobs(sequences)", "temperature_divides_the_logits"),
    Fault("temperature left out of the reference", PPO, "role=REFERENCE, temperature=config.temperature)", "role=REFERENCE)", "kl_is_in_nats_per_response"),
    Fault("temperature ignored everywhere", PPO, "temperature=config.temperature", "temperature=1.0", "temperature_divides_the_logits"),
    Fault("epochs ignored", PPO, "for _ in range(self._config.epochs):", "for _ in range(1):", "steps_for_every_minibatch"),
    Fault("minibatches that do not step", PPO, "generator=self._shuffle).chunk(self._config.minibatches):", "generator=self._shuffle).chunk(1):", "steps_for_every_minibatch"),
    Fault("steps reported by a formula that is wrong", PPO, "UpdateReport(metrics, self._optimizer.steps - steps_before, stop)", "UpdateReport(metrics, config.epochs * 2, stop)", "reports_the_steps_it_makes"),
    Fault("learning rate never scheduled", PPO, "self._optimizer.steps, self._optimizer.next_update()", "self._optimizer.steps, config.learning_rate", "learning_rate_follows_its_schedule"),
    Fault("reward model trained as the value network", PPO, 'self._value = policy.scalar("value", init_from="reward" if from_reward else POLICY)', 'self._value = policy._scalars["reward"]', "nothing_else_moves"),
    # State, seeds, reports
    Fault("adapted kl_coef left out of the state", PPO, 'self._kl_coef = state["kl_coef"]', "pass", "goes_on_from_its_state"),
    Fault("shuffling left out of the state", PPO, 'self._shuffle.set_state(state["shuffle"])', "pass", "goes_on_from_its_state"),
    Fault("value network left out of the state", PPO, "parameter.copy_(saved)", "pass", "goes_on_from_its_state"),
    Fault("torch's global generator", PPO, "torch.randperm(rows, generator=self._shuffle)", "torch.randperm(rows)", "same_seed_same_updates"),
    Fault("KL reported per token", PPO, '"kl": float(kl.mean())', '"kl": float(kl.sum() / mask.sum())', "kl_is_in_nats_per_response"),
    Fault("a metric that is a tensor", PPO, '"kl": float(kl.mean())', '"kl": kl.mean()', "metrics_are_finite_floats"),
    Fault("NaN scores turned into 0", PPO, 'require_finite("the reward", batch.scores, hint="Check the reward source.")', "batch = ScoredRollout(batch.rollout, torch.nan_to_num(batch.scores))", "refuses_what_is_not_finite"),
    # Supervised fine-tuning
    Fault("loss divided by the tokens of a micro-batch", SFT, ".logprobs, part.response_mask) / tokens", ".logprobs, part.response_mask) / part.response_mask.sum()", "micro_batches_change_memory_alone"),
    Fault("loss divided by each response's length", SFT, "functional.masked_sum(self._policy.logprobs(part).logprobs, part.response_mask) / tokens", "functional.masked_mean(self._policy.logprobs(part).logprobs, part.response_mask, dim=1).sum() / len(sequences)", "imitates_its_demonstrations"),
    Fault("loss divided by all columns", SFT, "tokens = sequences.response_mask.sum()", "tokens = sequences.response_mask.numel()", "padding_makes_no_difference"),
    Fault("end of the response not learnt", SFT, "self._policy.logprobs(part).logprobs, part.response_mask)", "self._policy.logprobs(part).logprobs, part.response_mask & (part.response_ids != 1))", "imitates_its_demonstrations"),
    Fault("learning rate never scheduled", SFT, "learning_rate = self._optimizer.next_update()", "learning_rate = 0.0", "learning_rate_follows_its_schedule"),
    # The learned reward
    Fault("score read at the last column", LEARNED, "values.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)", "values[:, -1]", "scores_do_not_depend_on_padding"),
    Fault("score read before the last token", LEARNED, "sequences.response_mask.sum(1, keepdim=True).long()", "(sequences.response_mask.sum(1, keepdim=True) - 2).clamp(min=0)", "fitting_predicts_rankings"),
    Fault("scores normalised within the batch", LEARNED, "scores = (raw - self._shift) / self._scale", "scores = (raw - raw.mean()) / self._scale", "scores_do_not_depend_on_the_batch"),
    Fault("gradient kept", LEARNED, "        with torch.no_grad():\n            raw = read_last(self._role.values(samples", "        if True:\n            raw = read_last(self._role.values(samples", "scores_are_one_number_a_response"),
    Fault("normalisation not saved", LEARNED, 'self._shift, self._scale = float(saved["shift"]), float(saved["scale"])', "pass", "saved_and_loaded_it_scores_alike"),
    Fault("variance in place of its root", LEARNED, "deviation = float(raw.std(correction=0))", "deviation = float(raw.var(correction=0))", "normalised_on_its_baseline"),
    Fault("loss with the wrong sign", LEARNED, "part_loss.backward()", "(-part_loss).backward()", "fitting_predicts_rankings"),
)  # fmt: skip


def original(fault: Fault) -> Component:
    kind, _, name = fault.component.partition("=")
    return registry().get(Kind(kind), name)


def planted(fault: Fault) -> Component:
    """The component with the fault in a copy of its module."""
    component = original(fault)
    module, _, attribute = component.target.partition(":")
    source = inspect.getsource(importlib.import_module(module))
    assert fault.old in source, f"{fault.name}: {module} has no {fault.old!r}"
    copy = types.ModuleType("planted_" + "".join(c if c.isalnum() else "_" for c in f"{module} {fault.name}"))
    copy.__file__ = None
    sys.modules[copy.__name__] = copy
    exec(compile(source.replace(fault.old, fault.new), f"<{fault.name}>", "exec"), copy.__dict__)
    return dataclasses.replace(component, target=f"{copy.__name__}:{attribute}")
