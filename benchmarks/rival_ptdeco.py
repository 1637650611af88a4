"""ptdeco 0.5: FALOR, low rank of what the layers put out (Yu, Wu 2023, doi 10.1609/aaai.v37i9.26304).

Its own search gives each linear map, judged alone, the smallest rank that keeps the model's outputs within two
thresholds; as in its example they are equal, and bisected to the ratio of parameters. Covariances without the mean and
damped, as there too, of all calibration images.
"""

import copy
import hashlib
import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ptdeco.falor import decompose_in_place, decomposition
from torch import Tensor, nn

from benchmarks.bisect import nearest, parameters

library: Any = decomposition

# Judge a rank; its example has 5 batches of 8. The result hangs on which and how many they are, in no clear direction:
# of the digits at three quarters removed, 85.6 % are right with 8, 90.3 % with 16, 88.2 % with 64 (seed 0).
METRIC_BATCHES, METRIC_IMAGES = 5, 16
ANY_PROPORTION = 10.0  # as there: whatever rank saves parameters is taken
LOWEST, HIGHEST = -14.0, 5.0  # natural logarithm of the thresholds: noise to signal, and KL in nats


def falor(model: nn.Module, calibration: list[tuple[Tensor, Tensor]], ratio: float, seed: int) -> nn.Module:
    """A copy of ``model`` with ``ratio`` of its parameters removed."""
    del seed  # nothing here is drawn
    batches = [images for images, _ in calibration]
    with remembering(batches):
        return nearest(
            lambda knob: decomposed(model, batches, math.exp(knob)), parameters(model), ratio, LOWEST, HIGHEST
        )


def decomposed(model: nn.Module, batches: list[Tensor], threshold: float) -> nn.Module:
    """What the library makes of a copy of ``model`` at one value of both thresholds."""
    logging.getLogger("ptdeco").setLevel(logging.WARNING)
    smaller = copy.deepcopy(model).eval()
    judges = torch.cat(batches)[: METRIC_BATCHES * METRIC_IMAGES].split(METRIC_IMAGES)
    decompose_in_place(
        module=smaller,
        device=next(smaller.parameters()).device,
        data_iterator=itertools.cycle(judges),
        proportion_threshold=ANY_PROPORTION,
        nsr_final_threshold=threshold,
        kl_final_threshold=threshold,
        num_data_steps=len(batches),
        num_metric_steps=len(judges),
        use_float64=True,
        use_mean=False,
        use_damping=True,
    )
    return smaller


@contextmanager
def remembering(batches: list[Tensor]) -> Iterator[None]:
    """Keep what the search measures: a bisection would otherwise measure the same ranks ten times over.

    A layer is judged in the otherwise original model, so that neither its directions nor what a rank does to the
    outputs depend on the thresholds. The directions are those of all of ``batches``, each seen once.
    """
    known: dict[tuple[object, ...], Any] = {}
    directions, metrics = library._compute_decompositon_of_covariance_matrix, library._compute_metrics

    def known_directions(**arguments: Any) -> Any:
        key = ("directions", arguments["decomposed_submodule_name"])
        if key not in known:
            known[key] = directions(**arguments | {"data_iterator": iter(batches)})
        return known[key]

    def known_metrics(**arguments: Any) -> Any:
        key = (arguments["decomposed_submodule"].name, _digest(arguments["deco_weight"]), _digest(arguments["x"]))
        if key not in known:
            known[key] = metrics(**arguments)
        return known[key]

    library._compute_decompositon_of_covariance_matrix, library._compute_metrics = known_directions, known_metrics
    try:
        yield
    finally:
        library._compute_decompositon_of_covariance_matrix, library._compute_metrics = directions, metrics


def _digest(values: Tensor) -> bytes:
    return hashlib.blake2b(values.contiguous().numpy().tobytes(), digest_size=16).digest()
