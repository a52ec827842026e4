"""Child processes that compute only when it is their turn, and how busy the machine is meanwhile.

Only Linux: what is measured comes from /proc. Standard library only, and no large object ever: a child's peak memory
counts what its parent had when it was forked.
"""
import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
TICK = 1 / os.sysconf("SC_CLK_TCK")
# NumPy's own threads are never of use here, but take memory.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def run(command):
    """Runs a command to its end and returns what it printed; its errors go to standard error."""
    return subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_script(name, *arguments):
    return run([sys.executable, HERE / name, *map(str, arguments)])


def fresh(command):
    """Seconds from start to end of a command, and its peak memory in bytes."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return seconds, usage.ru_maxrss * 1024


class Worker:
    """A peer in a process of its own, which is stopped whenever it is not asked for anything.

    Stopped, not merely idle: the threads of a runtime may go on spinning for a while after an inference.
    """

    def __init__(self, name, work, batch, threads, *cache):
        arguments = map(str, (name, work, batch, threads, *cache))
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", *arguments],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = name
        try:
            # What it says of its first answer.
            self.first = self._read()
            self._stop()
        except BaseException:
            self.close()
            raise

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker for {self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def _stop(self):
        self.process.send_signal(signal.SIGSTOP)
        while any(state not in "TZX" for state in self._thread_states()):
            time.sleep(0.001)
        self.seconds_when_stopped = self.cpu_seconds()

    def _thread_states(self):
        for stat in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/stat"):
            # A thread may have ended since it was listed.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield fields(stat)[0]

    def cpu_seconds(self):
        """Processor time of all its threads so far."""
        values = fields(f"/proc/{self.process.pid}/stat")
        return (int(values[11]) + int(values[12])) * TICK

    def answer(self, warmup, runs):
        """Milliseconds of each of `runs` inferences."""
        # The last moments before it was stopped may be booked late, a tick or two of them.
        computed = self.cpu_seconds() - self.seconds_when_stopped
        if computed > 2.5 * TICK:
            raise RuntimeError(f"the worker for {self.name} computed for {computed:.2f} s while it was stopped")
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{warmup} {runs}\n")
        self.process.stdin.flush()
        milliseconds = self._read()
        self._stop()
        return milliseconds

    def close(self):
        # A stopped process can be killed, but not be asked to end.
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def fields(stat):
    """The fields of a stat file in /proc from the state on; the name before it may hold spaces."""
    return pathlib.Path(stat).read_text().rpartition(")")[2].split()


@contextlib.contextmanager
def watch(worker=None):
    """Yields a dictionary that says, once the block has ended, how busy the machine was.

    `load` is the load average, in which the measurement itself counts; `others` is how many cores were kept busy by
    anything but the worker and the children that ended within the block.
    """

    def own():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime + (worker.cpu_seconds() if worker else 0)

    start, busy, ours = time.perf_counter(), busy_seconds(), own()
    found = {}
    yield found
    seconds = time.perf_counter() - start
    found["load"] = os.getloadavg()[0]
    found["others"] = max(0.0, (busy_seconds() - busy - (own() - ours)) / seconds)


def busy_seconds():
    """Of all cores together since the machine was started; a hypervisor's share of them counts as busy."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) * TICK
