#!/bin/sh
# Run one stage with this folder's code: sh tools/stage.sh NAME [OPTIONS]. Every command of dvc.yaml starts with it.
#
# DVC runs a command in the user's login shell, maybe without an activated environment, maybe in a temporary checkout
# below .dvc/tmp. So Python is looked for here: LEANFACE_PYTHON, then an activated environment that has LeanFace, then
# .venv of this folder or of one above it, then the `leanface` on PATH.

python=${LEANFACE_PYTHON:-}

try() { # an environment's folder
    if [ -z "$python" ] && [ -n "$1" ] && [ -x "$1/bin/leanface" ] && [ -x "$1/bin/python" ]; then
        python=$1/bin/python
    fi
}

try "${VIRTUAL_ENV:-}"
try "${CONDA_PREFIX:-}"
folder=$PWD
while [ -n "$folder" ]; do
    try "$folder/.venv"
    folder=${folder%/*}
done
try "${DVC_ROOT:+$DVC_ROOT/.venv}"
if [ -z "$python" ] && found=$(command -v leanface); then
    try "${found%/bin/leanface}"
fi
if [ -z "$python" ]; then
    echo "No Python with LeanFace here: run \`make setup\`, activate an environment that has it, or set LEANFACE_PYTHON." >&2
    exit 127
fi

# The code beside dvc.yaml, whatever is installed. -P: a folder of the project must not hide an installed package.
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
exec "$python" -P -m leanface stage "$@"
