#!/usr/bin/env bash
# What launch/tpu_vm.sh runs on each host of a slice, in the folder of the code that it has copied:
#   start FLAGS   starts avjax.main so that it outlives the connection; ~/avjax.log gets what it prints
#   state         prints running, stopped, ended STATUS, or lost: none of them, as after a reboot
#   stop          ends the run, which saves its state, and waits until it has ended
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
process=~/avjax.process status=~/avjax.status stopped=~/avjax.stopped

running() { [ -s "$process" ] && kill -0 "$(cat "$process")" 2> /dev/null; }

case $1 in
  start)
    if running; then
      echo "error: a run is going on here already; launch/tpu_vm.sh --tail shows it, --stop ends it" >&2
      exit 2
    fi
    rm -f "$status" "$stopped"
    # TERM goes to the whole group; the outer shell outlives the run and keeps its exit status.
    # shellcheck disable=SC2016  # the inner shell expands it
    setsid nohup bash -c 'trap : TERM; bash launch/run.sh "$@"; echo $? > ~/avjax.status' - \
      .venv/bin/python -m avjax.main "${@:2}" >> ~/avjax.log 2>&1 < /dev/null &
    echo $! > "$process"
    ;;
  state)
    if running; then echo running
    elif [ -e "$stopped" ]; then echo stopped
    elif [ -s "$status" ]; then echo "ended $(cat "$status")"
    else echo lost
    fi
    ;;
  stop)
    touch "$stopped"
    if running; then kill -TERM -- "-$(cat "$process")"; fi
    while running; do sleep 1; done
    ;;
esac
