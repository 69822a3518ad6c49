#!/usr/bin/env bash
# Starts one run in several processes on this machine, as it would run on several hosts. Use it to
# check that a config runs distributed before you pay for hosts.
#   launch/multihost_cpu.sh [--dry-run] PROCESSES DEVICES \
#     --config=configs/grjca.py:mini --workdir=RUN --config.data.dir=RECORDS
# Each of the PROCESSES has DEVICES simulated devices. TERM or Ctrl-C stops all of them at the same
# batch and saves the state.
set -euo pipefail

dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
if [ $# -lt 3 ] || ! [[ "$1 $2" =~ ^[1-9][0-9]*\ [1-9][0-9]*$ ]]; then
  echo "usage: launch/multihost_cpu.sh [--dry-run] PROCESSES DEVICES FLAGS OF avjax.main" >&2
  exit 2
fi
processes=$1 devices=$2
shift 2

port=${PORT:-$((20000 + RANDOM % 20000))}
export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
children=()
for ((i = 0; i < processes; i++)); do
  command=("${PYTHON:-.venv/bin/python}" -m avjax.main "--coordinator=127.0.0.1:$port" "--processes=$processes" "--process=$i" "$@")
  if [ -n "$dry_run" ]; then
    echo "JAX_PLATFORMS=$JAX_PLATFORMS XLA_FLAGS=$XLA_FLAGS ${command[*]}"
  else
    "${command[@]}" &
    children+=($!)
  fi
done
if [ -n "$dry_run" ]; then exit; fi

# One signal is enough: the process that receives it tells the others.
trap 'kill -TERM "${children[0]}" 2>/dev/null || true' TERM INT
status=0
for child in "${children[@]}"; do
  until wait "$child"; do
    found=$?
    if kill -0 "$child" 2>/dev/null; then continue; fi  # only the wait was interrupted, by a signal
    if [ "$status" -eq 0 ]; then status=$found; fi  # what the others die of comes after it
    break
  done
done
exit "$status"
