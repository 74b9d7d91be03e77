#!/bin/sh
# Pins every version: constraints.txt (all extras) and deploy/requirements.txt (what a serving image installs).
# Pins that still fit pyproject.toml stay. To upgrade a package, delete its line first; to upgrade all, empty constraints.txt.
# PYTHON names the interpreter. TORCH_INDEX, if set, is an index whose torch wheels are smaller to fetch.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python

resolve() { # TARGET FILE: what pip would install into an empty environment, as sorted `name==version` lines
    "$python" -m pip install --quiet --dry-run --ignore-installed --constraint "$work/pins" \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --report "$work/report.json" "$1"
    "$python" deploy/pins.py "$work/report.json" >"$2"
}

cp constraints.txt "$work/pins"
resolve '.[dev]' "$work/all"
cp "$work/all" "$work/pins" # the serving image gets the same versions
resolve . "$work/serving"
cp "$work/all" constraints.txt
cp "$work/serving" deploy/requirements.txt
