"""The fast engines against torch in single precision, within bounds fixed before measuring."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_nnunet import write_model

from inference import engines
from inference.catalog import load_catalog, read_card
from inference.nnunet import NnunetPredictor
from inference.nnunet_folder import LoadedPart, load_part
from inference.phantom import Body
from inference.pipeline import Options, segment
from inference.tiles import Network

CPU = torch.device("cpu")
DIFFERENT_LABELS = 0.001
DICE = 0.999
LARGE_ML = 5.0


@pytest.fixture
def part(tmp_path: Path) -> LoadedPart:
    card = read_card(write_model(tmp_path, structures=9, patch=(32, 24, 16)))
    return load_part(card.parts[0], card, CPU)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvino_keeps_the_bound_on_random_weights(part: LoadedPart, precision: str) -> None:
    pytest.importorskip("openvino")
    from inference.openvino import Converted

    small = engines.smallest_tile(part)
    fast = Converted(part.network, small).compile(part.patch, 2, precision)  # type: ignore[arg-type]
    error = engines.score_error(part.network, fast, part.patch)
    assert 0 < error <= engines.SCORE_BOUND == 0.05


def test_the_fast_engine_finds_what_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model on a body that it was not trained on, from the source grid to labels."""
    card = load_catalog().card("demo")
    affine = np.diag([5.0, 5.0, 8.0, 1.0])
    affine[:3, 3] = (-190.0, -130.0, -60.0)
    volume, _ = Body(3).render((76, 54, 46), affine)
    predictor = NnunetPredictor(card, threads=2)
    fast = segment(volume, affine, card, predictor)
    exact = segment(volume, affine, card, predictor, options=Options(mode="exact"))
    monkeypatch.setattr("inference.nnunet.fast_network", lambda part, *_, **__: part.network)
    torchs = segment(volume, affine, card, NnunetPredictor(card, threads=2))

    assert np.mean(fast != exact) <= DIFFERENT_LABELS
    assert np.mean(fast != torchs) <= DIFFERENT_LABELS
    voxel_ml = float(np.linalg.det(affine[:3, :3])) / 1000
    large = np.flatnonzero(np.bincount(torchs.ravel())[1:] * voxel_ml > LARGE_ML) + 1
    assert len(large) > 20
    for label in large:
        assert dice(fast == label, torchs == label) >= DICE, card.structures[label - 1].name


def test_16_bit_floats_run_where_they_are_asked_for(part: LoadedPart) -> None:
    """Same labels in single precision as torch's to 1e-3; bfloat16 rounds to 8 bits of fraction."""
    if not engines.has_half(CPU):
        pytest.skip("this processor does not compute in bfloat16")
    tile = torch.randn((1, 1, *part.patch), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = part.network(tile)
        single, half = (
            engines.fast_network(part, CPU, 1, half=half)(tile).clone() for half in (False, True)
        )
    apart = [float((found - exact).abs().max() / exact.abs().max()) for found in (single, half)]
    assert apart[0] < 1e-3 < apart[1] < 0.1


def test_the_options_choose_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card(write_model(tmp_path, structures=9, patch=(32, 24, 16)))
    asked: list[bool] = []

    def network(part: LoadedPart, *_: object, half: bool) -> Network:
        asked.append(half)
        return part.network

    monkeypatch.setattr("inference.nnunet.fast_network", network)
    predictor = NnunetPredictor(card)
    predictor.has_half = True
    image = np.zeros((32, 24, 16), dtype=np.float32)
    for kinds in ((), ("cpu",), ("cpu", "cuda"), ("cuda",)):
        predictor.predict(image, options=Options(half_on=frozenset(kinds)))
    predictor.predict(image, options=Options(mode="exact", half_on=frozenset({"cpu"})))
    assert asked == [False, True]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_openvinos_usage_statistics_are_not_loaded(part: LoadedPart) -> None:
    pytest.importorskip("openvino")
    engines.fast_network(part, CPU, 1)
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("fault", [ImportError("no openvino"), RuntimeError("no kernel")])
def test_torch_runs_where_openvino_cannot(
    part: LoadedPart,
    fault: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def convert(*_: object) -> None:
        raise fault

    monkeypatch.setattr(engines, "Converted", convert)
    with caplog.at_level(logging.WARNING):
        assert engines.fast_network(part, CPU, 1) is part.network
    assert caplog.messages == ["OPENVINO_NOT_USED"]


def test_torch_runs_where_openvino_disagrees(
    part: LoadedPart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong:
        def __init__(self, network: torch.nn.Module, shape: object) -> None:
            self.network = network

        def compile(self, *_: object) -> object:
            return lambda tile: self.network(tile).roll(1, dims=1)

    monkeypatch.setattr(engines, "Converted", Wrong)
    with caplog.at_level(logging.WARNING):
        assert engines.fast_network(part, CPU, 1) is part.network
    assert caplog.messages == ["OPENVINO_DISAGREES"]


@pytest.mark.parametrize(
    ("patch", "tile"),
    [((128, 128, 128), (64, 64, 64)), ((112, 112, 96), (48, 48, 96)), ((8, 24, 40), (8, 24, 16))],
)
def test_the_tile_of_the_comparison_can_be_halved_as_often_as_the_patch(
    part: LoadedPart, patch: tuple[int, int, int], tile: tuple[int, int, int]
) -> None:
    changed = LoadedPart(
        network=part.network,
        patch=patch,
        axes=part.axes,
        intensities=part.intensities,
        labels=part.labels,
    )
    assert engines.smallest_tile(changed) == tile


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_half_precision_on_cuda_keeps_the_bound(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path, structures=9, patch=(32, 32, 32)))
    image = np.random.default_rng(0).integers(-900, 800, (40, 50, 60)).astype(np.float32)
    fast = NnunetPredictor(card, device="cuda:0").predict(image)
    exact = NnunetPredictor(card, device="cuda:0").predict(image, options=Options(mode="exact"))
    assert np.mean(fast != exact) < 0.05, "random weights: many near-ties"
    loaded = load_part(card.parts[0], card, torch.device("cuda:0"))
    half = engines.on_cuda(loaded, half=True)
    assert isinstance(half, engines.Graph)
    with torch.inference_mode():
        tile = torch.randn((1, 1, 32, 32, 32), device="cuda:0")
        scores = [torch.softmax(n(tile).float(), 1) for n in (loaded.network, half)]
        half(torch.zeros_like(tile))
        assert torch.equal(torch.softmax(half(tile).float(), 1), scores[1])
    error = (scores[0] - scores[1]).abs().flatten()
    assert float(torch.quantile(error[:1_000_000], 0.999)) <= engines.SCORE_BOUND


def test_a_network_that_gave_its_memory_back_gives_the_same_again(part: LoadedPart) -> None:
    pytest.importorskip("openvino")
    from inference.openvino import Converted

    network = Converted(part.network, part.patch).compile(part.patch, 1)
    tile = torch.randn((1, 1, *part.patch), generator=torch.Generator().manual_seed(0))
    before = network(tile).clone()
    network.release()
    assert torch.equal(network(tile), before)
