"""Gradients with respect to activations alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode with no parameter requiring a gradient: saves a third of a backward pass."""
    training = model.training
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
