"""What the configs refuse, before anything is built."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from alignbench_dpo.config import DPOConfig, IPOConfig, KTOConfig, OnlineDPOConfig, ORPOConfig, SimPOConfig
from alignbench_dpo.config_further import AOTConfig, IterativeDPOConfig, TDPOConfig

from alignbench import PreferenceConfig, UserError

OFFLINE = (DPOConfig, IPOConfig, KTOConfig, ORPOConfig, SimPOConfig, AOTConfig, TDPOConfig)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DPOConfig(beta=0.0), "beta=0.0"),
        (lambda: DPOConfig(loss="sigmod"), "Did you mean 'sigmoid'"),
        (lambda: DPOConfig(label_smoothing=0.1, loss="hinge"), "algo.loss=hinge"),
        (lambda: DPOConfig(label_smoothing=0.1, loss="ipo"), "algo.loss=ipo"),
        (lambda: DPOConfig(soft_labels=True, loss="hinge"), "algo.soft_labels=true"),
        (lambda: DPOConfig(soft_labels=True, loss="robust"), "algo.soft_labels=true"),
        (lambda: DPOConfig(soft_labels=True, label_smoothing=0.1), "algo.label_smoothing=0"),
        (lambda: DPOConfig(pairs="best"), "pairs 'best'"),
        (lambda: KTOConfig(desirable_weight=0.0, undesirable_weight=0.0), "are both 0"),
        (lambda: OnlineDPOConfig(labels="sof"), "Did you mean 'soft'"),
        (lambda: OnlineDPOConfig(labels="soft", loss="hinge"), "algo.labels=soft"),
        (lambda: OnlineDPOConfig(labels="soft", label_smoothing=0.1), "algo.labels=soft"),
        (lambda: OnlineDPOConfig(missing_eos="subtrac"), "Did you mean 'subtract'"),
        (lambda: AOTConfig(form="pair"), "Did you mean 'paired'"),
        (lambda: AOTConfig(loss="robust"), "algo.loss"),
        (lambda: TDPOConfig(variant="tdpo"), "algo.variant"),
        (lambda: IterativeDPOConfig(labels="soft"), "algo.ranked_by=reward"),
        (lambda: IterativeDPOConfig(ranked_by="rewards"), "Did you mean 'reward'"),
        (lambda: IterativeDPOConfig(reference="rounds"), "Did you mean 'round'"),
        (lambda: IterativeDPOConfig(pairs="every"), "algo.pairs"),
    ],
)
def test_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DPOConfig(label_smoothing=0.1),
        lambda: DPOConfig(loss="robust", label_smoothing=0.1),
        lambda: DPOConfig(loss="ipo", soft_labels=True),
        lambda: DPOConfig(batch_size=1),
        lambda: ORPOConfig(orpo_lambda=0.0),
        lambda: SimPOConfig(gamma=0.0),
        lambda: KTOConfig(undesirable_weight=0.0),
        lambda: OnlineDPOConfig(loss="ipo", labels="soft"),
        lambda: OnlineDPOConfig(samples_per_prompt=4),
        lambda: IterativeDPOConfig(ranked_by="reward", labels="soft"),
    ],
)
def test_accepted(make: Callable[[], object]) -> None:
    make()


@pytest.mark.parametrize("config", OFFLINE)
def test_recorded_pairs_are_read_once_by_default(config: type[PreferenceConfig]) -> None:
    assert (config().updates, config().passes) == (0, 1.0)


@pytest.mark.parametrize("config", OFFLINE)
def test_who_asks_for_the_reference(config: type[PreferenceConfig]) -> None:
    assert config.uses_reference == (config not in (ORPOConfig, SimPOConfig))
