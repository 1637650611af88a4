"""Other people's compressors, behind one signature, so that the same code judges them."""

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.rival_ptdeco import falor
from benchmarks.rival_torch_pruning import TorchPruning

# (model, calibration batches of images and labels, fraction of the parameters to remove, seed) → the smaller model
Rival = Callable[[nn.Module, list[tuple[Tensor, Tensor]], float, int], nn.Module]

RIVALS: dict[str, Rival] = {
    "torch-pruning-taylor-uniform": TorchPruning("taylor", everywhere=False),
    "torch-pruning-taylor-global": TorchPruning("taylor", everywhere=True),
    "torch-pruning-hessian-uniform": TorchPruning("hessian", everywhere=False),
    "torch-pruning-hessian-global": TorchPruning("hessian", everywhere=True),
    "torch-pruning-taylor-residual": TorchPruning("taylor", everywhere=True, residual=True),
    "ptdeco-falor": falor,
}
