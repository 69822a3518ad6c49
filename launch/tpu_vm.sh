#!/usr/bin/env bash
# Trains on a Cloud TPU slice, with one process on each of its hosts:
#   launch/tpu_vm.sh [--dry-run] [--type TYPE [--spot] [--keep]] NAME ZONE CONFIG RECORDS RUN [--config.KEY=VALUE ...]
#   launch/tpu_vm.sh [--dry-run] --tail|--stop|--delete NAME ZONE
# --type v5litepod-16 requests the slice NAME as a queued resource, and waits until it is there;
# without it, NAME is a TPU VM that exists. The commit that is checked out here is copied to every
# host, Python is prepared there by uv, and the run is started so that it outlives this computer. The
# same command again continues a run that has ended. Records and run must lie where all hosts see
# them: on a disk that all have mounted, or on gs://.
#   --spot     a slice for less money, which may be taken away (preempted) at any time
#   --keep     stays and looks after the run: a slice that was taken away is requested again, and the
#              same command goes on there; ends with the exit status of the run
#   --tail     shows the log of the first host
#   --stop     ends the run, which saves its state; the slice stays, and costs money
#   --delete   gives the slice back
set -euo pipefail

usage() {
  sed -n '3,4s/^# */  /p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

dry_run='' type='' spot='' keep='' action=start
while [[ "${1:-}" == --* ]]; do
  case $1 in
    --dry-run) dry_run=1 ;;
    --type) type=${2:?--type needs a type, such as v5litepod-16}; shift ;;
    --spot) spot=1 ;;
    --keep) keep=1 ;;
    --tail | --stop | --delete) action=${1#--} ;;
    *) usage ;;
  esac
  shift
done
if [ -z "$type" ] && [ -n "$spot$keep" ]; then usage; fi  # they are about a slice that is requested here
if [ "$action" = start ]; then
  if [ $# -lt 5 ]; then usage; fi
elif [ $# -ne 2 ]; then
  usage
fi
name=$1 zone=$2
seconds=${POLL_SECONDS:-60}  # between two looks at the queue or at the run
looks=10  # at hosts that let nobody in, after which it gives up

step() {
  if [ -n "$dry_run" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
on_hosts() {  # on_hosts all|0 COMMAND
  step gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" "--worker=$1" "--command=$2"
}
host='bash avjax/launch/tpu_host.sh'

case $action in
  tail) on_hosts 0 'tail -n 100 -F avjax.log'; exit ;;
  stop) on_hosts all "$host stop"; exit ;;
  delete) step gcloud compute tpus queued-resources delete "$name" "--zone=$zone" --force --quiet; exit ;;
esac
config=$3 records=$4 run=$5
shift 5

case $type in  # the image of each kind, as Google names it
  v5lite*) image=v2-alpha-tpuv5-lite ;;
  v5p*) image=v2-alpha-tpuv5 ;;
  v6e*) image=v2-alpha-tpuv6e ;;
  *) image=tpu-ubuntu2204-base ;;
esac

slice_state() {  # nothing where there is no such slice
  step gcloud compute tpus queued-resources list "--zone=$zone" "--filter=name~(^|/)$name\$" '--format=value(state.state)'
}
request_slice() {
  step gcloud compute tpus queued-resources create "$name" "--node-id=$name" "--zone=$zone" \
    "--accelerator-type=$type" "--runtime-version=$image" ${spot:+--spot}
}
wait_to_be_let_in() {  # wait_to_be_let_in LOOKS WHO
  if [ "$1" -eq 1 ]; then
    echo "waiting for ssh: $2 nobody in; asked every $seconds s, $looks times at most"
  elif [ "$1" -ge "$looks" ]; then
    echo "error: $2 nobody in by ssh, asked $looks times; the same command goes on" >&2
    exit 1
  fi
  sleep "$seconds"
}
before=''
wait_for_slice() {
  if [ -n "$dry_run" ]; then slice_state; request_slice; return; fi
  local state tries=0
  while true; do
    if ! state=$(slice_state); then
      if [ -z "$before" ]; then exit 1; fi  # the very first look: gcloud has said what is wrong
      sleep "$seconds"
      continue
    fi
    if [ "$state" != "$before" ]; then echo "slice $name: ${state:-not there}"; fi
    before=$state
    case $state in
      ACTIVE)
        if on_hosts all true; then return; fi  # a new host lets nobody in for a while
        tries=$((tries + 1))
        wait_to_be_let_in "$tries" "some host of $name lets"
        ;;
      '') request_slice ;;
      SUSPENDED) step gcloud compute tpus queued-resources delete "$name" "--zone=$zone" --force --quiet ;;
      FAILED)
        echo "error: Google could not provide $name; gcloud compute tpus queued-resources describe $name --zone=$zone says why, --delete removes the request" >&2
        exit 1
        ;;
      *) sleep "$seconds" ;;
    esac
  done
}

