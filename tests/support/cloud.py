"""Plays Google Cloud for launch/tpu_vm.sh: a `gcloud` whose two hosts are folders of this machine.

`install` puts it, and a Python that has only what the scripts ask of it, into a folder for PATH.
What it is asked goes to the file `asked`, a line for each call. `queue1` holds the states that the
slice goes through after it has been requested for the first time, one a line, and so on: each look
takes one, and the last one stays. The look that finds a file `unreachable` fails, once; while there
is a file `shut`, no host lets anybody in.
"""

import os
import pathlib
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
GCLOUD = r"""#!/usr/bin/env bash
set -u
printf '%q ' "$@" >> "$CLOUD/asked"; echo >> "$CLOUD/asked"
case "$3 $4" in
  'queued-resources list')
    if [ -e "$CLOUD/unreachable" ]; then rm "$CLOUD/unreachable"; exit 1; fi
    if [ -s "$CLOUD/queue" ]; then
      head -n 1 "$CLOUD/queue"
      if [ "$(wc -l < "$CLOUD/queue")" -gt 1 ]; then sed -i 1d "$CLOUD/queue"; fi
    fi ;;
  'queued-resources create')
    if [ -s "$CLOUD/queue" ]; then echo 'it exists already' >&2; exit 1; fi
    echo >> "$CLOUD/requests"
    touch "$CLOUD/new"
    cp "$CLOUD/queue$(wc -l < "$CLOUD/requests")" "$CLOUD/queue" ;;
  'queued-resources delete')
    rm -rf "$CLOUD/queue" "$CLOUD"/host* ;;  # with the disks of the hosts
  'tpu-vm scp')
    for i in 0 1; do mkdir -p "$CLOUD/host$i"; cp "$5" "$CLOUD/host$i/${6#*:}"; done ;;
  'tpu-vm ssh')
    if [ -e "$CLOUD/new" ]; then rm "$CLOUD/new"; exit 255; fi  # once: nobody is let in yet
    if [ -e "$CLOUD/shut" ]; then exit 255; fi
    hosts='0 1'; command=
    for word in "${@:6}"; do
      case $word in --worker=0) hosts=0 ;; --command=*) command=${word#--command=} ;; esac
    done
    for i in $hosts; do
      mkdir -p "$CLOUD/host$i"
      (cd "$CLOUD/host$i" && HOME=$PWD bash -c "$command") || exit
    done ;;
  *) echo "not a command that is played: $*" >&2; exit 1 ;;
esac
"""

# pip installs nothing, uv makes an environment whose Python is the program `trainer`.
PYTHON = r"""#!/usr/bin/env bash
set -u
printf '%q ' "$@" >> "$CLOUD/python"; echo >> "$CLOUD/python"
case "$1 $2 $3" in
  '-m uv venv')
    mkdir -p .venv/bin
    cp "$CLOUD/trainer" .venv/bin/python
    chmod +x .venv/bin/python ;;
esac
"""


def install(folder, trainer, queues):
  """Writes the programs into folder/bin; returns the environment in which they are found first.

  Args:
    folder: in which the cloud keeps what it has.
    trainer: text of a Bash script that stands for Python in the environment of the hosts.
    queues: the states of the slice, a list for each time that it is requested.
  """
  (folder / 'bin').mkdir(parents=True)
  for name, text in (('gcloud', GCLOUD), ('python3', PYTHON)):
    (folder / 'bin' / name).write_text(text)
    (folder / 'bin' / name).chmod(0o755)
  (folder / 'trainer').write_text(f'#!/usr/bin/env bash\n{trainer}')
  for i, states in enumerate(queues, 1):
    (folder / f'queue{i}').write_text('\n'.join(states) + '\n')
  path = f'{folder / "bin"}:{os.environ["PATH"]}'
  return {**os.environ, 'CLOUD': str(folder), 'PATH': path, 'POLL_SECONDS': '.1'}


def asked(folder, name='asked'):
  """Returns the words of each call."""
  return [shlex.split(line) for line in (folder / name).read_text().splitlines()]


def make_checkout(folder):
  """Makes a Git repository with launch/ and one commit, as a person has it; returns its folder."""
  shutil.copytree(ROOT / 'launch', folder / 'launch')
  shutil.copy(ROOT / 'hashes.txt', folder)
  for words in (
    ['init', '--quiet'],
    ['add', '.'],
    ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '--quiet', '--message', 'all'],
  ):
    subprocess.run(['git', *words], cwd=folder, check=True)
  return folder
