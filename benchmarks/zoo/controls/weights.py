"""Controls that handle the weights alone: what people do to make a model smaller, or by accident."""

import copy

import torch

from benchmarks.zoo.controls.base import ControlResult, Handling, finished, layer_linears
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import UsageError


def prune(base: FrozenEncoder, handling: Handling, *, share: float = 0.3) -> ControlResult:
    """Global magnitude pruning (Han et al. 2015, arXiv 1506.02626; nothing is trained afterwards).

    Args:
        share: of the linear weights of all layers together, the smallest ones, that become zero.

    Reached: `pruned`, the share of those weights that is zero.

    Raises:
        UsageError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UsageError(f"expected a share between 0 and 1, got {share}")
    model = copy.deepcopy(base.model)
    weights = [linear.weight for linear in layer_linears(model)]
    with torch.no_grad():
        sizes = torch.cat([weight.abs().flatten() for weight in weights])
        threshold = sizes.kthvalue(max(1, round(share * len(sizes)))).values
        for weight in weights:
            weight.masked_fill_(weight.abs() <= threshold, 0.0)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return finished(base, model, handling, pruned=zeros / len(sizes))


def int8(base: FrozenEncoder, handling: Handling) -> ControlResult:
    """The linear weights of all layers rounded to int8 and back, symmetric, one scale for each output row (Wu et al.
    2020, arXiv 2004.09602, section 3).

    Reached: `levels`, the most different values in a row, at most 255.
    """
    model = copy.deepcopy(base.model)
    levels = 0
    with torch.no_grad():
        for linear in layer_linears(model):
            scale = linear.weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
            steps = (linear.weight / scale).round()
            linear.weight.copy_(steps * scale)
            levels = max(levels, *(len(row.unique()) for row in steps))
    return finished(base, model, handling, levels=float(levels))


def weight_noise(base: FrozenEncoder, handling: Handling, *, scale: float = 0.1) -> ControlResult:
    """Gaussian noise on the linear weights of all layers, as a fine-tune without aim would leave it. (NoisyTune, Wu et
    al. 2022, arXiv 2202.12024, scales uniform noise by each matrix' own deviation in the same way.)

    Args:
        scale: standard deviation of the noise in units of that of each matrix.

    Raises:
        UsageError: a scale that is not positive.
    """
    if scale <= 0:
        raise UsageError(f"expected a positive scale, got {scale}")
    model = copy.deepcopy(base.model)
    generator = torch.Generator().manual_seed(handling.seed)
    with torch.no_grad():
        for linear in layer_linears(model):
            drawn = torch.randn(linear.weight.shape, generator=generator).to(linear.weight.device)
            linear.weight.add_(drawn * scale * linear.weight.std())
    return finished(base, model, handling)