here=$(dirname "${BASH_SOURCE[0]}")/..
code=avjax-$(git -C "$here" rev-parse --short=12 HEAD)  # its folder in the home folder of each host
if [ -n "$(git -C "$here" status --porcelain --untracked-files=no)" ]; then
  echo "what is not committed here is not copied to the hosts" >&2
fi
# A new folder that only you may read: in a shared one, a name that others can guess may be theirs.
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
archive=$code-${folder##*[./]}.tar.gz
flags=$(printf '%q ' --distributed "--config=$config" "--workdir=$run" "--config.data.dir=$records" "$@")  # quoted for the hosts' shells

start_run() {
  step git -C "$here" archive "--prefix=$code/" "--output=$folder/$archive" HEAD &&
    step gcloud compute tpus tpu-vm scp "$folder/$archive" "$name:$archive" "--zone=$zone" --worker=all &&
    on_hosts all "trap 'rm -f $archive' EXIT; tar xzf $archive && ln -sfn $code avjax && bash avjax/launch/prepare.sh tpu" &&
    on_hosts all "$host start $flags"
}

failures=0 started='' silent=0
while true; do
  if [ -n "$type" ]; then wait_for_slice; fi
  status=0
  start_run || status=$?
  if [ -n "$dry_run" ] || [ -z "$keep" ]; then exit "$status"; fi
  if [ "$status" -eq 0 ]; then started=1; fi
  # Looks after the run until it has ended or has lost its slice.
  while true; do
    if ! state=$(slice_state); then  # this computer is not connected now
      sleep "$seconds"
      continue
    fi
    if [ "$state" != ACTIVE ]; then break; fi
    if [ "$status" -eq 0 ]; then
      found=$(on_hosts 0 "$host state" | tail -n 1 || true)  # nothing where the slice is being taken away
    elif [ -z "$started" ]; then
      exit "$status"
    else
      found='not started'
    fi
    if [ -n "$found" ]; then silent=0; fi
    case $found in
      '')
        silent=$((silent + 1))
        wait_to_be_let_in "$silent" "host 0 of $name, which knows how the run is, lets"
        continue
        ;;
      stopped)
        echo "the run has been stopped; --delete gives the slice back"
        exit
        ;;
      'ended 0' | 'ended 2' | 'ended 3')  # finished; bad input; a loss that is not finite
        echo "the run has $found; --delete gives the slice back"
        exit "${found#ended }"
        ;;
      lost | ended* | 'not started')
        if [ "$found" != 'ended 75' ]; then failures=$((failures + 1)); fi  # 75: told to stop, or the bucket did not answer
        if [ "$failures" -gt 3 ]; then
          echo "error: the run is $found for the fourth time; --tail shows why" >&2
          exit 1
        fi
        echo "the run is $found and is started again"
        sleep "$seconds"  # the slice may be about to be taken away
        on_hosts all "$host stop" || true  # what still runs on other hosts
        continue 2
        ;;
    esac
    sleep "$seconds"
  done
  echo "slice $name has been taken away; it is requested again"
done
