"""Faults of the algorithms that followed GRPO."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

DAPO, GDPO, GSPO, CISPO, SAPO = "algo=dapo", "algo=gdpo", "algo=gspo", "algo=cispo", "algo=sapo"
PLUS, BASELINE, MAXRL = "algo=reinforce_pp", "algo=reinforce_pp_baseline", "algo=maxrl"
RELATIVE = "alignbench_group.relative"
STATED = "steps_follow_the_stated_loss"

GROUP_FAULTS = (
    Fault("the lower clip at both ends", DAPO, "self._config.clip_ratio, self._config.clip_ratio_high)", "self._config.clip_ratio, None)", STATED),
    # A long response counts as often as it is long.
    Fault("sums of tokens divided by responses", DAPO, 'if self._config.divides_by == "token":', "if False:", STATED, RELATIVE),
    # The mean is diluted by what says nothing.
    Fault("groups without spread in the mean", DAPO, "return ~flat if self._config.leave_out_flat else torch.ones_like(flat)", "return torch.ones_like(flat)", "every_option_acts"),
    Fault("groups with spread left out", DAPO, "return ~flat if", "return flat if", STATED),
    Fault("tokens of groups without spread counted", DAPO, "(experience.lengths * experience.counted)[minibatch].sum()", "experience.lengths[minibatch].sum()", "metrics_are_what_they_are_called", RELATIVE),
    Fault("long responses rewarded", DAPO, "scores - overlong(lengths, longest", "scores + overlong(lengths, longest", "reaches_its_optimum"),
    # A price that grows with the length of a batch, not of a response.
    Fault("length counted in columns", DAPO, "mask.sum(1).to(scores)", "torch.full_like(scores, mask.shape[1])", STATED),
    Fault("buffer in tokens", DAPO, "buffer = config.overlong_buffer * longest", "buffer = config.overlong_buffer", STATED),
    Fault("overlong punishment without its bound", DAPO, ".clamp(0, 1)", ".clamp(max=1)", STATED),
    # GRPO, which is what it is not to be.
    Fault("parts summed before they are normalised", GDPO, "parts = batch.parts or RewardParts", "parts = RewardParts", STATED),
    Fault("weights before the deviation is taken", GDPO, "RewardParts(parts.names, parts.weights, torch.stack(worth, 1))", "RewardParts(parts.names, tuple(w / abs(w) for w in parts.weights), torch.stack(worth, 1))", STATED),
    Fault("the batch's deviation left out", GDPO, "if not config.scale_by_batch:", "if True:", STATED),
    Fault("the deviation of each group in place of the batch's", GDPO, "lambda groups: group_advantages(groups, None))", "lambda groups: group_advantages(groups, config.std_eps))", STATED),
    Fault("cut responses in the largest part", GDPO, "torch.cat([values, -cut], 1)", "torch.cat([values - cut, 0 * cut], 1)", STATED),
    Fault("KL in the reward added", GDPO, "scores - config.kl_coef * kl", "scores + config.kl_coef * kl", "reaches_its_optimum"),
    Fault("the lower clip at both ends", GSPO, "config.clip_ratio, config.clip_ratio_high)", "config.clip_ratio, None)", "every_option_acts"),
    # The ratio of RLOO: it leaves the clip with the first token.
    Fault("ratio of the whole response", GSPO, "functional.masked_mean(tokens, mask, dim=1)[:, None]", "functional.masked_sum(tokens, mask, dim=1)[:, None]", STATED),
    Fault("divided by the length once more", GSPO, "advantages = part.advantages[:, None]", "advantages = (weights * part.advantages)[:, None]", STATED),
    Fault("the sampler's weights left out", GSPO, "part.weights * (logprobs - logprobs.detach())", "(logprobs - logprobs.detach())", STATED),
    # The weight then has a gradient of its own.
    Fault("ratio differentiated", CISPO, "torch.exp(logprobs.detach() - part.logprobs)", "torch.exp(logprobs - part.logprobs)", STATED),
    Fault("ratio without its bound", CISPO, "ratio.clamp(max=limit)", "ratio", STATED),
    # What PPO does, and CISPO was made not to.
    Fault("tokens beyond the limit dropped", CISPO, "ratio.clamp(max=limit)", "torch.where(ratio > limit, 0.0, ratio)", STATED),
    Fault("surrogate in place of REINFORCE", CISPO, "* advantages * logprobs, mask", "* advantages * (logprobs - part.logprobs), mask", "metrics_are_what_they_are_called"),
    Fault("gates exchanged", SAPO, "advantages > 0, config.gate_positive, config.gate_negative", "advantages > 0, config.gate_negative, config.gate_positive", STATED),
    Fault("slope of 1 / 4 at a ratio of 1", SAPO, "* 4 / tau", "/ tau", STATED),
    Fault("gate of the log-ratio", SAPO, "tau * (ratio - 1)", "tau * (logprobs - part.logprobs)", STATED),
    Fault("one gate for both signs", SAPO, "config.gate_positive, config.gate_negative)", "config.gate_positive, config.gate_positive)", "every_option_acts"),
    # A token pays for what stood there before it.
    Fault("KL of the tokens before", PLUS, "paid.flip(1).cumsum(1).flip(1)", "paid.cumsum(1)", "reaches_its_optimum"),
    Fault("KL of the token alone", PLUS, "paid.flip(1).cumsum(1).flip(1)", "paid", "reaches_its_optimum"),
    Fault("advantages not normalised", PLUS, "functional.masked_whiten(returns, mask)", "returns", STATED),
    Fault("normalised over the padding", PLUS, "functional.masked_whiten(returns, mask)", "functional.masked_whiten(returns, torch.ones_like(mask))", "padding_makes_no_difference"),
    Fault("divided by responses", PLUS, "return float(experience.lengths[minibatch].sum())", "return float(len(minibatch))", STATED),
    Fault("mean of the batch as the baseline", BASELINE, "groups - groups.mean(1, keepdim=True)", "groups - groups.mean()", STATED),
    Fault("baseline that leaves the response out", BASELINE, "groups - groups.mean(1, keepdim=True)", "groups - (groups.sum(1, keepdim=True) - groups) / (groups.shape[1] - 1)", "reaches_its_optimum"),
    Fault("k3 in place of k2", BASELINE, '"k2")', '"k3")', STATED),
    Fault("KL in the reward and in the loss", BASELINE, "if self._kl_in_reward:\n            paid", "if True:\n            paid", STATED),
    # GRPO with another baseline for its penalty.
    Fault("divided by the deviation", MAXRL, "torch.where(rate > 0, rate, torch.ones_like(rate))", "(rate * (1 - rate)).sqrt().clamp(min=1e-3)", STATED),
    Fault("success of whatever is above 0", MAXRL, "scores > config.success_above", "scores > 0", "reaches_its_optimum"),
    Fault("penalty without its baseline", MAXRL, "leave_one_out(config.kl_coef * kl.reshape(-1, k)).reshape(-1)", "config.kl_coef * kl", STATED),
    Fault("penalty added", MAXRL, "worth.advantages - penalty", "worth.advantages + penalty", "reaches_its_optimum"),
    Fault("rate of the batch", MAXRL, "successes.mean(1, keepdim=True)", "successes.mean()", STATED),
)  # fmt: skip
