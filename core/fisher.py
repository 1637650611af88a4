"""The default method: training-free, second-order, one price for everything.

``survey`` does what does not depend on the goal: calibration, and the price of every size of every layer. ``shrink``
does the rest for one plan. Several goals share one survey.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from core.calibrate import Moments, calibrate
from core.candidates import Calibrated, LinearCandidate, Reader
from core.curves import Curve, Gain, curve, full_option, parameters_gained
from core.data import Prepared
from core.evidence import Spectrum
from core.families import canonical_copy
from core.heads import AttentionCandidate
from core.plans import size_of
from core.progress import OnProgress, Progress, Stage
from core.prune import FeedForwardCandidate
from core.rebuild import rebuild
from core.refit import refit_
from core.shapes import AttentionShape, FeedForwardShape, LayerShape, LinearShape, ModelShape
from core.spectra import spectra
from core.stream import Walk, walk
from vitpress.layers import Attention, FeedForward
from vitpress.plan import Dense, Plan


@dataclass(frozen=True)
class Survey:
    """What is known of ``model``, which nothing changes, once it is calibrated. ``canonical``: it in our modules."""

    model: nn.Module
    canonical: nn.Module
    shape: ModelShape
    moments: Mapping[str, Moments]
    candidates: Mapping[str, Calibrated]
    walk: Walk | None

    def curves(self, gain: Gain = parameters_gained) -> list[Curve]:
        """In the order of the shape's layers. A layer that no gradient reaches has its full size alone."""
        return [
            curve(layer, self.candidates[layer.path].prices, gain)
            if layer.path in self.candidates
            else Curve(layer, (full_option(layer, gain),))
            for layer in self.shape.layers
        ]

    def spectra(self, plan: Plan) -> tuple[Spectrum, ...]:
        components = {path: each.components for path, each in self.candidates.items()}
        prices = {path: each.prices for path, each in self.candidates.items()}
        return spectra(self.shape.layers, plan, components, prices, "nats")

    def rebuild(self, plan: Plan) -> nn.Module:
        """The model that ``plan`` describes, before any re-fit."""
        return rebuild(self.model, self.shape, plan, self.candidates)

    def reader_of(self, plan: Plan, path: str) -> Reader | None:
        """What the map at ``path``, if it reads the stream, stands for in the model of ``plan``; None: for itself."""
        layers = {layer.path: (shape, layer) for shape, layer in zip(self.shape.layers, plan.layers, strict=True)}
        for place, name in ((path, ""), path.rpartition(".")[::2]):
            shape, layer = layers.get(place, (None, None))
            if shape and layer and not isinstance(layer, Dense):
                return self.candidates[place].readers(size_of(shape, layer)).get(name)
        return None


def survey(model: nn.Module, shape: ModelShape, data: Prepared, seed: int, on_progress: OnProgress) -> Survey:
    """Calibrate, and price every size of every layer. Raises ``NumericalError``."""
    total = data.calibration_images
    canonical = canonical_copy(model)
    moments = calibrate(
        canonical,
        [path for layer in shape.layers for path in maps_of(layer)],
        data.calibration,
        seed=seed,
        on_images=lambda done: on_progress(Progress(Stage.CALIBRATE, done / total)),
    )
    candidates = {}
    for index, layer in enumerate(shape.layers):
        if all(path in moments for path in maps_of(layer)):
            candidates[layer.path] = candidate(canonical.get_submodule(layer.path), layer, moments)
        on_progress(Progress(Stage.COMPRESS, 0.5 * (index + 1) / len(shape.layers)))
    return Survey(model, canonical, shape, moments, candidates, walk(canonical, data.calibration))


def shrink(survey: Survey, plan: Plan, on_progress: OnProgress, *, refit: bool = True) -> nn.Module:
    """The model that ``plan`` describes, its maps re-fitted along the stream where there is one."""
    smaller = survey.rebuild(plan)
    if refit:
        refit_along_(smaller, plan, survey, on_progress)
    return smaller


def refit_along_(smaller: nn.Module, plan: Plan, survey: Survey, on_progress: OnProgress) -> None:
    """Re-fit the model of ``plan`` in place, if the original is a single stream."""
    if survey.walk is not None:
        refit_(
            smaller,
            survey.canonical,
            survey.walk,
            survey.moments,
            lambda path: survey.reader_of(plan, path),
            on_block=lambda fraction: on_progress(Progress(Stage.COMPRESS, 0.5 + 0.5 * fraction)),
        )


def maps_of(layer: LayerShape) -> Iterator[str]:
    """The paths of a layer's linear maps in a canonical model."""
    match layer:
        case LinearShape():
            yield layer.path
        case AttentionShape():
            yield from (f"{layer.path}.qkv", f"{layer.path}.proj")
        case FeedForwardShape():
            yield from (f"{layer.path}.fc1", f"{layer.path}.fc2")


def candidate(module: nn.Module, layer: LayerShape, moments: Mapping[str, Moments]) -> Calibrated:
    """``module``: of a canonical model."""
    known = [moments[path] for path in maps_of(layer)]
    match layer, module:
        case AttentionShape(), Attention():
            return AttentionCandidate(module, layer, *known)
        case FeedForwardShape(), FeedForward():
            return FeedForwardCandidate(module, layer, *known)
        case LinearShape(), nn.Linear():
            return LinearCandidate(module, layer, *known)
    raise TypeError(f"{layer.path} is a {type(module).__name__}, not a {layer.kind}")
