#!/usr/bin/env bash
# Trains on a Cloud TPU slice, with one process on each of its hosts:
#   launch/tpu_vm.sh [--dry-run] NAME ZONE configs/grjca.py /mnt/RECORDS /mnt/RUN [--config.KEY=VALUE ...]
# NAME is an existing TPU VM (gcloud compute tpus tpu-vm create) with Python 3.11 or later. The
# commit that is checked out here is copied to every host. Records and run must lie on a disk that
# all hosts have mounted. The same command again continues the run.
set -euo pipefail

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if [ $# -lt 5 ]; then
  echo "usage: launch/tpu_vm.sh [--dry-run] NAME ZONE CONFIG RECORDS RUN [--config.KEY=VALUE ...]" >&2
  exit 2
fi
name=$1 zone=$2 config=$3 records=$4 run=$5
shift 5

step() {
  if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
on_all_hosts() {
  step gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1"
}

archive=${TMPDIR:-/tmp}/avjax.tar.gz
step git archive --prefix=avjax/ --output="$archive" HEAD
step gcloud compute tpus tpu-vm scp "$archive" "$name:avjax.tar.gz" "--zone=$zone" --worker=all
on_all_hosts "tar xzf avjax.tar.gz && cd avjax && python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e '.[tpu]'"
flags=$(printf '%q ' "--config=$config" "--workdir=$run" "--config.data.dir=$records" "$@")  # quoted for the hosts' shells
on_all_hosts "cd avjax && .venv/bin/python -m avjax.main --distributed $flags"
