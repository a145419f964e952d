"""Faults to plant in reward sources. What a newer one does wrong stands above it."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

LEARNED = "reward=learned"
RANKED, ENSEMBLE = "alignbench_rewards.losses", "alignbench_rewards.ensemble"
MIX = "reward=mix"
FUNCTION = "reward=function"
LENGTH = "reward=length"
GOLD = "reward=gold"
VERIFY = "reward=verify"

REWARDS = (
    # The learned reward
    Fault("score read at the last column", LEARNED, "values.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)", "values[:, -1]", "scores_do_not_depend_on_padding"),
    Fault("score read before the last token", LEARNED, "sequences.response_mask.sum(1, keepdim=True).long()", "(sequences.response_mask.sum(1, keepdim=True) - 2).clamp(min=0)", "fitting_predicts_rankings"),
    Fault("scores normalised within the batch", LEARNED, "return self._together(self._members(samples.sequences))\n", "scores = self._together(self._members(samples.sequences))\n        return scores - scores.mean()\n", "scores_do_not_depend_on_the_batch"),
    Fault("gradient kept", LEARNED, "    @torch.no_grad()\n    def _members", "    def _members", "scores_are_one_number_a_response"),
    Fault("head saved before it is normalised", LEARNED, "            role.save(folder)", "            role.rescale(-1.0, 0.5)\n            role.save(folder)\n            role.rescale(2.0, 2.0)", "saved_and_loaded_it_scores_alike"),
    Fault("scores normalised beside the head", LEARNED, "            standardise([role], member)\n", "            unit = float(member.mean()), float(member.std(correction=0))\n            self.score = lambda samples, unit=unit: (type(self).score(self, samples) - unit[0]) / unit[1]\n", "values_start_in_its_unit"),
    Fault("variance in place of its root", LEARNED, "deviation = float(scores.std(correction=0))", "deviation = float(scores.var(correction=0))", "normalised_on_its_baseline", ENSEMBLE),
    Fault("dropout while scoring", LEARNED, "return self._together(self._members(samples.sequences))\n", "return torch.nn.functional.dropout(self._together(self._members(samples.sequences)), 0.1)\n", "scoring_changes_nothing"),
    Fault("progress counted from 0", LEARNED, "progress(before + update, total", "progress(before + update - 1, total", "fitting_is_reported"),
    Fault("rankings drawn without a seed", LEARNED, 'seeds.torch("order")', "torch.default_generator", "fitting_is_repeatable"),
    Fault("loss with the wrong sign", LEARNED, "part_loss.backward()", "(-part_loss).backward()", "fitting_predicts_rankings"),
    # Rewards, annotators, evaluations, data and experience
    Fault("pairs that each weigh one", LEARNED, "weight += [1.0 / len(pairs) for _ in pairs]", "weight += [1.0 for _ in pairs]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("a tie taken for a pair", LEARNED, "if ranking.ranks[a] < ranking.ranks[b] and ranking.responses[a]", "if ranking.ranks[a] <= ranking.ranks[b] and a != b and ranking.responses[a]", "fitting_figures_are_as_stated", "alignbench_rewards.losses"),
    Fault("last place counted as a choice", LEARNED, "if ranking.ranks[k] < worst]", "if ranking.ranks[k] <= worst]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("tied responses chosen from what is left alone", LEARNED, "own[ranks >= ranks[k]]", "own[(ranks > ranks[k]) | (torch.arange(size) == k)]", "fitting_follows_its_loss", "alignbench_rewards.losses"),
    Fault("loss divided by the rankings of a micro-batch", LEARNED, "/ len(batch)\n", "/ len(part)\n", "micro_batches_fit_alike"),
    Fault("learning rate of a fit never scheduled", LEARNED, "            optimizer.next_update()\n", "            optimizer.next_update() if update == 1 else None\n", "fitting_follows_its_loss"),
    Fault("the same rankings in each update", LEARNED, "for update, rows in enumerate(islice(batches, done, updates), done + 1):", "first = next(batches)\n        for update, rows in enumerate([first] * (updates - done), done + 1):", "every_ranking_is_learnt_from_once_a_pass"),
    Fault("batches begun anew after a pause", LEARNED, "islice(batches, done, updates)", "islice(batches, 0, updates - done)", "fitting_goes_on_from_its_state"),
    Fault("moments left out of a fit's state", LEARNED, "            optimizer.load_state_dict(state[\"optimizer\"])\n", "", "fitting_goes_on_from_its_state"),
    Fault("rankings without a pair that count", LEARNED, "usable, held_out = with_pairs(rankings), with_pairs(held_out)", "usable, held_out = list(rankings), with_pairs(held_out)", "what_says_nothing_teaches_nothing"),
    Fault("figures of normalised scores", LEARNED, "margins = self._together(", "margins = 0.5 * self._together(", "fitting_figures_are_as_stated"),
    # Each place is chosen among those above it.
    Fault("Plackett-Luce from the wrong end", LEARNED, "own[ranks >= ranks[k]]", "own[ranks <= ranks[k]]", "fitting_follows_its_loss", RANKED),
    # plackett_luce is asked for and Bradley-Terry fitted.
    Fault("loss a literal", LEARNED, 'if config.loss == "plackett_luce":', "if False:", "fitting_follows_its_loss", RANKED),
    # The better by as much, however far apart.
    Fault("a margin of 1 whatever the ratings", LEARNED, "margin * pairs.rated.to(gap)", "margin", "fitting_follows_its_loss", RANKED),
    Fault("ratings the wrong way round", LEARNED, "ranking.scores[a] - ranking.scores[b]", "ranking.scores[b] - ranking.scores[a]", "fitting_follows_its_loss", RANKED),
    Fault("a price of disagreement that is read nowhere", LEARNED, "config.uncertainty * unit * members", "0.1 * unit * members", "options_change_scores", ENSEMBLE),
    # The accuracy is that on what it was fitted to.
    Fault("held-out figures of the training rankings", LEARNED, "self._figures(held_out, baseline", "self._figures(usable, baseline", "fitting_figures_are_as_stated"),
    Fault("a clip of one side alone", "reward=mix", "scores.clamp(-self._config.clip, self._config.clip)", "scores.clamp(max=self._config.clip)", "scores_are_as_stated"),
    Fault("weights left out of a mixture", "reward=mix", "tuple(self._config.parts[name] for name in self._parts)", "(1.0,) * len(self._parts)", "scores_are_as_stated"),
    # The log and whoever weighs parts by themselves would learn from another reward than the scores are.
    Fault("a score that its parts do not add up to", MIX, "return self.score_parts(samples).total()", "return self.score_parts(samples).values.sum(1)", "parts_add_up_to_the_score"),
    Fault("variance in place of the deviation of a part", "reward=mix", "deviation = float(scores.std(correction=0))", "deviation = float(scores.var(correction=0))", "scores_are_as_stated"),
    # Parts keep their unit although they should lose it.
    Fault("standardise without the deviation", MIX, "(part.score(samples) - shift) / scale", "part.score(samples) - shift", "scores_are_as_stated"),
    Fault("prompt and response exchanged", "reward=function", "return self._function(prompt, response)", "return self._function(response, prompt)", "scores_are_as_stated"),
    Fault("the first message in place of the last", "reward=function", "else prompt.text", "else prompt.id", "scores_are_as_stated"),
    # The score of a text belongs to the first prompt that it answered.
    Fault("scores remembered by the response alone", FUNCTION, "scores = [self._single(*row) for row in zip(prompts, texts, strict=True)]", "known = {}\n            scores = [known.setdefault(t, self._single(p, t)) for p, t in zip(prompts, texts, strict=True)]", "scores_are_as_stated"),
    Fault("EOS not counted", "reward=length", "response_mask.sum(1).float()", "response_mask.sum(1).sub(samples.finished.long()).float()", "scores_are_as_stated"),
    Fault("an option of a reward that is read nowhere", "reward=length", "self._scale = config.scale", "self._scale = 0.1", "options_change_scores"),
    # Words of the text in place of tokens: the end is free.
    Fault("words in place of tokens", LENGTH, "samples.sequences.response_mask.sum(1).float()", "torch.tensor([float(len(t.split())) for t in samples.texts], device=samples.finished.device)", "scores_are_as_stated"),
    Fault("every response taken for finished", "reward=gold", "finished=finished)\n        if verdict", "finished=True)\n        if verdict", "scores_are_as_stated"),
    # Right or wrong in place of the reward.
    Fault("correctness in place of the reward", GOLD, "return verdict.gold_reward", "return float(bool(verdict.correct))", "scores_are_as_stated"),
    Fault("a judge asked in one order", "reward=judge", "found[i] = (forward + 1 - backward) / 2", "found[i] = forward", "comparing_takes_no_side"),
    Fault("the verdict of the other order added", "reward=judge", "found[i] = (forward + 1 - backward) / 2", "found[i] = (forward + backward) / 2", "comparing_takes_no_side"),
    Fault("what was cut off is not told", "reward=judge", "return text if finished else", "return text if True else", "comparisons_are_as_stated"),
    Fault("cut responses checked all the same", "reward=verify", "if not (answer.finished or self._config.unfinished):", "if False:", "known_cases_get_their_scores", "alignbench_verify.verifier"),
    Fault("weights of failed checks", "reward=verify", "float(checks.get(name, False))", "float(not checks.get(name, True))", "known_cases_get_their_scores"),
    Fault("a switch that is read nowhere", "reward=verify", "if not (answer.finished or self._config.unfinished):", "if not answer.finished:", "known_cases_get_their_scores", "alignbench_verify.verifier"),
    # All checks weigh 1.
    Fault("weights of the checks ignored", VERIFY, "tuple(self._weights.values())", "(1.0,) * len(self._weights)", "known_cases_get_their_scores"),
)  # fmt: skip
