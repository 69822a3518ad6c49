#!/usr/bin/env bash
# Trains on a Cloud TPU slice, with one process on each of its hosts:
#   launch/tpu_vm.sh [--dry-run] NAME ZONE configs/grjca.py /mnt/RECORDS /mnt/RUN [--config.KEY=VALUE ...]
# NAME is an existing TPU VM (gcloud compute tpus tpu-vm create) with Python 3.11 or later. The
# commit that is checked out here is copied to every host, into a folder of your home folder that is
# named by the commit. Records and run must lie on a disk that all hosts have mounted. The same
# command again continues the run.
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

here=$(dirname "${BASH_SOURCE[0]}")/..
code=avjax-$(git -C "$here" rev-parse --short=12 HEAD)  # its folder in the home folder of each host
# A new folder that only you may read: in a shared one, a name that others can guess may be theirs.
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
archive=$code-${folder##*[./]}.tar.gz
step git -C "$here" archive "--prefix=$code/" "--output=$folder/$archive" HEAD
step gcloud compute tpus tpu-vm scp "$folder/$archive" "$name:$archive" "--zone=$zone" --worker=all
on_all_hosts "trap 'rm -f $archive' EXIT; tar xzf $archive && cd $code && python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e '.[tpu]'"
flags=$(printf '%q ' "--config=$config" "--workdir=$run" "--config.data.dir=$records" "$@")  # quoted for the hosts' shells
on_all_hosts "cd $code && .venv/bin/python -m avjax.main --distributed $flags"
