"""The training loop: one sample an iteration, a schedule over wall time, a resumable state.

Time, not iterations, is the budget: on a shared CPU nobody knows how many iterations an hour holds.
The learning rate follows the share of the budget that is spent; a state is written every few
minutes, so an interrupted run goes on with `resume`.
"""

import json
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.training import network
from inference.training.plans import FEATURES, PATCH, intensities, plans, structures
from inference.training.samples import RealCt, Sample, draw

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run is told."""

    out: Path  # the folder of the run's state
    minutes: float  # the whole budget of the run, resumed parts counted in
    device: str  # cpu or cuda
    threads: int
    real: RealCt | None
    patch: tuple[int, int, int] = PATCH  # z, y, x
    features: tuple[int, ...] = FEATURES
    rate: float = 0.003  # the greatest learning rate
    save_every: float = 240.0  # seconds
    iterations: int | None = None  # stop this call after so many, whatever the clock says


class State:
    """Network, its moving average, optimiser and the counters that a resumed run needs."""

    def __init__(self, recipe: Recipe, properties: dict[str, float]) -> None:
        torch.manual_seed(1)
        self.properties = properties
        self.plans = plans(properties, recipe.patch, recipe.features)
        self.net = network.build(self.plans, len(structures()) + 1).to(recipe.device)
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.02
        )
        self.iteration, self.seconds = 0, 0.0

    def save(self, path: Path) -> None:
        """Write the state beside, then rename."""
        beside = path.with_suffix(".tmp")
        torch.save(
            {
                "net": self.net.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "iteration": self.iteration,
                "seconds": self.seconds,
                "properties": self.properties,
            },
            beside,
        )
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Go on where `save` stopped."""
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        for name, value in saved["average"].items():
            self.average[name].copy_(value)
        self.iteration, self.seconds = saved["iteration"], saved["seconds"]

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the network: the average is what is shipped."""
        decay = min(0.998, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.net.named_parameters():
            self.average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def averaged(self) -> Any:
        """A copy of the network with the averaged weights, ready to predict."""
        net = network.build(self.plans, len(structures()) + 1)
        for name, value in net.named_parameters():
            value.copy_(self.average[name])
        return net.eval()


def rate_at(spent: float, greatest: float) -> float:
    """Warm up over 3 % of the budget, hold to 25 %, then a cosine to nearly nothing."""
    if spent < 0.03:
        return greatest * (0.1 + 0.9 * spent / 0.03)
    if spent < 0.25:
        return greatest
    falling = (1 + math.cos(math.pi * min(1.0, (spent - 0.25) / 0.75))) / 2
    return greatest * (0.005 + 0.995 * falling)


def variation_at(spent: float, number: int) -> float:
    """Bodies near the table first; from a tenth of the budget on, each its own from 0.5 to 1.5.

    Wider than what is measured (1), so that the measured range is not the edge of what was seen.
    """
    drawn = 0.5 + (number * 0.6180339887 % 1.0)  # golden-ratio sequence: even over any run
    return min(drawn, 0.3 + 1.2 * spent / 0.1)


def start(recipe: Recipe, *, resume: bool) -> State:
    """A new state, or the saved one of the folder."""
    path = recipe.out / "state.pth"
    if not resume:
        return State(recipe, intensities())
    saved = torch.load(path, map_location="cpu", weights_only=True)
    state = State(recipe, saved["properties"])
    state.load(path)
    return state


def _samples(recipe: Recipe, state: State) -> Iterator[Sample]:
    """Samples from the state's iteration on, made a few ahead by a thread."""
    budget = recipe.minutes * 60

    def make(number: int, seconds: float) -> Sample:
        variation = variation_at(seconds / budget, number)
        return draw(number, variation, recipe.patch, state.properties, recipe.real)

    with ThreadPoolExecutor(1) as pool:
        number = state.iteration
        ahead: list[Future[Sample]] = []
        while True:
            while len(ahead) < 4:
                ahead.append(pool.submit(make, number, state.seconds))
                number += 1
            yield ahead.pop(0).result()


def train(recipe: Recipe, *, resume: bool = False) -> State:
    """Run until the budget or the iterations end; the state lies in `recipe.out`/state.pth."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    torch.set_flush_denormal(True)  # late in a run tiny gradients would slow a CPU tenfold
    state = start(recipe, resume=resume)
    state.net.train()
    budget, path = recipe.minutes * 60, recipe.out / "state.pth"
    last = None if recipe.iterations is None else state.iteration + recipe.iterations
    losses: list[float] = []
    saved = mark = time.monotonic()
    samples = _samples(recipe, state)
    while state.seconds < budget and state.iteration != last:
        losses.append(step(state, next(samples), rate_at(state.seconds / budget, recipe.rate)))
        now = time.monotonic()
        state.seconds, mark = state.seconds + now - mark, now
        if len(losses) == 50:
            _report(recipe, state, losses)
            losses.clear()
        if now - saved > recipe.save_every:
            state.save(path)
            saved = now
    state.save(path)
    return state


def step(state: State, sample: Sample, rate: float) -> float:
    """One step of descent; the loss before it."""
    device = next(state.net.parameters()).device
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    loss = network.loss_of(
        state.net,
        torch.from_numpy(sample.image).to(device),
        torch.from_numpy(sample.labels).to(device),
        torch.from_numpy(sample.picked).to(device),
        torch.from_numpy(sample.share).to(device),
    )
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), 1.0)
    state.optimiser.step()
    state.iteration += 1
    state.follow()
    return float(loss.detach())


def _report(recipe: Recipe, state: State, losses: list[float]) -> None:
    fact = {
        "iteration": state.iteration,
        "minutes": round(state.seconds / 60, 2),
        "loss": round(sum(losses) / len(losses), 4),
    }
    log.info("%s", fact)
    with (recipe.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(fact) + "\n")
