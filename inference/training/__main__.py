"""`python -m inference.training`: train the demonstration model, measure it, write folder and card.

The run's state lies in --out/state.pth, the result in --out/models/demo. To ship it, copy that
folder over inference/models/demo.
"""

import argparse
import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch

from inference.catalog import read_card
from inference.nnunet import NnunetPredictor
from inference.training.evaluate import (
    HELD_OUT,
    by_hu_alone,
    by_position_alone,
    ct_grid,
    on_bodies,
    on_real,
)
from inference.training.export import write_card, write_folder
from inference.training.loop import Recipe, State, start, train
from inference.training.samples import load_real

log = logging.getLogger("inference.training")


def publish(recipe: Recipe, state: State) -> Path:
    """Write the model folder, measure those very files, write the card with the figures."""
    root = recipe.out / "models/demo"
    write_folder(state, root)
    card = read_card(write_card(root, {}))
    predictor = NnunetPredictor(card, device=recipe.device, threads=recipe.threads)
    on_ct = on_bodies(card, predictor, HELD_OUT[:4], ct_grid())
    figures: dict[str, Any] = {
        **on_bodies(card, predictor),
        "dice_above_20_ml_on_1_5_mm_chest_abdomen": on_ct["dice_above_20_ml"],
        "dice_of_hu_alone": by_hu_alone(),
        "dice_of_position_alone": by_position_alone(),
        "iterations": state.iteration,
        "training_minutes": round(state.seconds / 60, 1),
        "trained_on": f"{recipe.device}, {recipe.threads} threads, {platform.machine()}",
    }
    if recipe.real is not None:
        figures["dice_real_ct_seen_in_training"] = on_real(card, predictor, recipe.real)
    log.info("%s", figures)
    return write_card(root, figures)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m inference.training", description=__doc__)
    parser.add_argument("--minutes", type=float, default=100.0, help="training time in all")
    parser.add_argument("--resume", action="store_true", help="go on with the state in --out")
    parser.add_argument(
        "--export-only", action="store_true", help="train no more: measure and write the state"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("var/train-demo"))
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("DICOMNODE_TEST_DATA", "../shared/data")),
        help="test data with the real example CT; without it only bodies are seen",
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    real = load_real(given.data)
    log.info("device %s, real CT %s", device, "absent" if real is None else "present")
    recipe = Recipe(
        out=given.out, minutes=given.minutes, device=device, threads=given.threads, real=real
    )
    state = start(recipe, resume=True) if given.export_only else train(recipe, resume=given.resume)
    log.info("card: %s", publish(recipe, state))


if __name__ == "__main__":
    main()
