"""Checks of what an algorithm converges to, in a world where that is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from alignbench.app.price import COEFFICIENTS, option_of
from alignbench.optimizer_config import OfflineConfig, RolloutConfig
from alignbench.plugins import Component
from alignbench.records import Consumes, ExactProblem
from alignbench.seeds import Seeds
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken
from alignbench.testing.trial import LARGEST_GROUP, Trial, has, settings
from alignbench.testing.world import World, exact_kl, total_variation

BOUNDS = {Consumes.ROLLOUTS: 0.05, Consumes.PREFERENCES: 0.02, Consumes.LABELS: 0.05, Consumes.DEMONSTRATIONS: 0.05}
"""Total variation within which an algorithm reaches its optimum, by what it learns from. Without `soft_labels`,
preferences are as noisy as rollouts, and have their bound; so are labels."""
CLOSER = 0.8
"""Of the KL with the small coefficient. Not half: a loss that saturates bounds its pull (KTO)."""
SUM_OFF = 1e-6
APART = 0.5
"""Of the distance to the optimum of another coefficient: from its own an algorithm is at most this far."""
RISE = 0.25
"""Of the rise of the expected reward that an algorithm's optimum gives, which 40 small batches come at least half of the way to."""
CANDIDATES_OFF = 0.03
"""Total variation of the best of 20,000 draws from what the algorithm names: sampling alone stays below half of it."""
ROWS = 256
UPDATES = {Consumes.ROLLOUTS: 80, Consumes.PREFERENCES: 160, Consumes.LABELS: 160, Consumes.DEMONSTRATIONS: 80}
RATES = {Consumes.ROLLOUTS: 0.1, Consumes.PREFERENCES: 0.2, Consumes.LABELS: 0.2, Consumes.DEMONSTRATIONS: 0.1}
"""A pair says little of a response that is rarely drawn: it takes more updates, and bears a higher rate."""

check = CheckList()


def coefficients(component: Component) -> list[str]:
    """Its options that are set to 1 in the exact world: those of a known name, and what it says is the price of one nat."""
    known = dict.fromkeys((*COEFFICIENTS, option_of(component.config) or ""))
    return [name for name in known if has(component, name)]


