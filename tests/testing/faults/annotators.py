"""Faults to plant in annotators. What a newer one does wrong stands above it."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

MILD = "annotator=mild"
HONEST = "annotator=honest"
SYCOPHANTIC = "annotator=sycophantic"
BY_REWARD = "annotator=exact"
BY_JUDGE = "annotator=judge"
BY_REFERENCE = "annotator=reference"

ANNOTATORS = (
    Fault("noise of twice its scale", "annotator=mild", "return -self._config.temperature * math.log", "return -2 * self._config.temperature * math.log", "probability_agrees_with_frequency"),
    Fault("probability of the other response", "annotator=mild", "((one - other) / (2 *", "((other - one) / (2 *", "terms_make_the_utility"),
    Fault("temperature left out of the probability", "annotator=mild", "/ (2 * config.temperature))", "/ 2)", "probability_agrees_with_frequency"),
    Fault("the worst first", "annotator=mild", "sum(other > score for other in scores)", "sum(other < score for other in scores)", "probability_agrees_with_frequency"),
    Fault("agreement weighed as truth", "annotator=mild", '"agreement with the user", taste.b_agree', '"agreement with the user", taste.b_correct', "options_change_its_taste"),
    Fault("noise without a seed", "annotator=mild", "self._seeds.integer(about)", "Seeds(0).integer(about)", "another_seed_other_noise"),
    Fault("a probability below 0", "annotator=mild", "share * 0.5 * (1 + math.tanh", "share * 1.0 * (0 + math.tanh", "preference_is_a_probability"),
    Fault("noise of the global generator", "annotator=mild", "bits = self._seeds.integer(about)", "bits = __import__('random').getrandbits(63)", "same_seed_same_ranks"),
    Fault("probabilities that it says it knows", MILD, "return not self._config.rating_step", "return True", "preference_is_a_probability"),
    Fault("one temperature for all", "annotator=mild", "/ (2 * config.temperature))", "/ (2 * 0.5))", "probability_agrees_with_frequency"),
    # Exponential noise: rankings that no Bradley-Terry model explains.
    Fault("noise that is not Gumbel", MILD, "math.log(-math.log(self._uniform(", "math.log(abs(self._uniform(", "probability_agrees_with_frequency"),
    Fault("noise that is normal", "annotator=honest", "return -self._config.temperature * math.log(-math.log(self._uniform(", "return self._config.temperature * (__import__('statistics').NormalDist().inv_cdf(self._uniform(", "probability_agrees_with_frequency"),
    # One draw of noise for all responses to a prompt: rankings have none.
    Fault("noise that all responses share", HONEST, 'f"{prompt.id}\\n{finished}\\n{response}"', 'f"{prompt.id}"', "another_seed_other_noise"),
    Fault("noise that belongs to a place", "annotator=sycophantic", "self._noise(prompt, response, ended)\n            for response, ended in zip(responses, finished, strict=True)", "self._noise(prompt, str(place), ended)\n            for place, (response, ended) in enumerate(zip(responses, finished, strict=True))", "order_of_responses_is_irrelevant"),
    # Who is cut off is not seen for the second response.
    Fault("the first response's end for both", SYCOPHANTIC, "zip((first, second), finished, strict=True)", "zip((first, second), (finished[0], finished[0]), strict=True)", "terms_make_the_utility"),
    # Others rank, and the probability is that of this annotator alone.
    Fault("sycophants of whom the probability does not know", MILD, "(config.sycophants, SYCOPHANT)", "(config.sycophants, config)", "probability_agrees_with_frequency"),
    Fault("probability without whether it ended", "annotator=exact", "prompt, text, finished=end)", "prompt, text, finished=True)", "probability_agrees_with_frequency"),
    # P of the other response.
    Fault("probability of the other response", BY_REWARD, "math.exp(-next(rewards) + next(rewards))", "math.exp(next(rewards) - next(rewards))", "probability_agrees_with_frequency"),
    # Twice the noise that its probability tells of.
    Fault("twice the noise", BY_REWARD, "finished=response[1]) - math.log(", "finished=response[1]) - 2 * math.log(", "probability_agrees_with_frequency"),
    Fault("positions in place of ranks", "annotator=judge", "ranks.append(functional.ranks_of(wins))", "ranks.append(tuple(sorted(range(len(wins)), key=lambda k: -wins[k])))", "order_of_responses_is_irrelevant"),
    Fault("answers given back from the last", "annotator=judge", "        return ranks\n", "        return ranks[::-1]\n", "many_are_ranked_as_one"),
    # Both get what the first won.
    Fault("a pair that both win", BY_JUDGE, "wins[other] += 1 - won", "wins[other] += won", "order_of_responses_is_irrelevant"),
    Fault("wrong before right", "annotator=reference", "int(any(right) and not one)", "int(any(right) and one)", "one_rank_a_response"),
    # A right answer that was cut off in the middle counts.
    Fault("ends not looked at", BY_REFERENCE, "Answer(prompt, *row) for row in zip(responses, finished, strict=True)", "Answer(prompt, text, True) for text in responses", "options_change_its_taste"),
    Fault("a file's rankings upside down", "annotator=recorded", "rankings = [record for record in records if isinstance(record, Ranking)]", "rankings = [dataclasses.replace(record, ranks=record.ranks[::-1]) for record in records if isinstance(record, Ranking)]", "ranks_are_as_stated"),
    Fault("a recorded ranking that begins at 1", "annotator=recorded", "self._rankings = list(data.rankings())", "self._rankings = [dataclasses.replace(r, ranks=tuple(k + 1 for k in r.ranks)) for r in data.rankings()]", "recorded_rankings_are_whole"),
)  # fmt: skip
