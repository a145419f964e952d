"""Faults to plant in models. What a newer one does wrong stands above it."""

from __future__ import annotations

from tests.testing.faults.fault import Fault

SCRATCH = "model=scratch"

MODELS = (
    # Models
    Fault("padding read as if it were the prompt", SCRATCH, "    mask = prompt_mask.bool()\n", "    mask = torch.ones_like(prompt_mask, dtype=torch.bool)\n", "a_row_does_not_depend_on_its_batch", "alignbench_hf.prompts"),
    Fault("logits scaled on their way out", SCRATCH, "logits = logits.view(*states.shape[:-1], logits.shape[-1])", "logits = 1.05 * logits.view(*states.shape[:-1], logits.shape[-1])", "logprobs_are_those_of_transformers", "alignbench_hf.architecture.output"),
    Fault("temperature left out of sampling", SCRATCH, "logits.float() / request.sampling.temperature", "logits.float()", "sampled_logprobs_are_those_that_it_computes", "alignbench_hf.decoding.samplers"),
    Fault("chances that are not uniform", SCRATCH, "below = chances.double()[:, None] *", "below = chances.double()[:, None] ** 1.3 *", "tokens_come_as_often_as_their_probability_says", "alignbench.tokens.sampling"),
    Fault("chances drawn without their generator", SCRATCH, "torch.rand(len(rows), limit, generator=rng,", "torch.rand(len(rows), limit,", "sampling_depends_on_its_generator_alone", "alignbench_hf.policy"),
    Fault("dropout on the states", SCRATCH, "hidden, output = states(role, sequences)", "hidden, output = states(role, sequences)\n    hidden = nn.functional.dropout(hidden, 0.1)", "dropout_is_off", "alignbench_hf.architecture.output"),
    Fault("a trainable weight that is not used", SCRATCH, "return list(self._roles.named_parameters(POLICY).values())", "return [*self._roles.named_parameters(POLICY).values(), nn.Parameter(torch.ones(2))]", "every_trainable_weight_learns", "alignbench_hf.policy"),
    Fault("half of the gradient", SCRATCH, "hidden[:, :-1],\n        output", "(hidden + hidden.detach())[:, :-1] / 2,\n        output", "gradients_are_those_of_its_logprobs", "alignbench_hf.architecture.output"),
    Fault("the reference is the policy itself", SCRATCH, "copy.deepcopy(self._models[init_from])", "self._models[init_from]", "roles_are_independent", "alignbench_hf.roles"),
    Fault("a whole response counted as cut", SCRATCH, "len(row) <= self.max_response_tokens", "len(row) < self.max_response_tokens", "a_response_at_the_limit_is_whole", "alignbench_hf.policy"),
    Fault("weights not loaded", SCRATCH, "self._models[POLICY].load_state_dict(loaded)", "pass", "saved_and_loaded_it_is_the_same", "alignbench_hf.roles"),
)  # fmt: skip
