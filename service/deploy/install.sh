#!/bin/sh
# Install annotator from the current folder into an environment of its own: sh install.sh FOLDER
set -eu
target=$1
: "${VARIANT:=cpu}" "${EXTRAS:=service}" "${TORCH_INDEX:=}"

python3 -m venv "$target"
install="$target/bin/python3 -m pip --disable-pip-version-check --no-cache-dir --quiet install --no-compile"
if [ "$VARIANT" = cpu ]; then
    # The same versions, by an index whose wheels are for CPUs alone.
    grep -E '^torch(vision)?==' constraints.txt > /tmp/torch.txt
    # shellcheck disable=SC2086
    $install ${TORCH_INDEX:+--index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple} \
        --constraint constraints.txt --requirement /tmp/torch.txt
    rm /tmp/torch.txt
fi
$install --constraint constraints.txt ".[$VARIANT,$EXTRAS]"
"$target/bin/python3" -m pip --quiet uninstall --yes setuptools pip
