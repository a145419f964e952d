"""Faults to plant in algorithms. What a newer one does wrong stands above it."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

PPO = "algo=ppo"
EXPERIENCE = "alignbench.pipeline.experience"
CORE = "alignbench.functional"
SFT = "algo=sft"
DPO = "algo=dpo"
SUMMED = "functional.summed_logprobs(self._policy, both, temperature=self._temperature)"
PAIRS = "alignbench_dpo.pairs"
IPO = "algo=ipo"
ONLINE_DPO = "algo=online_dpo"
RLOO = "algo=rloo"
GROUPS = "alignbench_group.groups"
BEST_OF_N = "algo=best_of_n"
KTO = "algo=kto"
LOSSES = "alignbench_dpo.losses"
REJECTION = "algo=rejection_sampling"
ORPO = "algo=orpo"
SIMPO = "algo=simpo"
GRPO = "algo=grpo"
RELATIVE = "alignbench_group.relative"

ALGORITHMS = (
    # Rewards
    Fault("the sampler's weights left out", PPO, "advantages = advantages * correction.weights", "pass", "steps_follow_the_stated_loss"),
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
    Fault("one order for every batch", PPO, 'order = functional.shuffled_batches(len(prompts), size, seeds.torch("prompts"))', "order = iter([torch.arange(size) % len(prompts)] * updates)", "nothing_comes_twice_before_all_came", EXPERIENCE),
    Fault("one generator for every batch", PPO, 'seeds.torch(f"sampling {update}")', 'seeds.torch("sampling")', "batches_are_drawn_anew", EXPERIENCE),
    Fault("sampled at another temperature", PPO, "Sampling(temperature=temperature, reference_share=source.reference_share)", "Sampling()", "rollouts_are_of_whom_it_asks", EXPERIENCE),
    # Every step takes the whole value error, however far the value has moved from the old one.
    Fault("clip_value ignored", PPO, "part.returns, mask, self._config.clip_value)", "part.returns, mask, 0.0)", "steps_follow_the_stated_loss"),
    # The clipped error is taken where it is the smaller: a value far off is no longer pulled back.
    Fault("the smaller of the two value errors", PPO, "torch.maximum(plain, clipped), mask)", "torch.minimum(plain, clipped), mask)", "steps_follow_the_stated_loss"),
    # The new value is held near 0 and not near the old value.
    Fault("values clipped around 0", PPO, "values.clamp(old_values - clip_value, old_values + clip_value)", "values.clamp(-clip_value, clip_value)", "metrics_are_what_they_are_called"),
    # A user's clip_ratio does nothing.
    Fault("clip_ratio a literal", PPO, "part.advantages, mask, self._config.clip_ratio)", "part.advantages, mask, 0.2)", "steps_follow_the_stated_loss"),
    # The value of the state after a token is trained as that before it.
    Fault("value loss one state late", PPO, "value_loss(values[:, :-1], part", "value_loss(values[:, 1:], part", "metrics_are_what_they_are_called"),
    # Minibatches are trained towards the returns as their advantages.
    Fault("advantages and returns exchanged in minibatches", PPO, "self.values, self.advantages, self.returns))", "self.values, self.returns, self.advantages))", "steps_follow_the_stated_loss"),
    # A ratio that has run away from the right side is still followed, and one that should come back is not.
    Fault("the other side of the clip", PPO, "masked_sum(torch.maximum(plain, clipped), mask), ((", "masked_sum(torch.minimum(plain, clipped), mask), ((", "steps_follow_the_stated_loss", CORE),
    # Rows of one minibatch are always the same, in the order they were sampled in.
    Fault("minibatches that are not shuffled", PPO, "torch.randperm(rows, generator=generator).chunk(count)", "torch.arange(rows).chunk(count)", "every_epoch_sees_each_row_once", CORE),
    # Supervised fine-tuning
    Fault("loss divided by the tokens of a micro-batch", SFT, ".logprobs, part.response_mask) / tokens", ".logprobs, part.response_mask) / part.response_mask.sum()", "micro_batches_change_memory_alone"),
    Fault("loss divided by each response's length", SFT, "functional.masked_sum(self._policy.logprobs(part).logprobs, part.response_mask) / tokens", "functional.masked_mean(self._policy.logprobs(part).logprobs, part.response_mask, dim=1).sum() / len(sequences)", "imitates_its_demonstrations"),
    Fault("loss divided by all columns", SFT, "tokens = sequences.response_mask.sum()", "tokens = sequences.response_mask.numel()", "padding_makes_no_difference"),
    Fault("end of the response not learnt", SFT, "self._policy.logprobs(part).logprobs, part.response_mask)", "self._policy.logprobs(part).logprobs, part.response_mask & (part.response_ids != 1))", "imitates_its_demonstrations"),
    Fault("learning rate never scheduled", SFT, "learning_rate = self._optimizer.next_update()", "learning_rate = 0.0", "learning_rate_follows_its_schedule"),
    Fault("weights decayed by hand", SFT, "norms = self._optimizer.step()", "norms = self._optimizer.step()\n        [p.data.mul_(0.99) for p in self._policy.trainable()]", "without_learning_rate_nothing_moves"),
    Fault("no step", SFT, "norms = self._optimizer.step()", 'norms = {"policy": 0.0}', "policy_moves"),
    Fault("a paused stage begun at its first batch", SFT, "seeds.torch(\"order\"))\n    for rows in islice(batches, start, updates):\n        yield DemonstrationBatch", "seeds.torch(\"order\"))\n    for rows in islice(batches, 0, updates - start):\n        yield DemonstrationBatch", "batches_are_drawn_anew", EXPERIENCE),
    # The gradients of all updates so far add up.
    Fault("gradients never set to zero", SFT, "self._optimizer.zero_grad()", "pass", "imitates_its_demonstrations"),
    # A batch of long responses has a larger step, and the loss is not nats per token.
    Fault("loss divided by responses, not tokens", SFT, "part.response_mask) / tokens", "part.response_mask) / len(sequences)", "metrics_are_what_they_are_called"),
    # A resumed run starts its schedule anew.
    Fault("place in the schedule not restored", SFT, 'self._update, self.steps = state["update"], state["steps"]', 'self.steps = state["steps"]', "goes_on_from_its_state", CORE),
    # The user's bound does nothing.
    Fault("max_grad_norm a literal", SFT, "self._config.max_grad_norm if self._config.max_grad_norm > 0 else math.inf", "1.0", "steps_are_those_of_adamw", CORE),
    # The schedule and its options are read by name: a default stands in for what the user chose.
    Fault("schedule that is always linear", SFT, "schedule=self._config.lr_schedule", 'schedule="linear"', "learning_rate_follows_its_schedule", CORE),
    # The learning rate falls from the first update on as if there had been no warm-up, with a jump where that ends.
    Fault("linear schedule that forgets the warm-up", SFT, "(update - warmup) / max(updates - warmup, 1)", "update / max(updates, 1)", "steps_are_those_of_adamw", CORE),
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
    Fault("probabilities left behind by dropped pairs", DPO, "torch.tensor(known, device=policy.device)[different]", "torch.tensor(known, device=policy.device)[: int(different.sum())]", "pairs_keep_what_is_known_of_them", EXPERIENCE),
    Fault("the reference's log-probability of the other side", DPO, "None if ref is None else ref[chosen],\n        None if ref is None else ref[rejected],", "None if ref is None else ref[rejected],\n        None if ref is None else ref[chosen],", "pairs_keep_what_is_known_of_them", EXPERIENCE),
    Fault("the whole of the pairs again and again", DPO, "for rows in islice(batches, start, updates):\n        yield data.pairs.select", "for rows in islice((r % 5 for r in batches), start, updates):\n        yield data.pairs.select", "nothing_comes_twice_before_all_came", EXPERIENCE),
    # A user who asks for hinge or ipo gets sigmoid.
    Fault("loss a literal", DPO, "loss=config.loss", 'loss="sigmoid"', "steps_follow_the_stated_loss"),
    # Each response is measured against the reference's log-probability of the other.
    Fault("references of chosen and rejected exchanged", DPO, "Side(logprobs[:count], tokens[:count], part.ref_chosen),\n            Side(logprobs[count:], tokens[count:], part.ref_rejected)", "Side(logprobs[:count], tokens[:count], part.ref_rejected),\n            Side(logprobs[count:], tokens[count:], part.ref_chosen)", "metrics_are_what_they_are_called", PAIRS),
    Fault("margin with a factor of its own", IPO, "(2 * probability - 1) / (2 * tau)", "(2 * probability - 1) / tau", "reaches_its_optimum", "alignbench_dpo.losses"),
    # A user's probabilities do nothing.
    Fault("soft labels ignored", IPO, "label = known(probability) if config.soft_labels else 1.0", "label = 1.0", "steps_follow_the_stated_loss"),
    # A long response counts per token, and the optimum is another.
    Fault("log-ratios per token", IPO, "ipo_loss(chosen.log_ratio - rejected.log_ratio", "ipo_loss(chosen.log_ratio / chosen.tokens - rejected.log_ratio / rejected.tokens", "metrics_are_what_they_are_called"),
    # A user's tau moves the logged rewards alone.
    Fault("tau a literal in the loss", IPO, "rejected.log_ratio, config.tau, label)", "rejected.log_ratio, 0.1, label)", "coefficient_pulls_to_the_reference"),
    Fault("KL from the sampler's log-probabilities", ONLINE_DPO, "functional.sequence_kl(own, ref, mask)", "functional.sequence_kl(batch.rollout.logprobs, ref, mask)", "kl_is_in_nats_per_response"),
    # Labels much softer than the scores say.
    Fault("beta in the soft labels", ONLINE_DPO, "torch.sigmoid(scores[pairs.best] - scores[pairs.worst])", "torch.sigmoid(config.beta * (scores[pairs.best] - scores[pairs.worst]))", "steps_follow_the_stated_loss"),
    # A cut-off response may be the best.
    Fault("pairs chosen by the raw scores", ONLINE_DPO, "pairs = self._pairs(scores)", "pairs = self._pairs(batch.scores)", "steps_follow_the_stated_loss"),
    # A user's label_smoothing does nothing.
    Fault("label_smoothing not passed on", ONLINE_DPO, "            label_smoothing=config.label_smoothing,\n", "", "steps_follow_the_stated_loss"),
    # Groups
    Fault("the sampler's weights on the ratio too", RLOO, "logprobs.detach() + part.weights * (logprobs - logprobs.detach())", "part.weights * logprobs", "steps_follow_the_stated_loss"),
    Fault("baseline of the neighbouring group", RLOO, "return rewards - others", "return rewards - others.roll(1, 0)", "order_makes_no_difference"),
    Fault("baseline as the advantage", RLOO, "return rewards - others", "return others", "reaches_its_optimum"),
    Fault("groups across prompts", RLOO, "groups = rewards.reshape(-1, size)", "groups = rewards.reshape(size, -1).T", "order_makes_no_difference", "alignbench_group.groups"),
    Fault("KL penalty added to the score", RLOO, "rewards = scores - self._config.kl_coef", "rewards = scores + self._config.kl_coef", "reaches_its_optimum"),
    Fault("minibatches drawn without a seed", RLOO, "torch.randperm(rows, generator=generator).chunk(count)", "torch.randperm(rows).chunk(count)", "same_seed_same_updates", "alignbench.functional"),
    # A baseline too low by 1 / k: advantages no longer sum to 0.
    Fault("the others divided by k", RLOO, "/ (rewards.shape[1] - 1)", "/ rewards.shape[1]", "metrics_are_what_they_are_called"),
    # A response that was cut off is worth what it scores.
    Fault("missing_eos ignored", RLOO, "scores = functional.shape_scores(batch.scores, samples.finished, config.missing_eos, config.missing_eos_penalty)", "scores = batch.scores", "reaches_its_optimum", GROUPS),
    # Long responses are clipped later, and their gradient is divided by their length.
    Fault("ratio of the mean token", RLOO, "functional.masked_sum(tokens, mask, dim=1)[:, None]", "functional.masked_mean(tokens, mask, dim=1)[:, None]", "metrics_are_what_they_are_called"),
    # Epochs after the first are trained on whoever stands first.
    Fault("rows of experience not selected", RLOO, "advantages = self.advantages[rows] if", "advantages = self.advantages[: len(rows)] if", "order_makes_no_difference", GROUPS),
    # Best-of-n
    Fault("a distribution that does not sum to 1", BEST_OF_N, "functional.best_of_n(problem.reference, problem.rewards, config.n)", "functional.best_of_n(problem.reference, problem.rewards, config.n) * config.n", "optimum_is_a_distribution"),
    Fault("the worst of n", BEST_OF_N, "best_of_n(problem.reference, problem.rewards, config.n)", "best_of_n(problem.reference, -problem.rewards, config.n)", "optimum_is_that_of_its_candidates"),
    # What one draw fewer would give.
    Fault("one candidate fewer", BEST_OF_N, "problem.rewards, config.n)", "problem.rewards, config.n - 1)", "optimum_is_that_of_its_candidates"),
    Fault("good and bad exchanged", "algo=kto", "torch.arange(2 * count, device=policy.device) < count", "torch.arange(2 * count, device=policy.device) >= count", "labels_keep_what_is_known_of_them", EXPERIENCE),
    Fault("all prompts in pairs", "algo=kto", 'batches = functional.shuffled_batches(len(data.rows) // data.together, size, seeds.torch("order"))', "batches = functional.shuffled_batches(len(data.rows) // data.together, size, torch.default_generator)", "batches_are_drawn_anew", EXPERIENCE),
    # The weight of bad responses does nothing.
    Fault("undesirable_weight ignored", KTO, "torch.where(good, desirable, undesirable)", "torch.where(good, desirable, 1.0)", "steps_follow_the_stated_loss", LOSSES),
    Fault("the policy sampled in place of the reference", "algo=rejection_sampling", "role=source.role,", "", "rollouts_are_of_whom_it_asks", EXPERIENCE),
    # Batches of long winners weigh less, and the optimum is no longer best-of-n.
    Fault("loss divided by the winners' tokens", REJECTION, "part.response_mask) / len(chosen)", "part.response_mask) / chosen.response_mask.sum()", "metrics_are_what_they_are_called"),
    # Winners are taken from the first prompt's responses alone.
    Fault("winners of the first group", REJECTION, "groups.argmax(1) + torch.arange(len(groups), device=groups.device) * groups.shape[1]", "groups.argmax(1)", "order_makes_no_difference"),
    # The second best is imitated.
    Fault("the second best imitated", REJECTION, "groups.argmax(1)", "groups.topk(2, 1).indices[:, 1]", "metrics_are_what_they_are_called"),
    # The more a user weighs the odds, the more it imitates.
    Fault("lambda on the imitation", ORPO, "-chosen_mean - orpo_lambda * logsigmoid(", "-orpo_lambda * chosen_mean - logsigmoid(", "metrics_are_what_they_are_called", LOSSES),
    # Imitation of what people rejected.
    Fault("rejected responses imitated as well", ORPO, "return -chosen_mean - orpo", "return -(chosen_mean + rejected_mean) / 2 - orpo", "metrics_are_what_they_are_called", LOSSES),
    # The margin is taken from what has to be beaten.
    Fault("gamma of the wrong sign", SIMPO, "(chosen_mean - rejected_mean) - gamma", "(chosen_mean - rejected_mean) + gamma", "metrics_are_what_they_are_called", LOSSES),
    # Length is rewarded again.
    Fault("both divided by the chosen response's length", SIMPO, "simpo_loss(chosen.mean, rejected.mean", "simpo_loss(chosen.mean, rejected.logprob / chosen.tokens", "metrics_are_what_they_are_called"),
    # Hard prompts set the scale of easy ones.
    Fault("the sampler's weights left out of the KL", GRPO, "part.ref_logprobs) * part.weights", "part.ref_logprobs)", "steps_follow_the_stated_loss", RELATIVE),
    Fault("deviation of the whole batch", GRPO, "rewards.std(1, keepdim=True, correction=0)", "rewards.std(correction=0)", "metrics_are_what_they_are_called", RELATIVE),
    # With kl_in=reward the KL is paid for twice.
    Fault("KL in the loss and in the reward", GRPO, "kl_coef = 0.0 if self._kl_in_reward else config.kl_coef", "kl_coef = config.kl_coef", "reaches_its_optimum", RELATIVE),
    # Dr. GRPO is asked for and GRPO is trained.
    Fault("length_normalisation ignored", GRPO, 'per_response = config.divides_by == "response"', "per_response = True", "steps_follow_the_stated_loss", RELATIVE),
    # k2 is asked for and k3 is trained.
    Fault("estimators exchanged", GRPO, '"k2": functional.kl_k2, "k3": functional.kl_k3', '"k2": functional.kl_k3, "k3": functional.kl_k2', "metrics_are_what_they_are_called", RELATIVE),
)  # fmt: skip
