#!/usr/bin/env bash
# Runs a command that a TERM makes save its state and end with 0, as it does avjax.main:
#   launch/run.sh .venv/bin/python -m avjax.main FLAGS
# TERM is passed on to it. The exit status is that of the command, but 75 where TERM has come: what
# has started this (Kubernetes, SkyPilot, Slurm, launch/tpu_vm.sh) would take 0 for a finished run,
# and must start the same command again. The command itself ends with 75 where its bucket has not
# answered for minutes.
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "usage: launch/run.sh COMMAND [ARGUMENTS]" >&2
  exit 2
fi
child='' asked=''
trap 'asked=1; kill -TERM $child 2> /dev/null || true' TERM  # before anything is started
"$@" &
child=$!
if [ -n "$asked" ]; then kill -TERM "$child" 2> /dev/null || true; fi
status=0
until wait "$child"; do
  status=$?
  if ! kill -0 "$child" 2> /dev/null; then break; fi  # otherwise only the wait was interrupted
  status=0
done
# 143: it was stopped before it could handle TERM.
if [ -n "$asked" ] && { [ "$status" -eq 0 ] || [ "$status" -eq 143 ]; }; then exit 75; fi
exit "$status"
