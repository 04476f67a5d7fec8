#!/bin/sh
# Take out of an environment what only compiling against its libraries, testing them, or devices and
# formats that annotator has no use for need; then use it, so that bytecode is there of what is used:
# sh shrink.sh FOLDER
set -eu
target=$1
packages=$(echo "$target"/lib/python3*/site-packages)
cd "$packages"

find . -depth -type d \( -name __pycache__ -o -name tests \) -exec rm -rf {} +
find . -type f \( -name '*.a' -o -name '*.h' -o -name '*.hpp' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \) -delete
rm -rf torch/include torch/share torch/test torch/lib/*test*.so numpy/_core/include numpy/_core/lib
find torch/bin -type f ! -name torch_shm_manager -delete
# `*.libs` of wheels are left alone: they do not all survive it.
strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so \
    fontTools/*/*.so kiwisolver/*.so
rm -rf hf_xet # a quicker way to download from a hub
rm -rf pyarrow/include pyarrow/src pyarrow/libarrow_flight* pyarrow/_flight* pyarrow/flight.py \
    pyarrow/libarrow_substrait* pyarrow/_substrait* pyarrow/libarrow_s3* pyarrow/_s3fs*
for copy in pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*.*; do # one file thrice
    short=$(echo "${copy%%.so*}".so.????)
    if cmp -s "$copy" "$short"; then ln -f "$short" "$copy"; fi
done
rm -rf openvino/include openvino/cmake openvino/libs/libopenvino_intel_gpu* openvino/libs/cache.json \
    openvino/libs/libopenvino_intel_npu* openvino/libs/libopenvino_tensorflow* \
    openvino/libs/libopenvino_paddle* openvino/libs/libopenvino_onnx* openvino/libs/libopenvino_gguf* \
    openvino/libs/libopenvino_jax*

# The main job, by each engine; a command that something is missing for ends the build.
tried=$(mktemp -d)
cd "$tried"
export ANNOTATOR_CACHE="$tried/cache" HOME="$tried"
annotator="$target/bin/annotator --quiet"
$annotator sample sample --n 24
$annotator build-index sample/images sample/concepts.csv --thumbnails
$annotator annotate sample/images --engine torch > by_torch.csv
$annotator annotate sample/images --no-cache > run.csv
$annotator evaluate run.csv sample/concepts.csv > score.txt
$annotator verify
"$target/bin/python3" -c 'import annotator.explain.report, service.server, service.worker'
cd /
rm -rf "$tried"
