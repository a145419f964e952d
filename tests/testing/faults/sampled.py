"""Faults of algorithms whose responses several draw, of who draws them, and of mixtures."""

from __future__ import annotations

from tests.testing.faults.fault import Fault
from tests.testing.faults.planting import EXPERIENCE

IPO, XPO, NASH, SCRATCH = "algo=online_ipo", "algo=xpo", "algo=nash_md", "model=scratch"
PAIRS, MIXED = "alignbench_dpo.sampled.pairs", "alignbench_hf.decoding.mixed"
LOSS, KL = "steps_follow_the_stated_loss", "kl_is_in_nats_per_response"
DRAWN, MIXTURE = "rollouts_are_of_whom_it_asks", "a_mixture_has_the_share_of_both_roles"

SAMPLED = (
    Fault("labels of the first response for the chosen one", IPO, "torch.where(lost, 1 - self.wins, self.wins)", "self.wins", LOSS, PAIRS),
    Fault("wins of the reference's response for the policy's", XPO, "gaps = scores[0::2] - scores[1::2]", "gaps = scores[1::2] - scores[0::2]", LOSS, PAIRS),
    Fault("KL of everybody's responses", XPO, "float(log_ratio[own].mean())", "float(log_ratio.mean())", KL, PAIRS),
    Fault("the opponent's responses learnt from", NASH, "torch.arange(0, len(sequences), 2", "torch.arange(1, len(sequences), 2", LOSS),
    Fault("a price of KL that pays", NASH, "- tau * (logprobs.detach()", "+ tau * (logprobs.detach()", LOSS),
    Fault("responses by source in place of in turn", NASH, "reshape(len(parts), -1).T.flatten()", "reshape(len(parts), -1).flatten()", DRAWN, EXPERIENCE),
    Fault("an opponent without the reference", NASH, "reference_share=source.reference_share", "reference_share=0.0", DRAWN, EXPERIENCE),
    Fault("the shares exchanged", SCRATCH, "(1 - share) * own.logits + share * reference.logits", "share * own.logits + (1 - share) * reference.logits", MIXTURE, MIXED),
    Fault("the reference's tokens not read", SCRATCH, "        reference.read(token)\n", "", MIXTURE, MIXED),
    Fault("probabilities mixed in place of logits", SCRATCH, "(1 - share) * own.logits + share * reference.logits", "((1 - share) * own.logits.softmax(-1) + share * reference.logits.softmax(-1)).log()", MIXTURE, MIXED),
)  # fmt: skip