def exact_config(component: Component, *, rows: int = ROWS, updates: int | None = None, **changes: Any) -> Any:
    """Settings of a run to convergence: a learning rate that falls to 0, no weight decay, every coefficient 1, and what
    the algorithm itself says in `exact_settings`."""
    own = dict(component.load().exact_settings())
    if unknown := sorted(name for name in own if not has(component, name)):
        raise PropertyBroken(f"exact_settings names options that {component.config.__name__} does not have: {unknown}.")
    consumes: Consumes = component.config.consumes  # type: ignore[attr-defined]
    run: dict[str, Any] = {
        "updates": UPDATES[consumes],
        "learning_rate": RATES[consumes],
        "lr_schedule": "linear",
        "adam_eps": 1e-5,
        "temperature": 1.0,
        "soft_labels": True,
        **dict.fromkeys(coefficients(component), 1.0),
    }
    run |= own | changes | ({} if updates is None else {"updates": updates})
    # Of a group, an algorithm may learn from one response alone.
    return settings(
        component,
        rows=max(rows, rows // 2 * min(getattr(component.config(), "samples_per_prompt", 1), LARGEST_GROUP)),
        **run,
    )


def trained(component: Component, world: World, seed: int, config: Any) -> Tensor:
    """The exact distribution of a policy that starts at the reference and is trained by `config`."""
    trial = Trial(component, seed, world=world, moved=0.0, config=config)
    for _ in range(config.updates):
        trial.update()
    return world.distribution(trial.policy)


def telling_coefficient(component: Component, config: Any, problem: ExactProblem) -> str | None:
    """The coefficient that the optimum depends on, found by its name."""
    for name in coefficients(component):
        doubled = dataclasses.replace(config, **{name: 2 * getattr(config, name)})
        here, there = (component.load().optimum(c, problem) for c in (config, doubled))
        if here is not None and there is not None and not torch.allclose(here, there):
            return name
    return None


@check(
    causes="logarithms of 0, a missing normalisation, or a softmax over prompts in place of responses.",
    within=f"rows sum to 1 but for at most {SUM_OFF:g}",
)
def optimum_is_a_distribution(component: Component, seed: int) -> str:
    """`optimum` gives the probability of every response to every prompt."""
    problem = World(seed).problem
    still = component.config.consumes is Consumes.NOTHING  # type: ignore[attr-defined]
    optimum = component.load().optimum(component.config() if still else exact_config(component), problem)
    if optimum is None:
        raise NotApplicable("it names no optimum")
    if optimum.shape != problem.reference.shape or optimum.dtype != torch.float64:
        raise PropertyBroken(
            f"It is {optimum.dtype} of shape {tuple(optimum.shape)}: float64 like `rewards` is wanted."
        )
    off = float((optimum.sum(1) - 1).abs().max())
    if not (bool((optimum >= 0).all()) and off < SUM_OFF):
        raise PropertyBroken(f"Its least number is {float(optimum.min()):.2g} and its rows sum to 1 but for {off:.2g}.")
    return f"{off:.2g} off, of at most {SUM_OFF:g}"


@check(
    causes="a sign, a mask, a coefficient or a score in the wrong place: look at the other failures first.",
    within=f"total variation at most {BOUNDS[Consumes.ROLLOUTS]:g} from samples, labels and pairs of unknown probability, "
    f"{BOUNDS[Consumes.PREFERENCES]:g} from pairs of known probability; and at most {APART:g} of that to the optima of half and "
    "of twice the coefficient",
)
def reaches_its_optimum(component: Component, seed: int) -> str:
    """Trained where everything is known, the policy reaches the algorithm's own optimum, and no other coefficient's."""
    return reach(component, World(seed), seed, exact_config(component))


@check(
    causes="an optimum that leaves an option out, or an option that is used otherwise than its optimum says.",
    within="as reaches_its_optimum",
)
def reaches_its_other_optima(component: Component, seed: int) -> str:
    """So it does under each of its `exact_variants`."""
    variants, world = component.load().exact_variants(), World(seed)
    if not variants:
        raise NotApplicable("it names no exact_variants")
    margins = []
    for variant in variants:
        config, said = exact_config(component, **variant), ", ".join(f"{k}={v}" for k, v in variant.items())
        if component.load().optimum(config, world.problem) is None:
            raise PropertyBroken(f"exact_variants names {said}, for which there is no optimum.")
        margins.append(f"{said}: {reach(component, world, seed, config, said)}")
    return "; ".join(margins)


def reach(component: Component, world: World, seed: int, config: Any, said: str = "") -> str:
    """Trains by `config` and compares with its optimum."""
    optimum = component.load().optimum(config, world.problem)
    if optimum is None:
        raise NotApplicable("it names no optimum")
    noisy = config.consumes is Consumes.PREFERENCES and not getattr(config, "soft_labels", False)
    bound = BOUNDS[Consumes.ROLLOUTS if noisy else config.consumes]
    policy = trained(component, world, seed, config)
    distance, start = (total_variation(p, optimum) for p in (policy, world.problem.reference))
    if not distance <= bound:
        raise PropertyBroken(
            f"{said}{': ' * bool(said)}The total variation to the optimum fell from {start:.3f} to {distance:.3f} in {config.updates} updates: "
            f"at most {bound:g}."
        )
    if exact_kl(policy, world.problem.reference) <= 0:
        raise PropertyBroken("The exact KL to the reference is 0: the policy is where it was.")
    if name := telling_coefficient(component, config, world.problem):
        for factor in (0.5, 2.0):
            other = dataclasses.replace(config, **{name: factor * getattr(config, name)})
            away = total_variation(policy, component.load().optimum(other, world.problem))
            if distance > APART * away:
                raise PropertyBroken(
                    f"The policy is {distance:.3f} from the optimum of {name}={getattr(config, name):g} and {away:.3f} "
                    f"from that of {name}={getattr(other, name):g}: these runs do not tell them apart."
                )
    return f"total variation {start:.3f} to {distance:.3f}, of at most {bound:g}"


@check(
    causes="the coefficient's sign, a coefficient that divides where it should multiply, or a missing reference.",
    within=f"a KL of at most {CLOSER:g} of that with the smaller",
)
def coefficient_pulls_to_the_reference(component: Component, seed: int) -> str:
    """A hundred times larger coefficient ends with a smaller exact KL to the reference."""
    names = coefficients(component)
    if not names:
        raise NotApplicable("it has none of " + ", ".join(COEFFICIENTS))
    if issubclass(component.config, OfflineConfig) and not component.config().uses_reference:
        raise NotApplicable("it uses no reference")
    world = World(seed)

    def kl(value: float) -> float:
        config = exact_config(component, rows=128, updates=40, **dict.fromkeys(names, value))
        return exact_kl(trained(component, world, seed, config), world.problem.reference)

    weak, strong = kl(0.1), kl(10.0)
    if not strong < CLOSER * weak:
        raise PropertyBroken(
            f"With {names[0]}=0.1 the KL is {weak:.3f} nats, with {names[0]}=10 {strong:.3f}: below {CLOSER} of it is wanted."
        )
    return f"{strong / weak:.2g} of the KL, of at most {CLOSER:g}"


@check(
    causes="the sign of an advantage or of a margin, chosen and rejected exchanged, or a score that is not used.",
    within=f"at least {RISE:g} of the rise that its optimum gives; without one, a rise here and where all rewards are opposite",
)
def rewards_rise(component: Component, seed: int) -> str:
    """Training raises the exact expected reward of a response."""
    if not issubclass(component.config, (RolloutConfig, OfflineConfig)):
        raise NotApplicable("it learns from neither scores, pairs nor labels")
    world = World(seed)
    own = {name: getattr(component.config(), name) for name in coefficients(component)}
    config = exact_config(component, rows=128, updates=40, **own)

    def rise(here: World, policy: Tensor) -> float:
        return here.expected_reward(policy) - here.expected_reward(here.problem.reference)

    found = rise(world, trained(component, world, seed, config))
    optimum = component.load().optimum(config, world.problem)
    if optimum is not None:
        wanted = RISE * rise(world, optimum)
        if not found >= wanted:
            raise PropertyBroken(f"It rose by {found:.3f} of a standard deviation: at least {wanted:.3f}.")
        return f"{found:.3f} of a standard deviation, of at least {wanted:.3f}"
    # How much is not known. Whatever is not the score's doing moves both alike, and so the reward of one of them down.
    opposed = world.opposed()
    other = rise(opposed, trained(component, opposed, seed, config))
    if not min(found, other) > 0:
        raise PropertyBroken(
            f"It rose by {found:.3f} of a standard deviation, and by {other:.3f} where all rewards are opposite: both above 0."
        )
    return f"{found:.3f} and {other:.3f} of a standard deviation, above 0"


@check(
    causes="a loss divided by each response's own length, a token left out of the mask, or the sign.",
    within=f"total variation at most {BOUNDS[Consumes.DEMONSTRATIONS]:g}",
)
def imitates_its_demonstrations(component: Component, seed: int) -> str:
    """Trained on demonstrations alone, the policy takes over the distribution that they are drawn from."""
    if component.config.consumes is not Consumes.DEMONSTRATIONS:  # type: ignore[attr-defined]
        raise NotApplicable("it learns from other than demonstrations")
    world = World(seed)
    policy = trained(component, world, seed, exact_config(component))
    start, distance = (total_variation(p, world.demonstrator()) for p in (world.problem.reference, policy))
    bound = BOUNDS[Consumes.DEMONSTRATIONS]
    if not distance <= bound:
        raise PropertyBroken(f"The total variation to it went from {start:.3f} to {distance:.3f}: at most {bound:g}.")
    return f"total variation {start:.3f} to {distance:.3f}, of at most {bound:g}"


@check(
    causes="another number of candidates than config.candidates, or ties and duplicates counted twice.",
    within=f"total variation at most {CANDIDATES_OFF:g}",
)
def optimum_is_that_of_its_candidates(component: Component, seed: int) -> str:
    """The best of `candidates` responses of the reference follow the optimum that the algorithm names."""
    config: Any = component.config()
    if config.consumes is not Consumes.NOTHING or config.candidates < 2:
        raise NotApplicable("it does not choose among candidates")
    world = World(seed)
    optimum = component.load().optimum(config, world.problem)
    if optimum is None:
        raise NotApplicable("it names no optimum")
    draws, rng = 20_000, Seeds(seed).torch("candidates")
    best = torch.zeros_like(optimum)
    for row, (chances, rewards) in enumerate(zip(world.problem.reference, world.problem.rewards, strict=True)):
        drawn = torch.multinomial(chances, draws * config.candidates, replacement=True, generator=rng)
        drawn = drawn.reshape(draws, config.candidates)
        winners = drawn.gather(1, rewards[drawn].argmax(1, keepdim=True)).squeeze(1)
        best[row] = torch.bincount(winners, minlength=len(chances)).double() / draws
    if not (distance := total_variation(best, optimum)) <= CANDIDATES_OFF:
        raise PropertyBroken(
            f"{draws} draws are {distance:.3f} away from it in total variation: at most {CANDIDATES_OFF:g}."
        )
    return f"total variation {distance:.3f} of at most {CANDIDATES_OFF:g}"
