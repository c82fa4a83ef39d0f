"""Starts and stops the local broker; its data stays in the state folder between runs."""

import base64
import fcntl
import os
import secrets
import shutil
import subprocess
import time
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Self

from infra import InfraError
from infra.kafka.cache import Progress, ensure_jars
from infra.kafka.java import find_java
from infra.kafka.listeners import Listeners, PlainListeners
from infra.kafka.metadata import answering_cluster
from infra.leash import Leashed, leashed
from infra.state import LOOPBACK, pick_port

PREFERRED_PORT = 19092
_GRACE_S = 15.0
_POLL_S = 0.1
_LOG_LINES = 15
_PORT_TRIES = 3


class _PortLostError(InfraError):
    """The broker could not listen on the port that was free a moment before."""


class LocalKafka:
    """One KRaft node (broker and controller) with its folder `<state folder>/kafka`.

    `port`, `bootstrap` and `pid` are of the running broker; a broker that is started again keeps its port, and another
    LocalKafka on the same folder finds its data, on whatever port. It ends with this process.
    """

    def __init__(  # noqa: PLR0913 - all but the folder have their usual values
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        heap_mb: int = 512,
        listeners: Listeners | None = None,
        progress: Progress | None = None,
        start_timeout_s: float = 90.0,
    ) -> None:
        self.folder = (state_dir / "kafka").absolute()
        self.log_path = self.folder / "broker.log"
        self.start_timeout_s = start_timeout_s
        self.heap_mb = heap_mb
        self._asked_port = port
        self._listeners = listeners or PlainListeners()
        self._progress = progress or (lambda _: None)
        self._process: Leashed | None = None
        self._port: int | None = None

    @property
    def port(self) -> int:
        """Where clients connect. Raises RuntimeError before the first start."""
        if self._port is None:
            raise RuntimeError("this broker was never started")
        return self._port

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The Java process. Raises RuntimeError when there is none."""
        if self._process is None:
            raise RuntimeError("this broker does not run")
        return self._process.pid

    def start(self) -> None:
        """Returns when the broker answers. Raises InfraError: a tool, a port or the folder is not there, or it died."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError("this broker runs already")
        may_move = self._asked_port is None and self._port is None
        for tries_left in reversed(range(_PORT_TRIES if may_move else 1)):
            try:
                self._start_once()
            except _PortLostError:  # another program was faster between our look and the broker's bind
                if not tries_left:
                    raise
                self._port = None
            else:
                return

    def _start_once(self) -> None:
        java, jars = find_java(), ensure_jars(self._progress)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._take_folder()
        try:
            self._port = pick_port(PREFERRED_PORT, self._asked_port if self._port is None else self._port, "Kafka")
            command: list[str | Path] = [
                java,
                "-cp",
                f"{jars}/*",
                f"-Dlog4j2.configurationFile={self._write_log_config().name}",
            ]
            self._listeners.prepare(self.folder)
            data = self.folder / "data"
            if not data.is_dir():
                self._format([*command, "kafka.tools.StorageTool"], data)
            config = self._write_config(data)
            self._progress(f"starting Kafka on {self.bootstrap}")
            if self.log_path.exists():
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
            options = [f"-Xmx{self.heap_mb}m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExitOnOutOfMemoryError"]
            with self.log_path.open("wb") as log:
                started = [*command, *options, "kafka.Kafka", config.name]
                self._process = leashed(started, cwd=self.folder, stdout=log, grace_s=_GRACE_S, hold_fds=(lock,))
        finally:
            os.close(lock)  # the holder has it now, until the broker is gone
        try:
            self._await_ready(_cluster_id(data))
        except BaseException:  # Ctrl-C among them
            self.kill()
            raise

    def stop(self) -> None:
        """Stops the broker in an orderly way; does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """Kills it with -9; `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def poll(self) -> int | None:
        """The exit status of a broker that ended by itself, else None."""
        return None if self._process is None else self._process.poll()

    def last_log_lines(self) -> list[str]:
        """The end of the broker's log without Java's stack frames, for error messages."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if not line.startswith("\t")][-_LOG_LINES:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _take_folder(self) -> int:
        """Waits out a broker of an `up` that was killed: its holder is still ending it and has the lock until then."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline: float | None = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline is None:
                    deadline = time.monotonic() + _GRACE_S + 5
                    self._progress("waiting for the broker of an earlier run to end")
                if time.monotonic() > deadline:
                    os.close(lock)
                    sentence = f"another broker runs in {self.folder}; stop it, or choose another state folder"
                    raise InfraError(sentence) from None
                time.sleep(_POLL_S)
            else:
                return lock

    def _write_log_config(self) -> Path:
        target = self.folder / "log4j2.yaml"
        target.write_text((files("infra.kafka") / "log4j2.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        return target

    def _write_config(self, data: Path) -> Path:
        template = Template((files("infra.kafka") / "server.properties").read_text(encoding="utf-8"))
        target = self.folder / "server.properties"
        controller = pick_port(None, None, "Kafka's controller")
        text = template.substitute(controller_port=controller, data=data.name)
        target.write_text(text + self._listeners.properties(self.port, controller), encoding="utf-8")
        return target

    def _format(self, tool: list[str | Path], data: Path) -> None:
        """Makes the data folder under another name first, so that a format cut short is never taken for one."""
        self._progress("formatting Kafka's data folder")
        partial = data.with_name("data.partial")
        shutil.rmtree(partial, ignore_errors=True)
        # The tool takes a leading dash for an option, and 16 random bytes give one now and then.
        cluster_id = "f" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")[1:]
        command = [*tool, "format", "--cluster-id", cluster_id, "--config", self._write_config(partial).name]
        command += self._listeners.format_arguments()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            said = "\n  ".join((done.stdout + done.stderr).splitlines()[-_LOG_LINES:])
            raise InfraError(f"Kafka could not format {data} (exit status {done.returncode}); it said:\n  {said}")
        partial.rename(data)

    def _await_ready(self, cluster_id: str) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        port, context = self._listeners.ready_at(self.port)
        while answering_cluster(port, timeout_s=2.0, context=context) != cluster_id:
            code = self.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            late = f"did not answer within {self.start_timeout_s:.0f} s"
            what = late if code is None else f"ended with status {code} while starting"
            said = "\n  ".join(self.last_log_lines())
            error = _PortLostError if "Address already in use" in said else InfraError
            raise error(f"Kafka on {self.bootstrap} {what}; the end of {self.log_path}:\n  {said}")


def _cluster_id(data: Path) -> str:
    """What the format wrote down. Raises InfraError when the data folder was tampered with."""
    properties = data / "meta.properties"
    try:
        lines = properties.read_text(encoding="utf-8").splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))
    except (OSError, StopIteration) as cause:
        raise InfraError(f"{properties}: no cluster.id; the data is damaged: delete {data} to start afresh") from cause
