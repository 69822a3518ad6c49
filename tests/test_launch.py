"""Tests launch/: scripts with a cloud and a Slurm that are played, the rest by its engine's rules.

Nothing here reaches a cloud: `gcloud`, `srun` and `scontrol` are found first as programs of the
tests.
"""

import configparser
import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import cloud
import jsonschema
import kubernetes_validate
import pytest
import yaml

from avjax import command_line

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
RUN = ['name', 'zone', 'configs/grjca.py', 'gs://b/records', 'gs://b/run', '--config.seed=3']
FLAGS = ['--config=configs/grjca.py', '--workdir=gs://b/run', '--config.data.dir=gs://b/records']
FLAGS = ['-m', 'avjax.main', '--distributed', *FLAGS, '--config.seed=3']

# Notes on the first host its words, and how often it has been started; saves when it is stopped.
NOTE = """
if [ "${HOME##*/}" != host0 ]; then while [ -d "$HOME" ]; do sleep .05; done; exit; fi
trap 'echo saved >> "$CLOUD/saved"; exit 0' TERM  # first: who finds `started` may stop it
printf '%q ' "$@" >> "$CLOUD/started"; echo >> "$CLOUD/started"
starts=$(wc -l < "$CLOUD/started")
"""
WAITS = 'while [ -d "$HOME" ]; do sleep .05; done'


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_have_nothing_that_shellcheck_finds(script):
  for command in (['bash', '-n'], [shutil.which('shellcheck', path=BIN), '--external-sources']):
    done = subprocess.run([*command, script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


BIN = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'


@pytest.fixture
def checkout(tmp_path):
  return cloud.make_checkout(tmp_path / 'checkout')


class Cloud:
  """A slice of two hosts that launch/tpu_vm.sh of a checkout finds, in a folder."""

  def __init__(self, checkout, folder, trainer, queues):
    self.script, self.folder = checkout / 'launch' / 'tpu_vm.sh', folder
    self.environment = cloud.install(folder, NOTE + trainer, queues)

  def launch(self, *words):
    return subprocess.run(
      ['bash', self.script, *words],
      env=self.environment,
      capture_output=True,
      text=True,
      timeout=120,
    )

  def verbs(self):
    """Returns the kinds of calls in order, each repetition once."""
    words = [' '.join(call[2:4]) for call in cloud.asked(self.folder)]
    return [verb for verb, before in zip(words, ['', *words], strict=False) if verb != before]


@pytest.fixture
def make_cloud(checkout, tmp_path):
  made = []

  def make(trainer, *queues):
    made.append(Cloud(checkout, tmp_path / f'cloud{len(made)}', trainer, queues))
    return made[-1]

  yield make
  for one in made:  # what runs on a host ends with it
    while hosts := list(one.folder.glob('host*')):
      for host in hosts:
        shutil.rmtree(host, ignore_errors=True)  # while something there still writes


@pytest.mark.slow
def test_a_preempted_slice_is_requested_again_and_the_same_command_goes_on(make_cloud):
  preempted = 'if [ $starts = 1 ]; then echo SUSPENDED > "$CLOUD/queue"; ' + WAITS + '; fi; exit 0'
  one = make_cloud(
    preempted,
    ['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'],
    ['SUSPENDING', 'SUSPENDED'],  # taken away once more before it could be used
    ['ACTIVE'],
  )
  done = one.launch('--type', 'v5litepod-16', '--spot', '--keep', *RUN)
  assert done.returncode == 0, done.stderr
  assert cloud.asked(one.folder, 'started') == [FLAGS, FLAGS]
  created = [call for call in cloud.asked(one.folder) if call[3] == 'create']
  assert len(created) == 3 and created[0] == created[1] == created[2]
  assert created[0][4:] == [
    'name',
    '--node-id=name',
    '--zone=zone',
    '--accelerator-type=v5litepod-16',
    '--runtime-version=v2-alpha-tpuv5-lite',
    '--spot',
  ]
  assert one.verbs()[:8] == [
    'queued-resources list',
    'queued-resources create',
    'queued-resources list',
    'tpu-vm ssh',  # which nobody answers yet
    'queued-resources list',
    'tpu-vm ssh',
    'tpu-vm scp',
    'tpu-vm ssh',
  ]
  assert 'slice name has been taken away; it is requested again' in done.stdout
  assert 'the run has ended 0; --delete gives the slice back' in done.stdout


@pytest.mark.slow
def test_a_run_outlives_the_command_and_is_stopped_by_another(make_cloud):
  one = make_cloud(WAITS, ['ACTIVE'])
  done = one.launch('--type', 'v6e-8', *RUN)
  assert (done.returncode, done.stderr) == (0, '')
  wait_for(lambda: (one.folder / 'started').exists())
  again = one.launch('--type', 'v6e-8', *RUN)
  assert again.returncode == 2 and 'a run is going on here already' in again.stderr
  assert one.launch('--stop', 'name', 'zone').returncode == 0
  assert (one.folder / 'saved').read_text().startswith('saved\n')
  assert (one.folder / 'host0' / 'avjax.status').read_text() == '75\n'
  # The same command continues it, and --keep leaves it alone once it is stopped.
  keeping = subprocess.Popen(
    ['bash', one.script, '--type', 'v6e-8', '--keep', *RUN],
    env=one.environment,
    stdout=subprocess.PIPE,
    text=True,
  )
  wait_for(lambda: len(cloud.asked(one.folder, 'started')) == 2)
  (one.folder / 'unreachable').touch()  # no connection, for a moment
  wait_for(lambda: not (one.folder / 'unreachable').exists())
  assert one.launch('--stop', 'name', 'zone').returncode == 0
  assert 'has been stopped' in keeping.communicate(timeout=60)[0] and keeping.returncode == 0
  assert cloud.asked(one.folder, 'started') == [FLAGS, FLAGS]
  prepared = cloud.asked(one.folder, 'python')
  assert sum(call[:3] == ['-m', 'uv', 'venv'] for call in prepared) == 2  # once on each host
  assert one.launch('--delete', 'name', 'zone').returncode == 0
  assert cloud.asked(one.folder)[-1][2:] == [
    'queued-resources', 'delete', 'name', '--zone=zone', '--force', '--quiet',
  ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
  'trainer, status, starts, words',
  [
    ('exit 2', 2, 1, 'the run has ended 2'),
    ('exit $((starts < 3))', 0, 3, 'the run is ended 1 and is started again'),
    ('exit 1', 1, 4, 'error: the run is ended 1 for the fourth time'),
    (
      'if [ $starts = 1 ]; then kill -9 0; fi; exit 0',
      0,
      2,
      'the run is lost and is started again',
    ),
  ],
)
def test_runs_that_end_badly(make_cloud, trainer, status, starts, words):
  """Bad input ends it; a run that fails otherwise is started again, three times."""
  one = make_cloud(trainer, ['ACTIVE'])
  done = one.launch('--type', 'v5p-16', '--keep', *RUN)
  assert done.returncode == status and words in done.stdout + done.stderr
  assert cloud.asked(one.folder, 'started') == [FLAGS] * starts


@pytest.mark.slow
def test_hosts_that_let_nobody_in(make_cloud):
  """It says what it waits for, and for how long; before the run and beside it."""
  one = make_cloud(WAITS, ['ACTIVE'])
  (one.folder / 'shut').touch()
  done = one.launch('--type', 'v6e-8', '--keep', *RUN)
  assert done.returncode == 1
  said = 'waiting for ssh: some host of name lets nobody in; asked every .1 s, 10 times at most'
  assert done.stdout.splitlines().count(said) == 1
  assert done.stderr == (
    'error: some host of name lets nobody in by ssh, asked 10 times; the same command goes on\n'
  )
  (one.folder / 'shut').unlink()
  keeping = subprocess.Popen(
    ['bash', one.script, '--type', 'v6e-8', '--keep', *RUN],
    env=one.environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(lambda: (one.folder / 'started').exists())
  (one.folder / 'shut').touch()
  output, errors = keeping.communicate(timeout=60)
  assert keeping.returncode == 1
  assert output.count('waiting for ssh: host 0 of name, which knows how the run is, lets') == 1
  assert errors.startswith(
    'error: host 0 of name, which knows how the run is, lets nobody in by ssh'
  )


def test_a_slice_that_cannot_be_had(make_cloud):
  one = make_cloud('exit 0', ['FAILED'])
  done = one.launch('--type', 'v5p-16', '--keep', *RUN)
  assert done.returncode == 1
  assert done.stderr.startswith('error: Google could not provide name; ')
  (one.folder / 'unreachable').touch()
  assert one.launch('--type', 'v5p-16', '--keep', *RUN).returncode == 1
  assert not [call for call in cloud.asked(one.folder) if 'tpu-vm' in call]


def test_a_dry_run_asks_nothing(make_cloud):
  one = make_cloud('exit 0', ['ACTIVE'])
  done = one.launch('--dry-run', '--type', 'v5litepod-16', '--spot', '--keep', *RUN)
  shown = [' '.join(line.split()[:5]) for line in done.stdout.splitlines()]
  assert [line for line in shown if line.startswith('gcloud')] == [
    'gcloud compute tpus queued-resources list',
    'gcloud compute tpus queued-resources create',
    'gcloud compute tpus tpu-vm scp',
    'gcloud compute tpus tpu-vm ssh',
    'gcloud compute tpus tpu-vm ssh',
  ]
  for words in (['--tail'], ['--stop'], ['--delete']):
    assert one.launch('--dry-run', *words, 'name', 'zone').stdout.startswith('gcloud compute tpus ')
  for words in ([], ['--spot', *RUN], ['--keep', *RUN], ['--stop', 'name'], ['--what', *RUN]):
    assert one.launch(*words).returncode == 2, words
  assert not (one.folder / 'asked').exists()


def wait_for(condition):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end, 'nothing has come of it in a minute'
    time.sleep(0.02)


@pytest.mark.parametrize(
  'command, status',
  [
    ('exit 0', 0),
    ('exit 3', 3),
    ('kill -TERM $PPID; sleep .2; exit 0', 75),
    (WAITS, 75),  # TERM ends it
    (f"trap 'exit 0' TERM; {WAITS}", 75),
  ],
)
def test_run_tells_a_run_that_was_stopped_from_one_that_has_finished(tmp_path, command, status):
  environment = {**os.environ, 'CLOUD': str(tmp_path), 'HOME': str(tmp_path)}
  words = ['bash', LAUNCH / 'run.sh', 'bash', '-c', f'touch "$CLOUD/begun"; {command}']
  process = subprocess.Popen(words, env=environment)
  if WAITS in command:
    wait_for((tmp_path / 'begun').exists)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
  assert process.wait(60) == status


@pytest.mark.parametrize('words', [['run.sh'], ['prepare.sh'], ['prepare.sh', 'gpu']])
def test_usage(words):
  done = subprocess.run(
    ['bash', LAUNCH / words[0], *words[1:]], capture_output=True, text=True, cwd='/'
  )
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith(f'usage: launch/{words[0]} ') and done.stderr.count('\n') == 1


@pytest.mark.parametrize('status, requeued', [(0, False), (75, True), (2, False)])
def test_a_slurm_task_that_was_stopped_is_queued_again(tmp_path, status, requeued):
  (tmp_path / 'bin').mkdir()
  for name, text in (
    ('srun', f'echo "$@" >> {tmp_path}/srun; exit {status}'),
    ('scontrol', f'echo "$@" >> {tmp_path}/scontrol'),
  ):
    (tmp_path / 'bin' / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
    (tmp_path / 'bin' / name).chmod(0o755)
  task = {'SLURM_SUBMIT_DIR': ROOT, 'SLURM_ARRAY_TASK_ID': 7, 'SLURM_ARRAY_JOB_ID': 42}
  environment = {name: str(value) for name, value in task.items()}
  path = f'{tmp_path / "bin"}:{os.environ["PATH"]}'
  done = subprocess.run(
    ['bash', LAUNCH / 'slurm.sbatch', 'configs/grjca.py', 'RECORDS', 'RUNS'],
    env={**os.environ, **environment, 'PATH': path},
  )
  assert done.returncode == (0 if requeued else status)
  assert (tmp_path / 'srun').read_text() == (
    'launch/run.sh .venv/bin/python -m avjax.main --config=configs/grjca.py:target=arousal,fold=1 '
    '--workdir=RUNS/arousal_fold1 --config.data.dir=RECORDS\n'
  )
  assert (tmp_path / 'scontrol').exists() == requeued
  if requeued:
    assert (tmp_path / 'scontrol').read_text() == 'requeue 42_7\n'


def program(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/usr/bin/env bash\n{text}\n')
  path.chmod(0o755)


@pytest.mark.parametrize('device, distributed', [('tpu', ['--distributed']), ('cuda', [])])
def test_what_skypilot_runs(tmp_path, device, distributed):
  """The same command on every host, with what --env says; avjax takes it."""
  task = yaml.safe_load((LAUNCH / 'sky.yaml').read_text())
  shutil.copytree(LAUNCH, tmp_path / 'launch')
  program(tmp_path / '.venv/bin/python', 'printf "%q " "$@"')
  program(tmp_path / 'launch/prepare.sh', 'echo "prepares $1"')
  environment = task['envs'] | {'DEVICE': device, 'FLAGS': '--config.seed=3 --config.batch_size=6'}
  done = subprocess.run(
    ['bash', '-euc', f'{task["setup"]}\n{task["run"]}'],
    cwd=tmp_path,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  prepares, runs = done.stdout.splitlines()
  assert prepares == f'prepares {device}'
  assert shlex.split(runs) == [
    '-m',
    'avjax.main',
    *distributed,
    '--config=configs/grjca.py',
    '--workdir=gs://BUCKET/run',
    '--config.data.dir=gs://BUCKET/records',
    '--config.seed=3',
    '--config.batch_size=6',
  ]


def test_skypilot_takes_its_file(tmp_path):
  """Task.from_yaml checks each field. SkyPilot needs other versions than those that are pinned."""
  python = os.environ.get('SKYPILOT_PYTHON')
  if not python and importlib.util.find_spec('sky'):
    python = sys.executable
  if not python:
    pytest.skip('SkyPilot is not installed here: SKYPILOT_PYTHON names a Python that has it')
  code = (
    'import sys, sky; task = sky.Task.from_yaml(sys.argv[1]); '
    'print(task.num_nodes, all(r.use_spot and r.job_recovery for r in task.resources))'
  )
  quiet = {'HOME': str(tmp_path), 'SKYPILOT_DISABLE_USAGE_COLLECTION': '1'}
  done = subprocess.run(
    [python, '-c', code, LAUNCH / 'sky.yaml'],
    env={**os.environ, **quiet},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == '1 True'


def fields(required, **properties):
  """Returns the JSON schema of an object that has these fields and no others."""
  return {
    'type': 'object',
    'properties': properties,
    'required': required.split(),
    'additionalProperties': False,
  }


NAME = {'type': 'string', 'pattern': '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}
# What launch/gke.yaml uses of a JobSet, written here from the API jobset.x-k8s.io/v1alpha2;
# the template of the Job in it is checked by Kubernetes' own schema.
JOBSET = fields(
  'apiVersion kind metadata spec',
  apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
  kind={'const': 'JobSet'},
  metadata=fields('name', name=NAME, annotations={'type': 'object'}),
  spec=fields(
    'replicatedJobs',
    failurePolicy=fields(
      '',
      maxRestarts={'type': 'integer', 'minimum': 0},
      rules={
        'type': 'array',
        'items': fields(
          'name action',
          name={'type': 'string', 'pattern': '^[A-Za-z]([A-Za-z0-9_,:-]*[A-Za-z0-9_])?$'},
          action={'enum': ['FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts']},
          onJobFailureReasons={
            'type': 'array',
            'items': {
              'enum': [
                'BackoffLimitExceeded',
                'DeadlineExceeded',
                'FailedIndexes',
                'MaxFailedIndexesExceeded',
                'PodFailurePolicy',
              ]
            },
          },
        ),
      },
    ),
    replicatedJobs={
      'type': 'array',
      'items': fields(
        'name template',
        name=NAME,
        replicas={'type': 'integer', 'minimum': 1},
        template={'type': 'object'},
      ),
    },
  ),
)


def test_kubernetes_takes_the_jobset():
  found = yaml.safe_load((LAUNCH / 'gke.yaml').read_text())
  jsonschema.validate(found, JOBSET)
  (job,) = found['spec']['replicatedJobs']
  whole = {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': {'name': 'avjax'},
    **job['template'],
  }
  kubernetes_validate.validate(whole, '1.33', strict=True)
  with pytest.raises(kubernetes_validate.ValidationError):  # a field that there is not is noticed
    whole['spec']['template']['spec']['containers'][0]['reedOnly'] = True
    kubernetes_validate.validate(whole, '1.33', strict=True)
  # Numbers that belong together: chips, machines, and what ends the JobSet.
  spec = job['template']['spec']
  pod = spec['template']['spec']
  (container,) = pod['containers']
  chips = 1
  for side in pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'):
    chips *= int(side)
  machines = chips // container['resources']['limits']['google.com/tpu']
  assert spec['parallelism'] == spec['completions'] == machines == 4
  assert spec['podFailurePolicy']['rules'][0]['onExitCodes']['containerName'] == container['name']
  # The records are copied to the disk of the node, where the user of the container may write.
  (cache,) = [volume for volume in pod['volumes'] if 'hostPath' in volume]
  places = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert container['env'] == [{'name': 'XDG_CACHE_HOME', 'value': places[cache['name']]}]
  (first,) = pod['initContainers']
  user = pod['securityContext']['runAsUser']
  assert first['command'] == ['chown', f'{user}:{user}', places[cache['name']]]
  assert (
    first['image'] == container['image'] and first['volumeMounts'][0] in container['volumeMounts']
  )
  program, *flags = container['args']
  assert program == 'avjax-train' and '--distributed' in flags
  _, configs = command_line.parse(['main', *flags])
  assert list(configs) == ['']


def test_the_image():
  """Each target has its extra, another user than root, and what is copied exists."""
  hadolint = shutil.which('hadolint', path=BIN)
  if not hadolint:
    pytest.skip('hadolint has no program for this platform')
  done = subprocess.run([hadolint, LAUNCH / 'Dockerfile'], capture_output=True, text=True)
  assert (done.returncode, done.stdout) == (0, '')
  text = re.sub(r'^#.*\n', '', (LAUNCH / 'Dockerfile').read_text(), flags=re.MULTILINE)
  base, *targets = [
    stage.splitlines() for stage in re.split(r'^FROM ', text, flags=re.MULTILINE)[1:]
  ]
  for line in base:
    if line.startswith('COPY '):
      for name in line.split()[1:-1]:
        assert (ROOT / name).exists(), name
  assert 'ENTRYPOINT ["bash", "/avjax/launch/run.sh"]' in base
  extras = configparser.ConfigParser()
  extras.read(ROOT / 'setup.cfg')
  known = set(extras['options.extras_require'])
  assert [stage[0] for stage in targets] == [f'base AS {name}' for name in ('cpu', 'cuda', 'tpu')]
  for stage in targets:
    (wanted,) = re.findall(r"'\.\[(.*?)\]'", '\n'.join(stage))
    assert stage[0].endswith(wanted.split(',')[0]) and set(wanted.split(',')) <= known
    assert '--constraint hashes.txt' in stage[1] and stage[2] == 'USER 1000:1000'
