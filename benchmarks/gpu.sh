#!/usr/bin/env bash
# Everything that is measured on a GPU, in one go, for a machine with a GPU and torch, but no network:
#
#   benchmarks/gpu.sh wheels FOLDER             where there is a network: fetch what is missing there
#   benchmarks/gpu.sh run FOLDER RESULTS        there: 8 minutes at most (LIMIT=480 seconds)
#
# Steps come in the order of their worth, and each writes to RESULTS when it has ended, so that a
# run that is cut short keeps what it has. A step that fails costs no other. The wheels are for the
# Python that fetches them: PYTHON=python3.12 chooses another one, of the same version as there.
# DEVICE=cpu tries the script itself, with small sizes and what is installed, without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-480}
DEVICE=${DEVICE:-cuda}

usage() {
    sed -n '3,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# Without torch, torchvision and the libraries that they need alone: those are there.
wheels() {
    local folder=$1 report
    mkdir -p "$folder"
    report=$(mktemp)
    "$PYTHON" -m pip install --quiet --dry-run --ignore-installed --report "$report" \
        --constraint constraints.txt '.[gpu,service]' pytest hypothesis
    "$PYTHON" - "$report" > "$folder/needed.txt" <<'END'
import json
import re
import sys

there = ("torch", "nvidia", "triton", "cuda", "cui-annotator")
with open(sys.argv[1]) as report:
    packages = {one["metadata"]["name"]: one["metadata"] for one in json.load(report)["install"]}
of_faiss = {re.match(r"[\w.-]+", needed)[0] for needed in packages["faiss-gpu"]["requires_dist"]}
for name, about in packages.items():
    if name in of_faiss or not name.lower().startswith(there):
        print(f"{name}=={about['version']}")
END
    rm "$report"
    "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$folder" --requirement "$folder/needed.txt"
    du -sh "$folder" >&2
}

# step NAME SECONDS COMMAND...: within its own time and what is left of the whole.
step() {
    local name=$1 seconds=$2 left=$((START + LIMIT - $(date +%s))) code=0
    shift 2
    if [ "$left" -lt 10 ]; then
        echo "$name: left out, no time" | tee -a "$RESULTS/steps.txt" >&2
        return
    fi
    [ "$seconds" -lt "$left" ] || seconds=$left
    timeout --kill-after=5 "$seconds" "$@" > "$RESULTS/$name.log" 2>&1 || code=$?
    cp benchmarks/results/throughput.jsonl "$RESULTS/" 2> /dev/null || true
    echo "$name: exit $code after $(($(date +%s) - START)) s in all" | tee -a "$RESULTS/steps.txt" >&2
}

run() {
    local folder=$1 site
    RESULTS=$(mkdir -p "$2" && cd "$2" && pwd)
    START=$(date +%s)
    site=$(mktemp -d)
    if [ "$DEVICE" != cpu ]; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$folder"/*.whl
    fi
    export PYTHONPATH="$site:$PWD" PYTHONUNBUFFERED=1

    local rows=80000,1000000 most=10000000 batches=1,32,256,4096 images=4000
    if [ "$DEVICE" = cpu ]; then
        rows=2000 most=4000 batches=1,32 images=64
    fi
    local latency=(-m benchmarks.index_latency --device "$DEVICE" --dim 512 --k 50 --repeats 1
        --batch "$batches" --results "$RESULTS" --work "$site/work")
    if [ "$DEVICE" = cpu ]; then
        latency+=(--only flat,torch --threads 1 --lone 20 --batch-s 1)
    fi
    nvidia-smi > "$RESULTS/device.txt" 2>&1 || lscpu > "$RESULTS/device.txt"
    step tests 90 "$PYTHON" -m pytest -q -p no:cacheprovider \
        tests/index/search/test_gpu.py tests/encoders/test_embedder.py
    step throughput 150 "$PYTHON" -m benchmarks.throughput --device "$DEVICE" --n "$images" --rounds 1
    step latency 150 "$PYTHON" "${latency[@]}" --n "$rows"
    step latency-large 240 "$PYTHON" "${latency[@]}" --n "$most" --name large
    rm -rf "$site"
}

case "${1:-}:$#" in
    wheels:2) wheels "$2" ;;
    run:3) run "$2" "$3" ;;
    *) usage ;;
esac
