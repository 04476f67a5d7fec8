"""Branches of a network: copies of its later part, each trained on its own.

Of a packaged EfficientNet the first stages are the trunk, which all branches share and nothing
trains; a branch has the stages after them, with batch normalisation folded into convolutions.
Depthwise convolutions are left as they are: they have a twentieth of the weights, whose gradients
take half of the time of training on a CPU. Of any other network, whose parts are not known, a
branch is a copy of the whole, of which the first parameters are not trained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from annotator.encoders.contributions import patch_vectors, pooled_map
from annotator.encoders.efficientnet import FIRST_STAGE, StagePooling, shares_of_mean, unit
from annotator.encoders.fold_batchnorm import example_input, fold_batchnorm

_TRUNK_STAGES = 4  # of an EfficientNet; where its maps are smallest, and most of its weights follow


def trunk_of(general: nn.Module) -> nn.Sequential | None:
    """A copy of the part that all branches share, from pixels to maps; None if there is none.

    Args:
        general: The network of an encoder.
    """
    if not isinstance(general, StagePooling):
        return None
    parts = (general.conv_stem, general.bn1, *general.blocks[:_TRUNK_STAGES])
    return copy.deepcopy(nn.Sequential(*parts))


def new_branch(general: nn.Module, freeze: float) -> nn.Module:
    """A branch as it is before training, in evaluation mode; what requires a gradient is trained.

    Args:
        general: The network of an encoder, with its normalisation layers.
        freeze: Without a trunk: the share of the parameters, by their order, that stays as it is.

    Returns:
        A module from maps of the trunk, float[n, c, h, w], or from pixels, to float[n, length].
    """
    if isinstance(general, StagePooling):
        return StageBranch(general)
    branch = copy.deepcopy(general).eval().requires_grad_(True)
    parameters = list(branch.parameters())
    left = freeze * sum(parameter.numel() for parameter in parameters)
    for parameter in parameters[:-1]:
        left -= parameter.numel()
        if left < 0:
            break
        parameter.requires_grad_(False)
    return branch


def trained(branch: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a branch that are trained, by name: the others are the encoder's."""
    return {name: p for name, p in branch.named_parameters() if p.requires_grad}


class StageBranch(nn.Module):
    """The stages of an EfficientNet after its trunk, and the mean over its last layer."""

    def __init__(self, general: StagePooling) -> None:
        super().__init__()
        self.blocks = copy.deepcopy(general.blocks[_TRUNK_STAGES:])
        self.conv_head, self.bn2 = copy.deepcopy(general.conv_head), copy.deepcopy(general.bn2)
        self.eval()
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        fold_batchnorm(self, example_input(convolutions[0].in_channels, 14))
        for convolution in convolutions:
            convolution.requires_grad_(convolution.groups == 1)

    def forward(self, maps: Tensor) -> Tensor:
        """float[n, c, h, w] to float32[n, length]."""
        return self.map(maps).mean(dim=(2, 3), dtype=torch.float32)

    def map(self, maps: Tensor) -> Tensor:
        """The map whose mean is the branch's feature, float[n, length, h, w]."""
        head: Tensor = self.bn2(self.conv_head(self.blocks(maps)))
        return head


class BranchedStages(nn.Module):
    """General features of an EfficientNet and those of its branches; the trunk runs once.

    Args:
        general: The encoder's network, unchanged.
        branches: Trained.
    """

    def __init__(self, general: StagePooling, branches: Sequence[StageBranch]) -> None:
        super().__init__()
        self.general, self.branches = general, nn.ModuleList(branches)

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float32[n, dim]."""
        maps = list(self.general.maps(pixels))
        own = [unit(branch(self._trunk(maps))) for branch in self.branches]
        return torch.cat([*self.general.pooled(maps), *own], dim=1)

    def position_contributions(self, pixels: Tensor) -> list[Tensor]:
        """Contribution of each position to each block: float32[n, c, h, w] each."""
        maps = list(self.general.maps(pixels))
        own = [shares_of_mean(branch.map(self._trunk(maps))) for branch in self.branches]  # type: ignore[operator]
        return [*self.general.contributions(maps), *own]

    @staticmethod
    def _trunk(maps: Sequence[Tensor]) -> Tensor:
        return maps[_TRUNK_STAGES - 1 - FIRST_STAGE]


class BranchedCopies(nn.Module):
    """The features of a network and those of its branches, each at unit norm.

    Args:
        general: The encoder's network, unchanged.
        branches: Trained copies.
    """

    def __init__(self, general: nn.Module, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList([general, *branches])

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float32[n, dim]."""
        return torch.cat([unit(network(pixels).float()) for network in self.networks], dim=1)

    def position_contributions(self, pixels: Tensor) -> list[Tensor] | None:
        """As `BranchedStages.position_contributions`; None where a feature is no mean of a map."""
        maps = [pooled_map(network, pixels) for network in self.networks]
        found = [shares_of_mean(m.movedim(2, 0)[None]) for m in maps if m is not None]
        return found if len(found) == len(maps) else None

    def patch_vectors(self, pixels: Tensor) -> list[Tensor] | None:
        """`contributions.patch_vectors` of each network; None where there are no patches."""
        vectors = [patch_vectors(network, pixels) for network in self.networks]
        found = [v for v in vectors if v is not None]
        return found if len(found) == len(vectors) else None


def with_branches(general: nn.Module, branches: Sequence[nn.Module]) -> nn.Module:
    """General features and the branches' side by side, every block at unit norm.

    Args:
        general: The network of an encoder.
        branches: From `new_branch`, trained.
    """
    if isinstance(general, StagePooling):
        return BranchedStages(general, branches)  # type: ignore[arg-type]
    return BranchedCopies(general, branches)
