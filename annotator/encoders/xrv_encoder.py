"""Encoders of torchxrayvision: networks for chest radiographs, the features before the classifier.

Cohen et al. 2022, "TorchXRayVision: A library of chest X-ray datasets and models".
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn

from annotator.encoders.embedder import Encoder
from annotator.encoders.loading import explained, need
from annotator.encoders.preprocess import Preprocess
from annotator.encoders.torch_setup import make_torchvision_importable
from annotator.encoders.weights import load_backbone
from annotator.errors import AnnotatorError

# Grey levels from -1024 to 1024: (pixel / 255 - mean) / std.
_MEAN, _STD = (0.5, 0.5, 0.5), (1 / 2048, 1 / 2048, 1 / 2048)
_CONVERT = (
    "Loading a pickled model runs what is in it, so it is not loaded here. Where you trust "
    "torchxrayvision's file, save its tensors alone: python -c "
    '"import torchxrayvision, safetensors.torch; safetensors.torch.save_file('
    "torchxrayvision.models.DenseNet(weights='{0}').state_dict(), '{0}.safetensors')\" "
    "and use xrv:{0}@{0}.safetensors."
)


class GreyFeatures(nn.Module):
    """Pooled features of a convolutional network for images of one channel.

    Args:
        features: float[n, 1, size, size] to a map float[n, dim, h, w].
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.relu = nn.ReLU()  # a module, so that its map can be observed

    def forward(self, pixels: Tensor) -> Tensor:
        """float[n, 3, size, size] to float[n, dim]."""
        map_: Tensor = self.relu(self.features(pixels.mean(dim=1, keepdim=True)))
        return map_.mean(dim=(2, 3))


def make_xrv(rest: str) -> Encoder:
    """`WEIGHTS`, a name of torchxrayvision's, or `WEIGHTS@FILE` with a state dict of this network.

    Raises:
        AnnotatorError: There are no such weights, or they cannot be had, or would have to be
            unpickled.
    """
    weights, _, file_name = rest.partition("@")
    name = f"xrv:{weights}"
    need("torchxrayvision", name, "xrv")
    make_torchvision_importable()
    with warnings.catch_warnings(), explained(name):  # importing it turns all warnings off
        from torchxrayvision import models
        from torchxrayvision.utils import get_cache_dir
    known = models.model_urls.get(weights)
    if known is None:
        raise AnnotatorError(
            f"torchxrayvision has no weights {weights!r}.",
            f"It has {', '.join(models.model_urls)}.",
        )
    resnet = weights.startswith("resnet")
    model = GreyFeatures(_resnet() if resnet else models.DenseNet().features).eval()
    path = Path(file_name or Path(get_cache_dir(), Path(known["weights_url"]).name))
    if not file_name and not path.is_file():
        if not resnet:
            raise AnnotatorError(
                f"{name} is published as a pickled model.", _CONVERT.format(weights)
            )
        with explained(name), contextlib.redirect_stdout(sys.stderr):
            models.get_weights(weights)
    try:
        load_backbone(model.features if resnet else model, path)
    except AnnotatorError as error:
        if file_name:
            raise
        raise AnnotatorError(error.message, _CONVERT.format(weights)) from error
    # As the library does it: the centre, resized bilinearly.
    preprocess = Preprocess(known["input_resolution"], "crop", "bilinear", _MEAN, _STD)
    return Encoder(model, preprocess, f"torchxrayvision {'ResNet50' if resnet else 'DenseNet121'}")


def _resnet() -> nn.Module:
    """torchvision's ResNet-50 for one channel, up to its last map."""
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    *stages, _pool, _classifier = network.named_children()
    return nn.Sequential(OrderedDict(stages))
