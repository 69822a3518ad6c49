#!/usr/bin/env bash
# Makes .venv with Python 3.12 and avjax on a machine that has an older Python, once:
#   launch/prepare.sh tpu|cuda|cpu
# uv, of the version and with the hashes of hashes.txt, brings that Python, and compares the packages
# with hashes.txt.
set -euo pipefail
extra=${1:-}
if [ $# -ne 1 ] || ! [[ $extra =~ ^(tpu|cuda|cpu)$ ]]; then
  echo "usage: launch/prepare.sh tpu|cuda|cpu" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -e ".venv/prepared-$extra" ]; then exit; fi
# The variable is for Debian's and Ubuntu's newer Pythons, which otherwise install nothing.
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user --require-hashes --requirement <(sed -n '/^uv==/,$p' hashes.txt)
python3 -m uv venv --quiet --clear --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python --constraint hashes.txt --build-constraint hashes.txt --editable ".[$extra]"
touch ".venv/prepared-$extra"
