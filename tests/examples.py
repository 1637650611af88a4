"""Values that tests need and do not care about: a model's config, a plan and a report, as a small job would have."""

from typing import Any

from core.evidence import (
    ChangedImage,
    Changes,
    ConfusionCell,
    Evidence,
    LatencySamples,
    Spectrum,
    SpectrumPoint,
)
from core.recipe import FisherRecipe
from core.report import (
    Accuracy,
    Change,
    Constraint,
    DataUse,
    Environment,
    Latency,
    McNemar,
    Measured,
    Proportion,
    Report,
    sweep_report,
)
from vitpress.artifact import ModelConfig, Preprocessing
from vitpress.plan import Attention, Dense, FeedForward, Plan

CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    kwargs={
        "img_size": 12,
        "patch_size": 4,
        "in_chans": 2,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 7,
    },
    preprocessing=Preprocessing(input_size=(2, 12, 12), mean=(0.5, 0.5), std=(0.5, 0.5)),
)

RECIPE = FisherRecipe(target_ratio=0.5)

SMALL_JOB: dict[str, Any] = {  # a submission: the least that a real compression takes
    "model": "sample:vit_digits",
    "dataset": "sample:digits",
    "recipe": {"method": "svd", "target_ratio": 0.5, "calibration_images": 32},
}

PLAN = Plan(
    parameters_before=1_199_627,
    parameters_after=596_209,
    macs_before=61_592_329,
    macs_after=30_118_723,
    layers=(
        Attention(
            path="blocks.0.attn",
            parameters_before=148_417,
            parameters_after=74_209,
            predicted_loss=0.013,
            in_features=192,
            out_features=193,
            heads_before=3,
            heads=2,
            head_dim_before=67,
            qk_dim=31,
            v_dim=47,
            qkv_rank=61,
        ),
        FeedForward(
            path="blocks.0.mlp",
            parameters_before=148_199,
            parameters_after=73_999,
            predicted_loss=None,
            in_features=192,
            out_features=193,
            width_before=769,
            width=383,
            fc2_rank=89,
        ),
        Dense(path="blocks.1.mlp", parameters_before=148_199, parameters_after=148_199, predicted_loss=0.0),
    ),
)


def _measured(parameters: int, top1: float) -> Measured:
    return Measured(
        parameters=parameters,
        macs=61_592_329,
        file_bytes=4 * parameters,
        latency=(Latency(batch=1, p50_ms=3.1, p95_ms=3.7, images_per_second=331.0),),
        accuracy=Accuracy(top1=Proportion(value=top1, low=top1 - 0.01, high=top1 + 0.01), top5=None, images=1009),
    )


REPORT = Report(
    recipe=RECIPE,
    constraint=Constraint(requested=0.5, achieved=0.503, met=True),
    before=_measured(1_199_627, 0.92),
    after=_measured(596_209, 0.91),
    change=Change(
        relative_increase_in_error=0.125,
        mcnemar=McNemar(only_before_right=17, only_after_right=7, p_value=0.064),
        agreement=Proportion(value=0.97, low=0.96, high=0.98),
        kl_nats=0.021,
    ),
    data=DataUse(calibration_images=509, evaluation_images=1009, source="given", overlapping_images_dropped=0, seed=0),
    environment=Environment(device="cpu", threads=2, versions={"torch": "2"}),
    seconds={"compress": 11.0},
    left_dense={},
    reload_max_abs_difference=0.0,
)

EVIDENCE = Evidence(
    class_names=("boot", "sandal", "sneaker"),
    confusion=(
        ConfusionCell(0, 0, 331, 325),
        ConfusionCell(0, 1, 7, 13),
        ConfusionCell(1, 0, 11, 5),
        ConfusionCell(1, 1, 317, 323),
        ConfusionCell(2, 1, 0, 2),
        ConfusionCell(2, 2, 343, 341),
    ),
    changes=Changes(
        lost=2,
        gained=1,
        other=0,
        images=(
            ChangedImage(
                index=17,
                kind="lost",
                file="boot/<b>17</b>.png",
                label=0,
                before=0,
                after=1,
                probability_before=0.71,
                probability_after=0.53,
                # A WebP of one black pixel
                thumbnail="UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA",
            ),
            ChangedImage(
                index=601,
                kind="gained",
                file=None,
                label=1,
                before=0,
                after=1,
                probability_before=0.47,
                probability_after=0.59,
                thumbnail=None,
            ),
        ),
    ),
    latency=(
        LatencySamples(batch=1, measured=5, before_ms=(2.9, 3.0, 3.1, 3.3, 3.7), after_ms=(1.7, 1.8, 1.9, 2.0, 2.3)),
    ),
    spectra=(
        Spectrum(
            path="blocks.0.attn",
            part="qkv",
            unit="nats",
            count=192,
            kept=61,
            points=(
                SpectrumPoint(1, 0.31),
                SpectrumPoint(61, 0.0023),
                SpectrumPoint(127, 0.0),
                SpectrumPoint(192, 0.0),
            ),
        ),
        Spectrum(
            path="blocks.0.mlp",
            part="units",
            unit="nats",
            count=769,
            kept=383,
            points=(SpectrumPoint(383, 2e-4), SpectrumPoint(576, 1e-4), SpectrumPoint(769, 1e-5)),
        ),
    ),
)

SWEEP_RECIPE = FisherRecipe(target_ratios=(0.3, 0.5))

SWEEP_REPORT = sweep_report(
    SWEEP_RECIPE,
    [
        REPORT.model_copy(
            update={
                "recipe": FisherRecipe(target_ratio=0.3),
                "constraint": Constraint(requested=0.3, achieved=0.299, met=True),
                "after": _measured(840_001, 0.915),
            }
        ),
        REPORT,
    ],
)
