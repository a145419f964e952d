"""Faults to plant in data sources. What a newer one does wrong stands above it."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

WORLD = "data=world"
ARITHMETIC = "data=arithmetic"
EXACT = "data=exact"

DATA_SOURCES = (
    # Data sources
    Fault("demonstrations that nobody seeded", WORLD, 'self._seeds.python("demonstrator")', "random.Random()", "same_seed_same_data"),
    Fault("prompts of both splits that count alike", WORLD, 'f"evaluation/{question.id}/{opinion.value}"', 'f"train/{len(prompts):05d}"', "what_is_held_out_teaches_nothing"),
    Fault("ids that say too little", WORLD, 'f"lesson/{entity}-{relation}-{form}"', 'f"lesson/{entity}-{relation}"', "an_id_is_one_conversation"),
    Fault("truth about the evaluation alone", WORLD, "        assessment = self.assess(", "        if prompt.id.startswith('train'):\n            return None\n        assessment = self.assess(", "truth_is_known_of_all_or_of_none"),
    Fault("courtesies that cost nothing", WORLD, "- COURTESY_COST * max(0, self.courtesies - FREE_COURTESIES)", "", "data_are_as_stated", "alignbench_world.judge"),
    Fault("signs that do not count as length", WORLD, "length=len(tokens),", "length=sum(t[0].isalnum() for t in tokens),", "data_are_as_stated", "alignbench_world.judge"),
    Fault("cut responses worth as much", WORLD, "- UNFINISHED_COST * (not self.finished)", "", "data_are_as_stated", "alignbench_world.judge"),
    Fault("right and wrong opinions exchanged", WORLD, "Opinion.RIGHT: answer, Opinion.WRONG: wrong", "Opinion.RIGHT: wrong, Opinion.WRONG: answer", "verdicts_make_sense"),
    Fault("a demonstrator who never errs", WORLD, "elif rng.random() < config.demonstrator_errs:", "elif rng.random() < 0.15 * config.demonstrator_errs:", "data_are_as_stated", "alignbench_world.demonstrator"),
    Fault("one prompt too few", WORLD, 'self._sample("train", self.config.train_prompts,', 'self._sample("train", self.config.train_prompts - 1,', "limits_hold"),
    Fault("shares of opinions that are read nowhere", WORLD, "self.config.no_opinion, self.config.no_opinion + self.config.right_opinion", "0.4, 0.6", "options_change_the_data"),
    Fault("a vocabulary without full stops", WORLD, "build_tokenizer(vocabulary())", "build_tokenizer([w for w in vocabulary() if w != '.'])", "its_tokenizer_reads_its_texts"),
    Fault("opinions that are turned round", WORLD, "Opinion.NONE if draw < no_opinion", "Opinion.NONE if draw > no_opinion", "options_change_the_data"),
    # Questions that are asked in the evaluation are trained on.
    Fault("held-out questions trained on", WORLD, "tuple(questions[config.evaluation_questions :])", "tuple(questions)", "held_out_conversations_teach_nothing"),
    # Some wrong opinions are right.
    Fault("wrong opinions that may be right", WORLD, "[value for value in VALUES[question.relation] if value != answer]", "VALUES[question.relation]", "verdicts_make_sense"),
    # Agreement is counted as correctness and the other way round.
    Fault("correctness and agreement exchanged", WORLD, "assessment.gold_reward, assessment.correct, assessment.agrees", "assessment.gold_reward, assessment.agrees, assessment.correct", "verdicts_make_sense"),
    Fault("held out by the run's seed", "data=arithmetic", 'self._world = Seeds(config.world_seed).child("arithmetic")', 'self._world = seeds.child("arithmetic")', "every_seed_is_judged_alike"),
    Fault("twins of a sum on both sides", "data=arithmetic", 'return f"{low}+{high}"', 'return f"{self.left}+{self.right}"', "data_are_as_stated", "alignbench_verify.arithmetic.sums"),
    Fault("the demonstrator errs half as often", "data=arithmetic", "errs = rng.random() < self.config.demonstrator_errs", "errs = rng.random() < self.config.demonstrator_errs / 2", "data_are_as_stated"),
    # A response that was cut off is right.
    Fault("truth that does not see the end", ARITHMETIC, "right = finished and says_it(", "right = says_it(", "data_are_as_stated"),
    Fault("uncovered responses in rankings", "data=exact", 'everything = [r for r in self.responses() if r not in prompt.info["uncovered"]]', "everything = list(self.responses())", "data_are_as_stated"),
    Fault("rankings without noise", "data=exact", "self.reward(prompt, text, finished=end) - math.log(-math.log(rng.random()))", "self.reward(prompt, text, finished=end)", "data_are_as_stated"),
    Fault("rewards of deviation 2", "data=exact", ".gauss(0.0, 1.0)", ".gauss(0.0, 2.0)", "data_are_as_stated"),
    # Recorded people prefer what is worse.
    Fault("recorded rankings upside down", EXACT, "ranks = tuple(sum(other > score for other in noisy)", "ranks = tuple(sum(other < score for other in noisy)", "data_are_as_stated"),
    # What no data should show is shown.
    Fault("uncovered responses demonstrated", EXACT, 'not in prompt.info["uncovered"]:\n', "is not None:\n", "data_are_as_stated"),
    Fault("chosen and rejected exchanged in a file", "data=hh", "(p.chosen, p.rejected), (0, 1)", "(p.chosen, p.rejected), (1, 0)", "data_are_as_stated"),
    Fault("held-out prompts learnt from", "data=hh", "rest = [pair for pair in train if pair.prompt.id not in held_out_prompts]", "rest = list(train)", "what_is_held_out_teaches_nothing"),
    Fault("ranks that begin at 1", "data=hh", "(0, 1)) for p in", "(1, 2)) for p in", "rankings_are_whole"),
    Fault("demonstrations of held-out prompts", "data=hh", "return [Demonstration(pair.prompt, pair.chosen) for pair in self._train]", "return [Demonstration(__import__('dataclasses').replace(pair.prompt, id='x' + pair.prompt.id), pair.chosen) for pair in (*self._train, *self._held_out)]", "held_out_conversations_teach_nothing"),
    Fault("a prompt that ends with the assistant", "data=hh", "return list({pair.prompt.id: pair.prompt for pair in pairs}.values())", "return [__import__('dataclasses').replace(p, messages=p.messages[:-1]) for p in {pair.prompt.id: pair.prompt for pair in pairs}.values()]", "something_is_said"),
    # The conversation ends with the assistant's turn, and nobody has asked.
    Fault("prompts in the assistant's name", WORLD, 'Message("user", text),), opinion, question.id, info)', 'Message("assistant", text),), opinion, question.id, info)', "something_is_said"),
)  # fmt: skip
