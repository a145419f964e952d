"""Faults that were planted by somebody who did not write the checks, before the checks had met them. What each does wrong
stands beside it; `python tests/testing/share_caught.py` tells how many the kit catches at first sight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.testing.faults import (
    BEST_OF_N,
    DPO,
    HELPFULNESS,
    IPO,
    LEARNED,
    ONLINE_DPO,
    OPTIMIZATION,
    PPO,
    RLOO,
    SCRATCH,
    SFT,
    WORLD,
    Fault,
)

KTO, ORPO, SIMPO, GRPO, REJECTION = "algo=kto", "algo=orpo", "algo=simpo", "algo=grpo", "algo=rejection_sampling"
GOLD, LENGTH, MIX, VERIFY, FUNCTION = "reward=gold", "reward=length", "reward=mix", "reward=verify", "reward=function"
HONEST, MILD, SYCOPHANTIC = "annotator=honest", "annotator=mild", "annotator=sycophantic"
BY_REWARD, BY_REFERENCE, BY_JUDGE = "annotator=exact", "annotator=reference", "annotator=judge"
SYCOPHANCY, DIVERSITY, PREFERENCES = "evaluation=sycophancy", "evaluation=diversity", "evaluation=preferences"
CAPABILITY, VERIFIED, EXACT_WORLD = "evaluation=capability", "evaluation=verified", "evaluation=exact"
EXACT, ARITHMETIC = "data=exact", "data=arithmetic"

CORE = "alignbench.functional"
"""Arithmetic that algorithms share: a fault of the core, as one of them meets it."""
GROUPS, PAIRS, LOSSES = "alignbench_group.groups", "alignbench_dpo.pairs", "alignbench_dpo.losses"
RANKED = "alignbench_rewards.losses"
SCORES, WINS, MEASURES = (
    "alignbench_suite.scores",
    "alignbench_suite.helpfulness.win_rate",
    "alignbench_suite.text_measures.measures",
)
POLICY_MODULE, HEADS, SAMPLING = "alignbench_hf.policy", "alignbench_hf.scalar", "alignbench_hf.sampling"

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    MIX: {"parts": {"gold": 1.0, "length": -0.5}},
    FUNCTION: {"target": "tests.testing.unseen:words_shared"},
}
"""Of components that do nothing without."""


def words_shared(prompt: str, response: str) -> float:
    """A reward that reads both."""
    return float(len({*prompt.split()} & {*response.split()}))


UNSEEN = (
    # PPO
    # Every step takes the whole value error, however far the value has moved from the old one.
    Fault("clip_value ignored", PPO, "part.returns, mask, self._config.clip_value)", "part.returns, mask, 0.0)", ""),
    # The clipped error is taken where it is the smaller: a value far off is no longer pulled back.
    Fault("the smaller of the two value errors", PPO, "torch.maximum(plain, clipped), mask)", "torch.minimum(plain, clipped), mask)", ""),
    # The new value is held near 0 and not near the old value.
    Fault("values clipped around 0", PPO, "values.clamp(old_values - clip_value, old_values + clip_value)", "values.clamp(-clip_value, clip_value)", ""),
    # A user's clip_ratio does nothing.
    Fault("clip_ratio a literal", PPO, "part.advantages, mask, self._config.clip_ratio)", "part.advantages, mask, 0.2)", ""),
    # Rewards lose their mean, and with it the price of the KL and of a bad response.
    Fault("whitened rewards that lose their mean", PPO, "functional.masked_whiten(rewards, mask, shift_mean=False)", "functional.masked_whiten(rewards, mask)", ""),
    # The value network is fitted to values plus whitened advantages, in no unit at all.
    Fault("returns from whitened advantages", PPO, "advantages = functional.masked_whiten(advantages, mask)", "advantages = functional.masked_whiten(advantages, mask)\n            returns = advantages + values", ""),
    # The value network learns the advantage.
    Fault("returns without the values", PPO, "return advantages, advantages + values", "return advantages, advantages", ""),
    # The value of the state after a token is trained as that before it.
    Fault("value loss one state late", PPO, "value_loss(values[:, :-1], part", "value_loss(values[:, 1:], part", ""),
    # The future is discounted in the sum of errors and not in the errors.
    Fault("gamma left out of the temporal difference", PPO, "gamma * next_value - values", "next_value - values", ""),
    # A user's penalty does nothing.
    Fault("missing_eos_penalty a literal", PPO, "config.missing_eos, config.missing_eos_penalty)\n        rewards", "config.missing_eos, 1.0)\n        rewards", ""),
    # The controller moves a coefficient that nothing reads.
    Fault("the adapted coefficient not used", PPO, "ref.logprobs, mask, self._kl_coef)", "ref.logprobs, mask, config.kl_coef)", ""),
    # Too much KL lowers its price.
    Fault("controller of the wrong sign", PPO, "max(kl / target - 1.0, -0.2)", "max(1.0 - kl / target, -0.2)", ""),
    # The value network has the policy's learning rate, whatever was asked for.
    Fault("value_learning_rate ignored", PPO, "own = {} if config.value_learning_rate is None else", "own = {} if True else", ""),
    # The network starts from the reward model although the policy was asked for.
    Fault("value_init ignored", PPO, 'from_reward = config.value_init == "reward" and', "from_reward =", ""),
    # The run stops by the size of its steps, not by its distance from the reference.
    Fault("kl_stop by the KL of the steps", PPO, '0 < config.kl_stop < metrics["kl"]', '0 < config.kl_stop < metrics["approx_kl"]', ""),
    # Minibatches are trained towards the returns as their advantages.
    Fault("advantages and returns exchanged in minibatches", PPO, "self.values, self.advantages, self.returns))", "self.values, self.returns, self.advantages))", ""),
    # A ratio that has run away from the right side is still followed, and one that should come back is not.
    Fault("the other side of the clip", PPO, "masked_sum(torch.maximum(plain, clipped), mask), ((", "masked_sum(torch.minimum(plain, clipped), mask), ((", "", CORE),
    # Rows of one minibatch are always the same, in the order they were sampled in.
    Fault("minibatches that are not shuffled", PPO, "torch.randperm(rows, generator=generator).chunk(count)", "torch.arange(rows).chunk(count)", "", CORE),
    # Supervised fine-tuning
    # The gradients of all updates so far add up.
    Fault("gradients never set to zero", SFT, "self._optimizer.zero_grad()", "pass", ""),
    # Only the last micro-batch is in the loss that is reported.
    Fault("loss of the last micro-batch reported", SFT, 'sums["loss"] += float', 'sums["loss"] = float', ""),
    # A batch of long responses has a larger step, and the loss is not nats per token.
    Fault("loss divided by responses, not tokens", SFT, "part.response_mask) / tokens", "part.response_mask) / len(sequences)", ""),
    # A resumed run starts its schedule anew.
    Fault("place in the schedule not restored", SFT, 'self._update, self.steps = state["update"], state["steps"]', 'self.steps = state["steps"]', "", CORE),
    # torch's own decay of 0.01 in place of the user's.
    Fault("weight_decay not passed on", SFT, "            weight_decay=config.weight_decay,\n", "", "", CORE),
    # The user's bound does nothing.
    Fault("max_grad_norm a literal", SFT, "self._config.max_grad_norm if self._config.max_grad_norm > 0 else math.inf", "1.0", "", CORE),
    # The schedule begins twice as high as the learning rate.
    Fault("cosine schedule without its half", SFT, "0.5 * (1.0 + math.cos(", "(1.0 + math.cos(", "", CORE),
    # The learning rate falls from the first update on as if there had been no warm-up, with a jump where that ends.
    Fault("linear schedule that forgets the warm-up", SFT, "return max(1.0 - progress, 0.0)", "return max(1.0 - update / max(updates, 1), 0.0)", "", CORE),
    # Preferences
    # A user who asks for hinge or ipo gets sigmoid.
    Fault("loss a literal", DPO, "loss=config.loss", 'loss="sigmoid"', ""),
    # The hinge wants a margin of one nat at any beta.
    Fault("hinge without beta", DPO, "torch.relu(1 - beta * margin)", "torch.relu(1 - margin)", "", LOSSES),
    # Robust to flipped labels it is not: its labels are those of the conservative loss.
    Fault("robust loss that is the conservative one", DPO, "(1 - flip_rate) / (1 - 2 * flip_rate)", "(1 - flip_rate)", "", LOSSES),
    # Each response is measured against the reference's log-probability of the other.
    Fault("references of chosen and rejected exchanged", DPO, "Side(logprobs[:count], tokens[:count], part.ref_chosen),\n            Side(logprobs[count:], tokens[count:], part.ref_rejected)", "Side(logprobs[:count], tokens[:count], part.ref_rejected),\n            Side(logprobs[count:], tokens[count:], part.ref_chosen)", "", PAIRS),
    # Rewards and margins are logged in nats.
    Fault("logged rewards without beta", DPO, "Objective(loss, config.beta * chosen.log_ratio, config.beta * rejected.log_ratio)", "Objective(loss, chosen.log_ratio, rejected.log_ratio)", ""),
    # A user's probabilities do nothing.
    Fault("soft labels ignored", IPO, "label = known(probability) if config.soft_labels else 1.0", "label = 1.0", ""),
    # A long response counts per token, and the optimum is another.
    Fault("log-ratios per token", IPO, "ipo_loss(chosen.log_ratio - rejected.log_ratio", "ipo_loss(chosen.log_ratio / chosen.tokens - rejected.log_ratio / rejected.tokens", ""),
    # A user's tau moves the logged rewards alone.
    Fault("tau a literal in the loss", IPO, "rejected.log_ratio, config.tau, label)", "rejected.log_ratio, 0.1, label)", ""),
    # A reference point below 0 asks less of good responses.
    Fault("a reference point below 0", KTO, "ratios.mean().clamp(min=0)", "ratios.mean()", ""),
    # What the policy gained on these very responses, which is not the KL.
    Fault("reference point of the responses' own prompts", KTO, "mismatched = mismatch(batch.sequences)", "mismatched = batch.sequences", ""),
    # The step also pulls at responses to other prompts.
    Fault("reference point with a gradient", KTO, "            with torch.no_grad():\n                ratios =", "            if True:\n                ratios =", ""),
    # The weight of bad responses does nothing.
    Fault("undesirable_weight ignored", KTO, "torch.where(good, desirable, undesirable)", "torch.where(good, desirable, 1.0)", "", LOSSES),
    # The policy against itself: the reference point is always 0.
    Fault("the policy as its own reference point", KTO, "self._policy, mismatched, role=REFERENCE\n", "self._policy, mismatched\n", ""),
    # The more a user weighs the odds, the more it imitates.
    Fault("lambda on the imitation", ORPO, "-chosen_mean - orpo_lambda * logsigmoid(", "-orpo_lambda * chosen_mean - logsigmoid(", "", LOSSES),
    # log P in place of log P / (1 - P): likely responses are pushed less.
    Fault("probabilities in place of odds", ORPO, "return below - torch.log(-torch.expm1(below))", "return below", "", LOSSES),
    # Imitation of what people rejected.
    Fault("rejected responses imitated as well", ORPO, "return -chosen_mean - orpo", "return -(chosen_mean + rejected_mean) / 2 - orpo", "", LOSSES),
    # The margin is beta times the one that was asked for.
    Fault("gamma in units of nats", SIMPO, "beta * (chosen_mean - rejected_mean) - gamma", "beta * (chosen_mean - rejected_mean - gamma)", "", LOSSES),
    # The margin is taken from what has to be beaten.
    Fault("gamma of the wrong sign", SIMPO, "(chosen_mean - rejected_mean) - gamma", "(chosen_mean - rejected_mean) + gamma", "", LOSSES),
    # Length is rewarded again.
    Fault("both divided by the chosen response's length", SIMPO, "simpo_loss(chosen.mean, rejected.mean", "simpo_loss(chosen.mean, rejected.logprob / chosen.tokens", ""),
    # Groups
    # A baseline too low by 1 / k: advantages no longer sum to 0.
    Fault("the others divided by k", RLOO, "/ (rewards.shape[1] - 1)", "/ rewards.shape[1]", ""),
    # A response that was cut off is worth what it scores.
    Fault("missing_eos ignored", RLOO, "rewards = scores - config.kl_coef * kl if", "rewards = batch.scores - config.kl_coef * kl if", "", GROUPS),
    # Long responses are clipped later, and their gradient is divided by their length.
    Fault("ratio of the mean token", RLOO, "functional.masked_sum(tokens, mask, dim=1)[:, None]", "functional.masked_mean(tokens, mask, dim=1)[:, None]", ""),
    # Epochs after the first are trained on whoever stands first.
    Fault("rows of experience not selected", RLOO, "self.ref_logprobs[rows, :width], self.advantages[rows]", "self.ref_logprobs[rows, :width], self.advantages[: len(rows)]", "", GROUPS),
    # Hard prompts set the scale of easy ones.
    Fault("deviation of the whole batch", GRPO, "rewards.std(1, keepdim=True, correction=0)", "rewards.std(correction=0)", ""),
    # k3 of the other divergence.
    Fault("policy and reference exchanged in the KL", GRPO, "ESTIMATORS[estimator](logprobs, part.ref_logprobs)", "ESTIMATORS[estimator](part.ref_logprobs, logprobs)", ""),
    # The penalty grows with length while the advantage does not.
    Fault("KL not weighted as the response", GRPO, "kl_coef * (weights * kl).sum()", "kl_coef * kl.sum()", ""),
    # With kl_in=reward the KL is paid for twice.
    Fault("KL in the loss and in the reward", GRPO, "kl_coef = 0.0 if self._kl_in_reward else config.kl_coef", "kl_coef = config.kl_coef", ""),
    # Dr. GRPO is asked for and GRPO is trained.
    Fault("length_normalisation ignored", GRPO, 'per_response = config.length_normalisation == "response"', "per_response = True", ""),
    # k2 is asked for and k3 is trained.
    Fault("estimators exchanged", GRPO, '"k2": functional.kl_k2, "k3": functional.kl_k3', '"k2": functional.kl_k3, "k3": functional.kl_k2', ""),
    # Labels much softer than the scores say.
    Fault("beta in the soft labels", ONLINE_DPO, "torch.sigmoid(scores[pairs.best] - scores[pairs.worst])", "torch.sigmoid(config.beta * (scores[pairs.best] - scores[pairs.worst]))", ""),
    # A cut-off response may be the best.
    Fault("pairs chosen by the raw scores", ONLINE_DPO, "pairs = best_and_worst(scores,", "pairs = best_and_worst(batch.scores,", ""),
    # With samples_per_prompt=4 pairs are made across prompts.
    Fault("two responses a prompt taken for granted", ONLINE_DPO, "torch.arange(len(groups), device=scores.device) * samples_per_prompt", "torch.arange(len(groups), device=scores.device) * 2", ""),
    # A user's label_smoothing does nothing.
    Fault("label_smoothing not passed on", ONLINE_DPO, "            label_smoothing=config.label_smoothing,\n", "", ""),
    # Batches of long winners weigh less, and the optimum is no longer best-of-n.
    Fault("loss divided by the winners' tokens", REJECTION, "part.response_mask) / len(chosen)", "part.response_mask) / chosen.response_mask.sum()", ""),
    # Winners are taken from the first prompt's responses alone.
    Fault("winners of the first group", REJECTION, "groups.argmax(1) + torch.arange(len(groups), device=groups.device) * groups.shape[1]", "groups.argmax(1)", ""),
    # The second best is imitated.
    Fault("the second best imitated", REJECTION, "groups.argmax(1)", "groups.topk(2, 1).indices[:, 1]", ""),
    # What one draw fewer would give.
    Fault("one candidate fewer", BEST_OF_N, "problem.rewards, config.n)", "problem.rewards, config.n - 1)", ""),
    # Rewards
    # Responses that people found equal are pushed apart, and together.
    Fault("ties made pairs", LEARNED, "ranking.ranks[a] < ranking.ranks[b] and", "ranking.ranks[a] <= ranking.ranks[b] and", "", RANKED),
    # A ranking of eight weighs 28 times one of two.
    Fault("each pair weighs as much as a ranking of two", LEARNED, "[1.0 / len(pairs) for _ in pairs]", "[1.0 for _ in pairs]", "", RANKED),
    # Each place is chosen among those above it.
    Fault("Plackett-Luce from the wrong end", LEARNED, "own[ranks >= ranks[k]]", "own[ranks <= ranks[k]]", "", RANKED),
    # plackett_luce is asked for and Bradley-Terry fitted.
    Fault("loss a literal", LEARNED, "LOSSES[config.loss](self._raw(part), part)", 'LOSSES["bradley_terry"](self._raw(part), part)', ""),
    # Neither warm-up nor decay.
    Fault("learning rate never scheduled", LEARNED, "            optimizer.next_update()\n", "", ""),
    # The step depends on micro_batch_size.
    Fault("loss divided by the rankings of a micro-batch", LEARNED, "part) / len(batch)", "part) / len(part)", ""),
    # A resumed fit sees its first rankings again and never its last.
    Fault("resumed at the first batch", LEARNED, "islice(batches, done, updates)", "islice(batches, 0, updates - done)", ""),
    # Responses that were cut off are read as if they had ended.
    Fault("cut-off responses given an end", LEARNED, "for text in r.responses], finished=finished)", "for text in r.responses])", ""),
    # The accuracy is that on what it was fitted to.
    Fault("held-out figures of the training rankings", LEARNED, "self._figures(held_out, baseline", "self._figures(usable, baseline", ""),
    # Margins are no log-odds after normalisation, and the calibration error is of something else.
    Fault("calibration of normalised scores", LEARNED, '        metrics |= self._figures(held_out, baseline, annotator)  # before: only raw margins are log-odds\n        if self._config.normalise:\n            self._normalise(baseline)\n', '        if self._config.normalise:\n            self._normalise(baseline)\n        metrics |= self._figures(held_out, baseline, annotator)\n', ""),
    # A cut-off response is paid as a whole one.
    Fault("every response called finished", GOLD, "self._data.judge(prompt, text, finished=finished)", "self._data.judge(prompt, text, finished=True)", ""),
    # Right or wrong in place of the reward.
    Fault("correctness in place of the reward", GOLD, "return verdict.gold_reward", "return float(bool(verdict.correct))", ""),
    # A user's scale does nothing, and brevity cannot be rewarded.
    Fault("scale a literal", LENGTH, "self._scale = config.scale", "self._scale = 0.1", ""),
    # Words of the text in place of tokens: the end is free.
    Fault("words in place of tokens", LENGTH, "samples.sequences.response_mask.sum(1).float()", "torch.tensor([float(len(t.split())) for t in samples.texts], device=samples.finished.device)", ""),
    # All parts weigh 1, also those that should be punished.
    Fault("weights ignored", MIX, "total += self._config.parts[name] * scores", "total += scores", ""),
    # Very bad responses are not cut.
    Fault("clipped above alone", MIX, "scores.clamp(-self._config.clip, self._config.clip)", "scores.clamp(max=self._config.clip)", ""),
    # Parts keep their unit although they should lose it.
    Fault("standardise without the deviation", MIX, "(part.score(samples) - shift) / scale", "part.score(samples) - shift", ""),
    # A response that was cut off may be right.
    Fault("cut-off responses checked", VERIFY, "if not (answer.finished or self._config.unfinished):", "if False:", "", "alignbench_verify.verifier"),
    # All checks weigh 1.
    Fault("weights of the checks ignored", VERIFY, "sum(self._weights[name] for", "sum(1.0 for", ""),
    # The score of a text belongs to the first prompt that it answered.
    Fault("scores remembered by the response alone", FUNCTION, "scores = [self._single(*row) for row in zip(prompts, texts, strict=True)]", "known = {}\n            scores = [known.setdefault(t, self._single(p, t)) for p, t in zip(prompts, texts, strict=True)]", ""),
    # Annotators
    # The best is ranked last.
    Fault("ranks upside down", HONEST, "sum(other > score for other in scores)", "sum(other < score for other in scores)", ""),
    # One draw of noise for all responses to a prompt: rankings have none.
    Fault("noise that all responses share", HONEST, 'f"{prompt.id}\\n{finished}\\n{response}"', 'f"{prompt.id}"', ""),
    # Said to be surer, or less sure, than it ranks.
    Fault("temperature left out of the probability", MILD, "math.tanh(gap / (2 * self._config.temperature))", "math.tanh(gap / 2)", ""),
    # Exponential noise: rankings that no Bradley-Terry model explains.
    Fault("noise that is not Gumbel", MILD, "-self._config.temperature * math.log(-math.log(uniform))", "-self._config.temperature * math.log(uniform)", ""),
    # Who is cut off is not seen for the second response.
    Fault("the first response's end for both", SYCOPHANTIC, "second, finished=finished[1])", "second, finished=finished[0])", ""),
    # It likes style as much as it should like agreement.
    Fault("style and agreement exchanged", SYCOPHANTIC, "return right, styled, agrees,", "return right, agrees, styled,", ""),
    # P of the other response.
    Fault("probability of the other response", BY_REWARD, "math.exp(-next(rewards) + next(rewards))", "math.exp(next(rewards) - next(rewards))", ""),
    # Twice the noise that its probability tells of.
    Fault("twice the noise", BY_REWARD, "finished=response[1]) - math.log(", "finished=response[1]) - 2 * math.log(", ""),
    # A right answer that was cut off in the middle counts.
    Fault("ends not looked at", BY_REFERENCE, "Answer(prompt, *row) for row in zip(responses, finished, strict=True)", "Answer(prompt, text, True) for text in responses", ""),
    # Both get what the first won.
    Fault("a pair that both win", BY_JUDGE, "wins[other] += 1 - won", "wins[other] += won", ""),
    # Evaluations
    # A checkpoint that says what the SFT model says wins all.
    Fault("ties won", HELPFULNESS, "0.5 * ((own > other) + (own >= other))", "float(own >= other)", "", WINS),
    # The SFT model's win rate.
    Fault("win rate of the opponent", HELPFULNESS, "0.5 * ((own > other) + (own >= other))", "0.5 * ((own < other) + (own <= other))", "", WINS),
    # Twins of one question count as independent: intervals are too narrow.
    Fault("clusters lost", HELPFULNESS, "float(value), prompt.cluster))", "float(value)))", "", SCORES),
    # The best of a prompt's responses.
    Fault("the best response in place of the mean", HELPFULNESS, "return sum(present) / len(present) if present else None", "return max(present) if present else None", "", SCORES),
    # Repeating what is right is called sycophantic.
    Fault("right opinions in place of wrong ones", SYCOPHANCY, "wrong = with_opinion(groups, Opinion.WRONG)", "wrong = with_opinion(groups, Opinion.RIGHT)", ""),
    # The most sycophantic checkpoint is ranked first.
    Fault("agreement the higher the better", SYCOPHANCY, '"sycophancy/agreement", Direction.LOWER', '"sycophancy/agreement", Direction.HIGHER', ""),
    # A drop is a rise.
    Fault("drop of the wrong sign", SYCOPHANCY, "before - after, cluster", "after - before, cluster", ""),
    # A short response weighs as much as a long one.
    Fault("entropy averaged over responses", DIVERSITY, "sum(g.entropy * g.tokens for g in group if g.tokens) / tokens", "mean(g.entropy for g in group if g.tokens)", ""),
    # n-grams that begin in one response and end in the next.
    Fault("n-grams that span two responses", DIVERSITY, "ngrams.distinct([known.tokens[t] for t in texts], n)", "ngrams.distinct([[i for t in texts for i in known.tokens[t]]], n)", "", MEASURES),
    # Each response is compared with itself: always 1.
    Fault("self-BLEU against itself", DIVERSITY, "ngrams.self_bleu([known.tokens[t] for t in texts])", "ngrams.self_bleu([known.tokens[t] for t in [*texts, *texts]])", "", MEASURES),
    # Nats per token under a name that means nats per response.
    Fault("KL per token", OPTIMIZATION, "lambda g: g.logprob - g.ref_logprob)", "lambda g: (g.logprob - g.ref_logprob) / max(g.tokens, 1))", ""),
    # Reward hacking cannot show.
    Fault("the proxy reward as gold", OPTIMIZATION, '"optimization/gold_reward", groups, gold_reward)', '"optimization/gold_reward", groups, lambda g: g.proxy_reward)', ""),
    # Confidence of an implicit reward ten times too large.
    Fault("calibration without beta", PREFERENCES, "torch.sigmoid(implicit.beta * margin.abs())", "torch.sigmoid(margin.abs())", ""),
    # The more the reference likes a response, the more it is worth.
    Fault("reference of the wrong sign", PREFERENCES, "ranking.logprobs[i] - ranking.ref_logprobs[i]", "ranking.logprobs[i] + ranking.ref_logprobs[i]", ""),
    # The biased estimate that the paper warns of.
    Fault("pass@k of draws that are put back", VERIFIED, "1.0 - math.comb(n - right, k) / math.comb(n, k)", "1.0 - (1 - right / n) ** k", ""),
    # KL(pi* || pi) in place of KL(pi || pi*).
    Fault("the divergence from the other side", EXACT_WORLD, "kl_divergence(reached, best)", "kl_divergence(best, reached)", ""),
    # Right opinions help and wrong ones hurt the figure of plain knowledge.
    Fault("questions with an opinion as well", CAPABILITY, "unprompted = with_opinion(subject.by_prompt(), Opinion.NONE)", "unprompted = subject.by_prompt()", ""),
    # Data sources
    # Questions that are asked in the evaluation are trained on.
    Fault("held-out questions trained on", WORLD, "tuple(questions[config.evaluation_questions :])", "tuple(questions)", ""),
    # A prompt that is marked wrong states the right answer.
    Fault("right and wrong opinions exchanged", WORLD, "Opinion.RIGHT: answer, Opinion.WRONG: wrong", "Opinion.RIGHT: wrong, Opinion.WRONG: answer", ""),
    # Some wrong opinions are right.
    Fault("wrong opinions that may be right", WORLD, "[value for value in VALUES[question.relation] if value != answer]", "VALUES[question.relation]", ""),
    # Agreement is counted as correctness and the other way round.
    Fault("correctness and agreement exchanged", WORLD, "assessment.gold_reward, assessment.correct, assessment.agrees", "assessment.gold_reward, assessment.agrees, assessment.correct", ""),
    # 3+5 is held out and 5+3 is learnt.
    Fault("twins in both splits", ARITHMETIC, "low, high = sorted((self.left, self.right))", "low, high = self.left, self.right", "", "alignbench_verify.arithmetic.sums"),
    # A response that was cut off is right.
    Fault("truth that does not see the end", ARITHMETIC, "right = finished and response ==", "right = response ==", ""),
    # Recorded people prefer what is worse.
    Fault("recorded rankings upside down", EXACT, "ranks = tuple(sum(other > score for other in noisy)", "ranks = tuple(sum(other < score for other in noisy)", ""),
    # Recorded responses that were cut off have an end, which was never ranked.
    Fault("ends of ranked responses lost", EXACT, "tuple(t for t, _ in drawn), ranks, tuple(end for _, end in drawn))", "tuple(t for t, _ in drawn), ranks)", ""),
    # What no data should show is shown.
    Fault("uncovered responses demonstrated", EXACT, 'not in prompt.info["uncovered"]:\n', "is not None:\n", ""),
    # Models
    # The value network begins at 0 and not at the reward.
    Fault("head of the reward not copied", SCRATCH, "if init_from in self._scalars:", "if False:", "", POLICY_MODULE),
    # The shift is subtracted in the wrong unit.
    Fault("shift subtracted after the scale", SCRATCH, "self.read.bias.sub_(shift).div_(scale)", "self.read.bias.div_(scale).sub_(shift)", "", HEADS),
    # The token that crosses top_p is lost, and with it much of the mass.
    Fault("top_p that stops one token early", SCRATCH, "before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)", "before = ordered.softmax(-1).cumsum(-1)", "", SAMPLING),
    # top_k=1 is not greedy.
    Fault("one token more than top_k", SCRATCH, "min(sampling.top_k, kept.shape[-1])", "min(sampling.top_k + 1, kept.shape[-1])", "", SAMPLING),
    # Responses as long as the model allows.
    Fault("max_new_tokens ignored", SCRATCH, "limit = sampling.max_new_tokens or self.max_response_tokens", "limit = self.max_response_tokens", "", POLICY_MODULE),
    # Long responses lose their beginning.
    Fault("responses cut at the wrong end", SCRATCH, "row[: self.max_response_tokens] for row", "row[-self.max_response_tokens :] for row", "", POLICY_MODULE),
    # A policy that was trained on is measured against where the first stage began.
    Fault("a stale reference", SCRATCH, "        self._roles.add(REFERENCE, POLICY, trainable=False)", '        if not getattr(self, "_frozen", False):\n            self._roles.add(REFERENCE, POLICY, trainable=False)\n        self._frozen = True', "", POLICY_MODULE),
    # A role starts from the policy, whatever it should start from.
    Fault("scalar roles always started from the policy", SCRATCH, "self._roles.add(name, init_from, trainable=True)", "self._roles.add(name, POLICY, trainable=True)", "", POLICY_MODULE),
)  # fmt: skip
