#!/usr/bin/env bash
# Create an environment with the published scportrait and this checkout of cellstamp: about 3 GB, mostly torch.
set -euo pipefail
venv=${1:?usage: setup_scportrait.sh VENV}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"${PYTHON:-python3}" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --requirement "$here/requirements.txt"
"${pip[@]}" --no-deps --requirement "$here/requirements-no-deps.txt"
# scportrait pins older releases than cellstamp's lower bounds; the tested parts of both work with these.
"${pip[@]}" --no-deps --editable "$here/.."
