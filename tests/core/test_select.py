"""Components by name: what a component that is made of others asks for; and dicts that users fill at the command line."""

from __future__ import annotations

import pytest
from alignbench_rewards.config import LengthConfig

from alignbench import UserError, select
from alignbench.app.compose import load_config
from alignbench.plugins import resolve
from alignbench.selection import with_defaults


def test_a_component_by_name_has_its_defaults_and_the_given_options() -> None:
    chosen = select("reward", "length", {"scale": 2}, where="reward.options.length")
    assert (chosen.label, chosen.config) == ("length", LengthConfig(scale=2.0))
    assert chosen.load().__name__ == "LengthReward"
    assert select("reward", "length", {}, where="x").config == LengthConfig()


def test_its_fingerprint_covers_its_settings() -> None:
    one, other, again = (select("reward", "length", {"scale": s}, where="x").fingerprint() for s in (1, 2, 1))
    assert one == again != other


@pytest.mark.parametrize(
    ("kind", "name", "options", "told"),
    [
        ("rewards", "length", {}, "Unknown kind of component 'rewards'.*Did you mean 'reward'"),
        ("reward", "lenght", {}, "Unknown reward 'lenght'.*Did you mean 'length'"),
        ("reward", "length", {"scael": 1}, "Unknown key 'scael' in here. Did you mean 'scale'"),
        ("reward", "length", {"scale": "long"}, "^here.scale=long must be a number, -10000 to 10000, other than 0"),
        ("reward", "length", {"scale": 0}, "^here.scale=0.0 must be -10000 to 10000, other than 0"),
    ],
)
def test_what_is_not_there_is_told_with_the_place(kind: str, name: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as failed:
        select(kind, name, options, where="here")
    assert "\n" not in str(failed.value)


def test_a_dict_is_filled_at_the_command_line_without_a_plus() -> None:
    config = load_config(
        ["reward=mix", "reward.parts={length:-0.2}", "reward.parts.gold=1", "reward.options.length.scale=0.3"]
    )
    assert config.reward.config.parts == {"length": -0.2, "gold": 1.0}
    assert config.reward.config.options == {"length": {"scale": 0.3}}
    with pytest.raises(UserError, match=r"^reward\.parts\.gold=much must be a number"):
        load_config(["reward=mix", "reward.parts.gold=much"])
    with pytest.raises(UserError, match="Unknown key 'part' in reward. Did you mean 'parts'"):
        load_config(["reward=mix", "reward.part.gold=1"])


def test_a_component_with_other_defaults() -> None:
    plain = resolve("algo=ppo")
    other = with_defaults(plain, {"kl_coef": 0.3, "epochs": 3})
    config = other.config()
    assert (config.kl_coef, config.epochs, config.clip_ratio) == (0.3, 3, plain.config().clip_ratio)
    assert isinstance(config, plain.config) and other.summary == plain.summary
    assert plain.config().kl_coef != 0.3
    one, two = (with_defaults(resolve("reward=mix"), {"parts": {"length": 1.0}}).config() for _ in range(2))
    assert one.parts == two.parts == {"length": 1.0} and one.parts is not two.parts
    with pytest.raises(UserError, match="Unknown key 'kl_coeff' in algo. Did you mean 'kl_coef'"):
        with_defaults(plain, {"kl_coeff": 1}, where="algo")
