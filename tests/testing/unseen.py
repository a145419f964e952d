"""Faults that the kit does not catch, or catches by an exception alone, each with what it does wrong. They were planted by somebody who
had not written the checks; those that are caught stand in faults/. `python tests/testing/share_caught.py` tries them again."""

from __future__ import annotations

from tests.testing.faults import Fault

KTO = "algo=kto"
ONLINE_DPO = "algo=online_dpo"
LEARNED = "reward=learned"
SYCOPHANTIC = "annotator=sycophantic"
DIVERSITY = "evaluation=diversity"
MEASURES = "alignbench_suite.text_measures.measures"
OPTIMIZATION = "evaluation=optimization"
PREFERENCES = "evaluation=preferences"
EXACT_WORLD = "evaluation=exact"
EXACT = "data=exact"
SCRATCH = "model=scratch"
POLICY_MODULE = "alignbench_hf.policy"
HEADS = "alignbench_hf.scalar"
SAMPLING = "alignbench.tokens.sampling"

UNSEEN = (
    # The step also pulls at responses to other prompts.
    Fault("reference point with a gradient", KTO, "            with torch.no_grad():\n                ratios =", "            if True:\n                ratios =", ""),
    # With samples_per_prompt=4 pairs are made across prompts.
    Fault("two responses a prompt taken for granted", ONLINE_DPO, "torch.arange(len(groups), device=scores.device) * samples_per_prompt", "torch.arange(len(groups), device=scores.device) * 2", ""),
    # Responses that were cut off are read as if they had ended.
    Fault("cut-off responses given an end", LEARNED, "for text in r.responses], finished=finished)", "for text in r.responses])", ""),
    # Margins are no log-odds after normalisation, and the calibration error is of something else.
    Fault("calibration of normalised scores", LEARNED, '        metrics |= self._figures(held_out, baseline, raw, annotator)  # before: only raw margins are log-odds\n        if self._config.normalise:\n            self._normalise(baseline, raw)\n', '        if self._config.normalise:\n            self._normalise(baseline, raw)\n        metrics |= self._figures(held_out, baseline, raw, annotator)\n', ""),
    # It likes style as much as it should like agreement.
    Fault("style and agreement exchanged", SYCOPHANTIC, "return right, styled, agrees,", "return right, agrees, styled,", ""),
    # Each response is compared with itself: always 1.
    Fault("self-BLEU against itself", DIVERSITY, "ngrams.self_bleu([known.tokens[t] for t in texts])", "ngrams.self_bleu([known.tokens[t] for t in [*texts, *texts]])", "", MEASURES),
    # Reward hacking cannot show.
    Fault("the proxy reward as gold", OPTIMIZATION, '"optimization/gold_reward", groups, gold_reward)', '"optimization/gold_reward", groups, lambda g: g.proxy_reward)', ""),
    # Confidence of an implicit reward ten times too large.
    Fault("calibration without beta", PREFERENCES, "torch.sigmoid(implicit.beta * margin.abs())", "torch.sigmoid(margin.abs())", ""),
    # KL(pi* || pi) in place of KL(pi || pi*).
    Fault("the divergence from the other side", EXACT_WORLD, "kl_divergence(reached, best)", "kl_divergence(best, reached)", ""),
    # Recorded responses that were cut off have an end, which was never ranked.
    Fault("ends of ranked responses lost", EXACT, "tuple(t for t, _ in drawn), ranks, tuple(end for _, end in drawn))", "tuple(t for t, _ in drawn), ranks)", ""),
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
