#!/usr/bin/env bash
# Create an environment with the published scportrait, then install this checkout of cellstamp into it, as a user does.
# That must not change a package that is there. The environment takes 3 GB, mostly torch (7 GB with CUDA).
set -euo pipefail
venv=${1:?usage: setup_scportrait.sh VENV}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"${PYTHON:-python3}" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --requirement "$here/requirements.txt"
before=$("${pip[@]}" freeze)
"${pip[@]}" install --quiet --editable "$here/.."
after=$("${pip[@]}" freeze)

changed=$(comm -23 <(sort <<<"$before") <(sort <<<"$after"))
if [ -n "$changed" ]; then
    echo "Installing cellstamp changed these packages: $changed" >&2
    exit 1
fi
"${pip[@]}" check
