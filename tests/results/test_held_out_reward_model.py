"""The judge of other pairs: it learns from none that a run learns from."""

from __future__ import annotations

from alignbench_hh.config import HHConfig

from alignbench.app.compose import load_config
from tests.results.test_committed import script
from tests.shared_data import shared_data


def test_no_prompt_is_in_both_and_the_sizes_are_those_that_the_plan_says() -> None:
    learned, measured = script("held_out_reward_model").pairs(str(shared_data("hh-rlhf")))
    assert not {ranking.prompt.id for ranking in learned} & {ranking.prompt.id for ranking in measured}
    assert (len(learned), len(measured)) == (653, 1587)


def test_what_a_run_learns_from_is_cut_as_the_experiment_cuts_it() -> None:
    judge = script("held_out_reward_model")
    data = load_config(["experiment=preferences_smollm2", "judge.model=unused"]).data.config
    assert isinstance(data, HHConfig)
    assert (data.max_prompt_words, data.max_response_words, data.held_out_rows, data.max_rows) == (
        judge.PROMPT_WORDS,
        judge.RESPONSE_WORDS,
        judge.HELD_OUT,
        0,
    )
