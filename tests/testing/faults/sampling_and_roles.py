"""Faults of sampling options, of limits and of roles, planted in models."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

SCRATCH = "model=scratch"
POLICY, SAMPLING, DRAW = "alignbench_hf.policy", "alignbench_hf.decoding.samplers", "alignbench.tokens.sampling"
ROLES, SCALAR = "alignbench_hf.roles", "alignbench_hf.scalar"

MODEL_FAULTS = (
    # Sampling options
    Fault("logits divided by the root of the temperature", SCRATCH, "        temperature=temperature,\n        entropy", "        temperature=temperature**0.5,\n        entropy", "temperature_divides_the_logits_of_a_model", "alignbench_hf.architecture.output"),
    Fault("tokens drawn without the temperature that is told", SCRATCH, "reached = kept.exp()", "reached = (kept * sampling.temperature).exp()", "temperature_changes_how_often_tokens_come", DRAW),
    Fault("one token more than top_k", SCRATCH, "topk(min(sampling.top_k, kept", "topk(min(sampling.top_k + 1, kept", "top_k_keeps_the_most_likely_tokens", DRAW),
    Fault("top_k that leaves out the likely ones", SCRATCH, "kept.shape[-1]), -1).values", "kept.shape[-1]), -1, largest=False).values", "top_k_keeps_the_most_likely_tokens", DRAW),
    Fault("the tokens of top_k equally often", SCRATCH, "kept < smallest, -torch.inf)", "kept < smallest, -torch.inf).clamp(max=float(smallest.min()))", "top_k_keeps_the_most_likely_tokens", DRAW),
    Fault("top_p without the token that crosses it", SCRATCH, "(before >= sampling.top_p)", "((before + ordered.softmax(-1) > sampling.top_p) & (before > 0))", "top_p_keeps_the_token_that_crosses_it", DRAW),
    Fault("top_p with one token more", SCRATCH, "(before >= sampling.top_p)", "(before - ordered.softmax(-1) >= sampling.top_p)", "top_p_keeps_the_token_that_crosses_it", DRAW),
    Fault("top_p that keeps the unlikely tokens", SCRATCH, "kept.sort(-1, descending=True)", "kept.sort(-1, descending=False)", "top_p_keeps_the_token_that_crosses_it", DRAW),
    Fault("top_p put back in another order", SCRATCH, "index.argsort(-1)", "index", "top_p_keeps_the_token_that_crosses_it", DRAW),
    Fault("top_k of one that draws", SCRATCH, "if sampling.top_k > 0:", "if sampling.top_k > 1:", "top_k_of_one_is_greedy", DRAW),
    # Limits
    Fault("new tokens held to the limit of training", SCRATCH, "limit = sampling.max_new_tokens or self.max_response_tokens", "limit = min(sampling.max_new_tokens or self.max_response_tokens, self.max_response_tokens)", "the_limit_of_new_tokens_holds", POLICY),
    Fault("the limit of new tokens not read", SCRATCH, "limit = sampling.max_new_tokens or self.max_response_tokens", "limit = self.max_response_tokens", "the_limit_of_new_tokens_holds", POLICY),
    Fault("a response at the limit counted as finished", SCRATCH, "decoded.logprobs, decoded.finished.long()", "decoded.logprobs, (decoded.finished | (decoded.mask.sum(1) == limit)).long()", "the_limit_of_new_tokens_holds", POLICY),
    Fault("tokens of a response that are cut", SCRATCH, "return self._chat.responses(responses, finished)", "return [row[-self.max_response_tokens :] for row in self._chat.responses(responses, finished)]", "responses_as_tokens_are_whole", POLICY),
    Fault("an end of turn on every response", SCRATCH, "return self._chat.responses(responses, finished)", "return self._chat.responses(responses, [True] * len(responses))", "responses_as_tokens_are_whole", POLICY),
    Fault("long responses cut at their beginning", SCRATCH, "row[: self.max_response_tokens]", "row[-self.max_response_tokens :]", "a_long_response_is_cut_at_its_end", POLICY),
    Fault("a cut response counted as finished", SCRATCH, "end and len(row) <= self.max_response_tokens", "end", "a_long_response_is_cut_at_its_end", POLICY),
    # Roles
    Fault("a reference that is frozen once", SCRATCH, "self._models[role] = copy.deepcopy(", "self._models[role] = self._models.get(role) or copy.deepcopy(", "a_second_freeze_takes_the_policy_as_it_is_then", ROLES),
    Fault("a scalar role from the reference", SCRATCH, "self._roles.add(name, init_from, trainable=True)", "self._roles.add(name, REFERENCE if init_from == POLICY else init_from, trainable=True)", "a_scalar_role_starts_from_the_policy", POLICY),
    Fault("a head that starts at random", SCRATCH, "nn.init.zeros_(self.read.weight)", "nn.init.normal_(self.read.weight, std=0.02)", "a_scalar_role_starts_from_the_policy", SCALAR),
    Fault("a head that starts with a bias", SCRATCH, "nn.init.zeros_(self.read.bias)", "nn.init.constant_(self.read.bias, 0.1)", "a_scalar_role_starts_from_the_policy", SCALAR),
    Fault("the other role's head left out", SCRATCH, "head.load_state_dict(self._scalars[init_from].head.state_dict())", "pass", "a_scalar_role_starts_from_another", POLICY),
    Fault("the other role's head without its bias", SCRATCH, "head.load_state_dict(self._scalars[init_from].head.state_dict())", "head.load_state_dict({**self._scalars[init_from].head.state_dict(), 'read.bias': torch.zeros(1)})", "a_scalar_role_starts_from_another", POLICY),
    Fault("the body of the policy under another role's head", SCRATCH, "self._roles.add(name, init_from, trainable=True)", "self._roles.add(name, POLICY, trainable=True)", "a_scalar_role_starts_from_another", POLICY),
    Fault("one head for two roles", SCRATCH, "head.load_state_dict(self._scalars[init_from].head.state_dict())", "head = self._scalars[init_from].head", "scalar_roles_share_nothing", POLICY),
    Fault("one body for two roles", SCRATCH, "copy.deepcopy(self._models[init_from])", "(self._models[init_from] if init_from not in ('policy', 'reference') else copy.deepcopy(self._models[init_from]))", "scalar_roles_share_nothing", ROLES),
    Fault("shifted after it was scaled", SCRATCH, "self.read.bias.sub_(shift).div_(scale)", "self.read.bias.div_(scale).sub_(shift)", "rescaled_values_are_shifted_and_scaled", SCALAR),
    Fault("a part of the values that is not scaled", SCRATCH, "self.scale.div_(scale)", "pass", "rescaled_values_are_shifted_and_scaled", SCALAR),
    Fault("a scalar role's head left out of its file", SCRATCH, '**{f"scalar_head.{name}": p for name, p in self.head.named_parameters()}', "**{}", "a_scalar_role_saved_and_loaded_is_the_same", SCALAR),
)  # fmt: skip
