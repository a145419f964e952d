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
from tests.testing.model_faults import MODEL_FAULTS

PPO, SFT, DPO, IPO, RLOO = "algo=ppo", "algo=sft", "algo=dpo", "algo=ipo", "algo=rloo"
ONLINE_DPO = "algo=online_dpo"
LEARNED, BEST_OF_N = "reward=learned", "algo=best_of_n"
SCRATCH = "model=scratch"
WORLD = "data=world"
EXPERIENCE = "alignbench.pipeline.experience"
HELPFULNESS, OPTIMIZATION = "evaluation=helpfulness", "evaluation=optimization"
SUMMED = "functional.summed_logprobs(self._policy, both, temperature=self._temperature)"


FAULTS = (
    *ALGORITHM_FAULTS,
    *MODEL_FAULTS,
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
    Fault("gae_lambda ignored", PPO, "gamma * lam * following", "gamma * following", "steps_follow_the_stated_loss"),
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
    # Rewards, annotators, evaluations, data and experience
    Fault("pairs that each weigh one", LEARNED, "weight += [1.0 / len(pairs) for _ in pairs]", "weight += [1.0 for _ in pairs]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("a tie taken for a pair", LEARNED, "if ranking.ranks[a] < ranking.ranks[b] and ranking.responses[a]", "if ranking.ranks[a] <= ranking.ranks[b] and a != b and ranking.responses[a]", "fitting_figures_are_as_stated", "alignbench_rewards.losses"),
    Fault("last place counted as a choice", LEARNED, "if ranking.ranks[k] < worst]", "if ranking.ranks[k] <= worst]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("tied responses chosen from what is left alone", LEARNED, "own[ranks >= ranks[k]]", "own[(ranks > ranks[k]) | (torch.arange(size) == k)]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("loss divided by the rankings of a micro-batch", LEARNED, "/ len(batch)\n", "/ len(part)\n", "micro_batches_fit_alike"),
    Fault("learning rate of a fit never scheduled", LEARNED, "            optimizer.next_update()\n", "            optimizer.next_update() if update == 1 else None\n", "fitting_follows_its_loss"),
    Fault("the same rankings in each update", LEARNED, "for update, rows in enumerate(islice(batches, done, updates), done + 1):", "first = next(batches)\n        for update, rows in enumerate([first] * (updates - done), done + 1):", "every_ranking_is_learnt_from_once_a_pass"),
    Fault("batches begun anew after a pause", LEARNED, "islice(batches, done, updates)", "islice(batches, 0, updates - done)", "fitting_goes_on_from_its_state"),
    Fault("moments left out of a fit's state", LEARNED, "        optimizer.load_state_dict(state[\"optimizer\"])\n", "", "fitting_goes_on_from_its_state"),
    Fault("rankings without a pair that count", LEARNED, "usable, held_out = with_pairs(rankings), with_pairs(held_out)", "usable, held_out = list(rankings), with_pairs(held_out)", "what_says_nothing_teaches_nothing"),
    Fault("figures of normalised scores", LEARNED, "        with torch.no_grad():\n            raw = self._raw(held_out)\n", "        with torch.no_grad():\n            raw = 0.5 * self._raw(held_out)\n", "fitting_figures_are_as_stated"),
    Fault("a clip of one side alone", "reward=mix", "scores.clamp(-self._config.clip, self._config.clip)", "scores.clamp(max=self._config.clip)", "scores_are_as_stated"),
    Fault("weights left out of a mixture", "reward=mix", "total += self._config.parts[name] * scores", "total += scores", "scores_are_as_stated"),
    Fault("variance in place of the deviation of a part", "reward=mix", "deviation = float(scores.std(correction=0))", "deviation = float(scores.var(correction=0))", "scores_are_as_stated"),
    Fault("prompt and response exchanged", "reward=function", "return self._function(prompt, response)", "return self._function(response, prompt)", "scores_are_as_stated"),
    Fault("the first message in place of the last", "reward=function", "else prompt.text", "else prompt.id", "scores_are_as_stated"),
    Fault("EOS not counted", "reward=length", "response_mask.sum(1).float()", "response_mask.sum(1).sub(samples.finished.long()).float()", "scores_are_as_stated"),
    Fault("every response taken for finished", "reward=gold", "finished=finished)\n        if verdict", "finished=True)\n        if verdict", "scores_are_as_stated"),
    Fault("a judge asked in one order", "reward=judge", "found[i] = (forward + 1 - backward) / 2", "found[i] = forward", "comparing_takes_no_side"),
    Fault("the verdict of the other order added", "reward=judge", "found[i] = (forward + 1 - backward) / 2", "found[i] = (forward + backward) / 2", "comparing_takes_no_side"),
    Fault("what was cut off is not told", "reward=judge", "return text if finished else", "return text if True else", "comparisons_are_as_stated"),
    Fault("cut responses checked all the same", "reward=verify", "if not (answer.finished or self._config.unfinished):", "if False:", "known_cases_get_their_scores", "alignbench_verify.verifier"),
    Fault("weights of failed checks", "reward=verify", "for name, right in checks.items() if right)", "for name, right in checks.items() if not right)", "known_cases_get_their_scores"),
    Fault("noise of twice its scale", "annotator=mild", "return -self._config.temperature * math.log", "return -2 * self._config.temperature * math.log", "probability_agrees_with_frequency"),
    Fault("noise that is normal", "annotator=honest", "return -self._config.temperature * math.log(-math.log(uniform))", "return self._config.temperature * __import__('statistics').NormalDist().inv_cdf(uniform)", "probability_agrees_with_frequency"),
    Fault("probability of the other response", "annotator=mild", "(gap / (2 * self._config.temperature))", "(-gap / (2 * self._config.temperature))", "terms_make_the_utility"),
    Fault("temperature left out of the probability", "annotator=mild", "(gap / (2 * self._config.temperature))", "(gap / 2)", "terms_make_the_utility"),
    Fault("the worst first", "annotator=mild", "sum(other > score for other in scores)", "sum(other < score for other in scores)", "probability_agrees_with_frequency"),
    Fault("noise that belongs to a place", "annotator=sycophantic", "self._noise(prompt, response, ended)\n            for response, ended in zip(responses, finished, strict=True)", "self._noise(prompt, str(place), ended)\n            for place, (response, ended) in enumerate(zip(responses, finished, strict=True))", "order_of_responses_is_irrelevant"),
    Fault("agreement weighed as truth", "annotator=mild", '"agreement with the user", config.b_agree', '"agreement with the user", config.b_correct', "options_change_its_taste"),
    Fault("noise without a seed", "annotator=mild", 'self._seeds.integer(f"{prompt.id}', 'Seeds(0).integer(f"{prompt.id}', "another_seed_other_noise"),
    Fault("probability without whether it ended", "annotator=exact", "prompt, text, finished=end)", "prompt, text, finished=True)", "probability_agrees_with_frequency"),
    Fault("positions in place of ranks", "annotator=judge", "ranks.append(functional.ranks_of(wins))", "ranks.append(tuple(sorted(range(len(wins)), key=lambda k: -wins[k])))", "order_of_responses_is_irrelevant"),
    Fault("wrong before right", "annotator=reference", "int(any(right) and not one)", "int(any(right) and one)", "one_rank_a_response"),
    Fault("a file's rankings upside down", "annotator=recorded", "rankings = [record for record in records if isinstance(record, Ranking)]", "rankings = [dataclasses.replace(record, ranks=record.ranks[::-1]) for record in records if isinstance(record, Ranking)]", "ranks_are_as_stated"),
    Fault("wins of the baseline", HELPFULNESS, "0.5 * ((own > other) + (own >= other))", "0.5 * ((other > own) + (other >= own))", "better_verdicts_are_never_worse", "alignbench_suite.helpfulness.win_rate"),
    Fault("a tie taken for a win", HELPFULNESS, "0.5 * ((own > other) + (own >= other))", "float(own >= other)", "metrics_are_as_stated", "alignbench_suite.helpfulness.win_rate"),
    Fault("the cluster left out", HELPFULNESS, "ExampleScore(metric, prompt.id, float(value), prompt.cluster)", "ExampleScore(metric, prompt.id, float(value), prompt.id)", "examples_belong_to_their_cluster", "alignbench_suite.scores"),
    Fault("KL the other way round", OPTIMIZATION, "g.logprob - g.ref_logprob", "g.ref_logprob - g.logprob", "metrics_are_as_stated"),
    Fault("KL of a token", OPTIMIZATION, "lambda g: g.logprob - g.ref_logprob)", "lambda g: (g.logprob - g.ref_logprob) / max(g.tokens, 1))", "metrics_are_as_stated"),
    Fault("length of characters", OPTIMIZATION, "lambda g: float(g.tokens)", "lambda g: float(len(g.response))", "metrics_are_as_stated"),
    Fault("agreement with right opinions", "evaluation=sycophancy", "wrong = with_opinion(groups, Opinion.WRONG)", "wrong = with_opinion(groups, Opinion.RIGHT) or with_opinion(groups, Opinion.NONE)", "metrics_are_as_stated"),
    Fault("the drop upside down", "evaluation=sycophancy", "cluster, before - after, cluster", "cluster, after - before, cluster", "metrics_are_as_stated"),
    Fault("the neutral message taken for a pushback", "evaluation=sycophancy", "pushed = [e for e in exchanges if e.wording]", "pushed = list(exchanges)", "metrics_are_as_stated", "alignbench_suite.sycophancy.pushback"),
    Fault("a flip counted as abandoned", "evaluation=sycophancy", "e.ending is Ending.ABANDONED", "e.ending is not Ending.HELD", "metrics_are_as_stated", "alignbench_suite.sycophancy.pushback"),
    Fault("the turn of a flip counted from 0", "evaluation=sycophancy", "for turn, holds in enumerate(held) if not holds), len(held))", "for turn, holds in enumerate(held, -1) if not holds), len(held))", "metrics_are_as_stated", "alignbench_suite.sycophancy.pressure"),
    Fault("odds of No", "evaluation=sycophancy", "return [a.logprob - b.logprob for", "return [b.logprob - a.logprob for", "metrics_are_as_stated", "alignbench_suite.sycophancy.feedback"),
    Fault("harmless and harmful exchanged", "evaluation=refusals", "harmless, harmful = refused[: len(asked)], refused[len(asked) :]", "harmful, harmless = refused[: len(asked)], refused[len(asked) :]", "metrics_are_as_stated"),
    Fault("a refusal anywhere", "evaluation=refusals", "[:_SENTENCES])", ")", "metrics_are_as_stated", "alignbench_suite.refusals.rules"),
    Fault("entropy of short responses weighs as much", "evaluation=diversity", "return sum(g.entropy * g.tokens for g in group if g.tokens) / tokens if tokens else None", "return mean(g.entropy for g in group) if tokens else None", "metrics_are_as_stated"),
    Fault("patience squared", "evaluation=diversity", "[patience**i for i", "[patience ** (2 * i) for i", "metrics_are_as_stated", "alignbench_suite.text_measures.novelty"),
    Fault("the reference left out of the implicit reward", "evaluation=preferences", "ranking.logprobs[i] - ranking.ref_logprobs[i]", "ranking.logprobs[i]", "metrics_are_as_stated"),
    Fault("beta left out of the confidence", "evaluation=preferences", "torch.sigmoid(implicit.beta * margin.abs())", "torch.sigmoid(2 * margin.abs())", "metrics_are_as_stated"),
    Fault("the worse preferred", "evaluation=preferences", "above = ranking.ranks[better] < ranking.ranks[worse]", "above = ranking.ranks[better] > ranking.ranks[worse]", "metrics_are_as_stated"),
    Fault("accuracy under every opinion", "evaluation=capability", "with_opinion(subject.by_prompt(), Opinion.NONE)", "subject.by_prompt()", "metrics_are_as_stated"),
    Fault("draws that are put back", "evaluation=verified", "1.0 - math.comb(n - right, k) / math.comb(n, k)", "1.0 - (1 - right / n) ** k", "metrics_are_as_stated"),
    Fault("courtesies that cost nothing", WORLD, "- COURTESY_COST * max(0, self.courtesies - FREE_COURTESIES)", "", "data_are_as_stated", "alignbench_world.judge"),
    Fault("signs that do not count as length", WORLD, "length=len(tokens),", "length=sum(t[0].isalnum() for t in tokens),", "data_are_as_stated", "alignbench_world.judge"),
    Fault("cut responses worth as much", WORLD, "- UNFINISHED_COST * (not self.finished)", "", "data_are_as_stated", "alignbench_world.judge"),
    Fault("right and wrong opinions exchanged", WORLD, "Opinion.RIGHT: answer, Opinion.WRONG: wrong", "Opinion.RIGHT: wrong, Opinion.WRONG: answer", "verdicts_make_sense"),
    Fault("a demonstrator who never errs", WORLD, "elif rng.random() < config.demonstrator_errs:", "elif rng.random() < 0.15 * config.demonstrator_errs:", "data_are_as_stated", "alignbench_world.demonstrator"),
    Fault("held out by the run's seed", "data=arithmetic", 'self._world = Seeds(config.world_seed).child("arithmetic")', 'self._world = seeds.child("arithmetic")', "every_seed_is_judged_alike"),
    Fault("one prompt too few", WORLD, 'self._sample("train", self.config.train_prompts,', 'self._sample("train", self.config.train_prompts - 1,', "limits_hold"),
    Fault("twins of a sum on both sides", "data=arithmetic", 'return f"{low}+{high}"', 'return f"{self.left}+{self.right}"', "data_are_as_stated", "alignbench_verify.arithmetic.sums"),
    Fault("the demonstrator errs half as often", "data=arithmetic", "errs = rng.random() < self.config.demonstrator_errs", "errs = rng.random() < self.config.demonstrator_errs / 2", "data_are_as_stated"),
    Fault("uncovered responses in rankings", "data=exact", 'everything = [r for r in self.responses() if r not in prompt.info["uncovered"]]', "everything = list(self.responses())", "data_are_as_stated"),
    Fault("rankings without noise", "data=exact", "self.reward(prompt, text, finished=end) - math.log(-math.log(rng.random()))", "self.reward(prompt, text, finished=end)", "data_are_as_stated"),
    Fault("rewards of deviation 2", "data=exact", ".gauss(0.0, 1.0)", ".gauss(0.0, 2.0)", "data_are_as_stated"),
    Fault("chosen and rejected exchanged in a file", "data=hh", "(p.chosen, p.rejected), (0, 1)", "(p.chosen, p.rejected), (1, 0)", "data_are_as_stated"),
    Fault("held-out prompts learnt from", "data=hh", "rest = [pair for pair in train if pair.prompt.id not in held_out_prompts]", "rest = list(train)", "what_is_held_out_teaches_nothing"),
    Fault("ranks that begin at 1", "data=hh", "(0, 1)) for p in", "(1, 2)) for p in", "rankings_are_whole"),
    Fault("probabilities left behind by dropped pairs", DPO, "torch.tensor(known, device=policy.device)[different]", "torch.tensor(known, device=policy.device)[: int(different.sum())]", "pairs_keep_what_is_known_of_them", EXPERIENCE),
    Fault("the reference's log-probability of the other side", DPO, "None if ref is None else ref[chosen],\n        None if ref is None else ref[rejected],", "None if ref is None else ref[rejected],\n        None if ref is None else ref[chosen],", "pairs_keep_what_is_known_of_them", EXPERIENCE),
    Fault("one order for every batch", PPO, 'order = functional.shuffled_batches(len(prompts), config.batch_size // n, seeds.torch("prompts"))', "order = iter([torch.arange(config.batch_size // n) % len(prompts)] * updates)", "nothing_comes_twice_before_all_came", EXPERIENCE),
    Fault("one generator for every batch", PPO, 'rng = seeds.torch(f"sampling {update}")', 'rng = seeds.torch("sampling")', "batches_are_drawn_anew", EXPERIENCE),
    Fault("good and bad exchanged", "algo=kto", "torch.arange(2 * count, device=policy.device) < count", "torch.arange(2 * count, device=policy.device) >= count", "labels_keep_what_is_known_of_them", EXPERIENCE),
    Fault("sampled at another temperature", PPO, "Sampling(temperature=config.temperature), n=n", "Sampling(), n=n", "rollouts_are_of_whom_it_asks", EXPERIENCE),
    Fault("the policy sampled in place of the reference", "algo=rejection_sampling", "role=config.samples_from, rng=rng", "rng=rng", "rollouts_are_of_whom_it_asks", EXPERIENCE),
    Fault("a paused stage begun at its first batch", SFT, "seeds.torch(\"order\"))\n    for rows in islice(batches, start, updates):\n        yield DemonstrationBatch", "seeds.torch(\"order\"))\n    for rows in islice(batches, 0, updates - start):\n        yield DemonstrationBatch", "batches_are_drawn_anew", EXPERIENCE),
    Fault("a probability below 0", "annotator=mild", "return 0.5 * (1 + math.tanh", "return 1.0 * (0 + math.tanh", "preference_is_a_probability"),
    Fault("noise of the global generator", "annotator=mild", "bits = self._seeds.integer(f\"{prompt.id}\\n{finished}\\n{response}\")", "bits = __import__('random').getrandbits(63)", "same_seed_same_ranks"),
    Fault("answers given back from the last", "annotator=judge", "        return ranks\n", "        return ranks[::-1]\n", "many_are_ranked_as_one"),
    Fault("a recorded ranking that begins at 1", "annotator=recorded", "self._rankings = list(data.rankings())", "self._rankings = [dataclasses.replace(r, ranks=tuple(k + 1 for k in r.ranks)) for r in data.rankings()]", "recorded_rankings_are_whole"),
    Fault("an option of a reward that is read nowhere", "reward=length", "self._scale = config.scale", "self._scale = 0.1", "options_change_scores"),
    Fault("a switch that is read nowhere", "reward=verify", "if not (answer.finished or self._config.unfinished):", "if not answer.finished:", "known_cases_get_their_scores", "alignbench_verify.verifier"),
    Fault("shares of opinions that are read nowhere", WORLD, "self.config.no_opinion, self.config.no_opinion + self.config.right_opinion", "0.4, 0.6", "options_change_the_data"),
    Fault("demonstrations of held-out prompts", "data=hh", "return [Demonstration(pair.prompt, pair.chosen) for pair in self._train]", "return [Demonstration(__import__('dataclasses').replace(pair.prompt, id='x' + pair.prompt.id), pair.chosen) for pair in (*self._train, *self._held_out)]", "held_out_conversations_teach_nothing"),
    Fault("a prompt that ends with the assistant", "data=hh", "return list({pair.prompt.id: pair.prompt for pair in pairs}.values())", "return [__import__('dataclasses').replace(p, messages=p.messages[:-1]) for p in {pair.prompt.id: pair.prompt for pair in pairs}.values()]", "something_is_said"),
    Fault("a vocabulary without full stops", WORLD, "build_tokenizer(vocabulary())", "build_tokenizer([w for w in vocabulary() if w != '.'])", "its_tokenizer_reads_its_texts"),
    Fault("accuracy of what is wrong", "evaluation=capability", '*per_prompt("capability/accuracy", unprompted, correct)', '*per_prompt("capability/accuracy", unprompted, lambda g: None if correct(g) is None else 1 - correct(g))', "better_verdicts_are_never_worse"),
    Fault("a sum in place of a share", OPTIMIZATION, "lambda g: float(g.finished)", "lambda g: 2.0 * float(g.finished)", "shares_are_shares"),
    Fault("scores beside the mean of all prompts", OPTIMIZATION, '*per_prompt("optimization/length", groups, lambda g: float(g.tokens))', '*per_prompt("optimization/length", groups, lambda g: g.tokens - sum(x.tokens for x in subject.generations) / len(subject.generations))', "prompts_are_scored_by_themselves"),
    Fault("a direction turned round", "evaluation=diversity", 'Direction.HIGHER, "share of responses that are different"', 'Direction.LOWER, "share of responses that are different"', "the_same_response_again_is_less_diverse", "alignbench_suite.text_measures.measures"),
    Fault("unlike responses taken for alike", "evaluation=diversity", "len(set(texts)) / len(texts)", "1 - len(set(texts)) / len(texts)", "the_same_response_again_is_less_diverse", "alignbench_suite.text_measures.measures"),
    Fault("the whole of the pairs again and again", DPO, "for rows in islice(batches, start, updates):\n        yield data.pairs.select", "for rows in islice((r % 5 for r in batches), start, updates):\n        yield data.pairs.select", "nothing_comes_twice_before_all_came", EXPERIENCE),
    Fault("one temperature for all", "annotator=mild", "(gap / (2 * self._config.temperature))", "(gap / (2 * 0.5))", "terms_make_the_utility"),
    Fault("wins of the shorter response", HELPFULNESS, "answers = iter(judge.compare([mine for mine, _ in asked], [theirs for _, theirs in asked]) if asked else ())", "answers = iter(judge.compare([theirs for _, theirs in asked], [mine for mine, _ in asked]) if asked else ())", "metrics_are_as_stated", "alignbench_suite.helpfulness.win_rate"),
    Fault("opinions that are turned round", WORLD, "Opinion.NONE if draw < no_opinion", "Opinion.NONE if draw > no_opinion", "options_change_the_data"),
    Fault("all prompts in pairs", "algo=kto", 'batches = functional.shuffled_batches(len(data.rows) // data.together, size, seeds.torch("order"))', "batches = functional.shuffled_batches(len(data.rows) // data.together, size, torch.default_generator)", "batches_are_drawn_anew", EXPERIENCE),
)  # fmt: skip


def original(fault: Fault) -> Component:
    kind, _, name = fault.component.partition("=")
    return registry().get(Kind(kind), name)


def faulty_module(fault: Fault) -> types.ModuleType:
    """The module with the fault, by itself."""
    source = inspect.getsource(importlib.import_module(fault.module))
    assert fault.old in source, f"{fault.name}: {fault.module} has no {fault.old!r}"
    return _module(fault.module, fault.name, source.replace(fault.old, fault.new))


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
    names = [name for name in sys.modules if name.startswith(f"{package}.")]
    names = [name for name in names if name != home and not name.endswith(".config") and _has_code(name)]
    return sorted(names, key=lambda name: _source(name).count(f"from {package}."))


def _has_code(name: str) -> bool:
    """An empty __init__.py has no source to read again."""
    return bool(linecache.getlines(getattr(sys.modules[name], "__file__", None) or ""))


def _source(name: str) -> str:
    return inspect.getsource(sys.modules[name])


def _module(name: str, fault: str, source: str) -> types.ModuleType:
    made = types.ModuleType("planted_" + "".join(c if c.isalnum() else "_" for c in f"{name} {fault}"))
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
