from typing import Any

import pytest
import torch
from reduced import build, config_of, images
from small_vit import Make
from surveys import Batches
from timm.models.vision_transformer import Block, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import Tensor, nn

from core.families import canonical_copy
from core.stream import Walk, after_attention, after_feed_forward, classifier, features, input_of, walk

PRE_NORM = [
    "vit_tiny_patch16_224",
    "deit3_small_patch16_224",  # layer scales
    "vit_pe_core_tiny_patch16_384",  # rope, a norm before the blocks
    "vit_small_patch16_rope_mixed_224",  # another rotation in each block
    "eva_giant_patch14_224",  # biases beside the fused map
    "eva02_tiny_patch14_336",  # rope, SwiGLU
    "beit_base_patch16_224",  # position biases, layer scales of another name
    "test_vit3",  # attention pooling
]
OTHER = ["swin_tiny_patch4_window7_224", "pit_ti_224", "mobilevit_xxs", "vit_base_patch16_rpn_224"]


def walked(architecture: str) -> tuple[nn.Module, Batches, Walk | None]:
    config = config_of(architecture)
    model = canonical_copy(build(config))
    data = [(each, torch.zeros(len(each))) for each in images(config, 7).split(4)]
    return model, data, walk(model, data)


def last_output(model: nn.Module, path: str, batch: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        model(batch)
    handle.remove()
    return seen[0]


class TestWalk:
    @pytest.mark.parametrize("architecture", PRE_NORM)
    def test_gives_the_stream_that_the_model_has(self, architecture: str) -> None:
        model, data, found = walked(architecture)
        assert found is not None
        assert found.paths == ("blocks.0", "blocks.1") or architecture == "test_vit3"
        assert [len(each) for each in found.start] == [4, 3]
        for x, (batch, _) in zip(found.start, data, strict=True):
            torch.testing.assert_close(x, input_of(model.get_submodule(found.paths[0]), model, batch))
            for path, extras in zip(found.paths, found.extras, strict=True):
                block = model.get_submodule(path)
                with torch.inference_mode():
                    x = after_feed_forward(block, after_attention(block, x, extras))
            torch.testing.assert_close(x, last_output(model, found.paths[-1], batch), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("architecture", PRE_NORM)
    def test_ends_in_what_the_classifier_gets(self, architecture: str) -> None:
        model, data, found = walked(architecture)
        assert found is not None
        assert found.classified == isinstance(classifier(model), nn.Linear)
        if found.classified:
            batch, _ = data[0]
            with torch.inference_mode():
                seen = features(model, last_output(model, found.paths[-1], batch))
                torch.testing.assert_close(seen, input_of(classifier(model), model, batch))

    def test_does_not_end_in_a_classifier_where_two_are_averaged(self) -> None:
        model, _, found = walked("deit_tiny_distilled_patch16_224")
        assert isinstance(model.get_submodule("head_dist"), nn.Linear)
        assert found is not None
        assert not found.classified

    @pytest.mark.parametrize("architecture", OTHER)
    def test_is_none_of_a_model_that_is_no_such_stream(self, architecture: str) -> None:
        _, _, found = walked(architecture)
        assert found is None

    @pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock, ParallelThingsBlock])
    def test_is_none_of_other_blocks(self, make_vit: Make, batches: Batches, block: type[nn.Module]) -> None:
        assert walk(make_vit(block_fn=block), batches) is None

    def test_is_none_where_something_stands_between_the_blocks(self, batches: Batches) -> None:
        class Interrupted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = nn.Sequential(Block(12, 3), nn.Tanh(), Block(12, 3))

            def forward(self, x: Tensor) -> Any:
                return self.blocks(x.flatten(1).unflatten(1, (24, 12)))

        assert walk(Interrupted().eval(), batches) is None

    def test_leaves_no_hook_behind(self) -> None:
        model, _, _ = walked("vit_tiny_patch16_224")
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class TestInput:
    def test_is_what_the_module_gets(self) -> None:
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        x = torch.randn(7, 3)
        torch.testing.assert_close(input_of(model[2], model, x), model[1](model[0](x)))
        assert not model[2]._forward_pre_hooks
