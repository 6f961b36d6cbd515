"""A client of banger's daemon: requests, events, streams, and sessions that survive every break.

Python 3.9 or later, standard library only. The protocol is described in docs/protocol.md; the names
here are its names.

    daemon = Daemon()                                  # starts the daemon where none runs
    session = daemon.call("guest.session.start", vm="dev", command=["agent"], name="fix-1")
    attached = Attachment(daemon, "dev", "fix-1", writer="me", on_output=print)
    attached.write(b'{"task": "…"}\n')
    print(attached.run())                              # the exit code

Layers, from the bottom: `FrameParser` (bytes to frames, no I/O), `Stream` (one connection of the
stream socket), `Client` (one connection of the JSON-RPC socket), `Daemon` (a client that is replaced
when it breaks), `Attachment` (a session's input and output, resumed by offset).
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import subprocess
import threading
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

PROTOCOL = 1
PAYLOAD_LIMIT = 1 << 20
HEADER = struct.Struct(">BI")

# Types of frames.
STDIN, STDIN_END, STDOUT, STDERR, RESIZE, SIGNAL, EXIT, ERROR, INPUT_TAKEN = range(1, 10)

# Kinds of failure after which the same thing may well succeed.
PASSING = ("unreachable", "daemon", "guest", "cancelled", "timed-out")


class Failure(Exception):
    """What the daemon answers where it can't do what was asked."""

    def __init__(self, data: Dict[str, Any]) -> None:
        super().__init__(data.get("message", "unknown failure"))
        self.kind: str = data.get("kind", "internal")
        self.hint: str = data.get("hint", "")
        self.stage: str = data.get("stage", "")
        self.detail: str = data.get("detail", "")


class Broken(Exception):
    """A connection was lost. Nothing is known of what was under way on it."""


# --- Bytes in JSON -----------------------------------------------------------------------------


def from_bytes(value: bytes) -> Any:
    """Bytes as the protocol has them: a string where they are UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def to_bytes(value: Any) -> bytes:
    """The reverse of `from_bytes`."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


# --- Frames ------------------------------------------------------------------------------------


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame; the payload has at most PAYLOAD_LIMIT bytes."""
    if len(payload) > PAYLOAD_LIMIT:
        raise ValueError("the payload of a frame is too long")
    return HEADER.pack(kind, len(payload)) + payload


class FrameParser:
    """Turns bytes, however they are cut, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Tuple[int, bytes]]:
        """Adds bytes; yields each frame that is complete now: type and payload."""
        self._buffer += data
        position = 0
        try:
            while len(self._buffer) - position >= HEADER.size:
                kind, length = HEADER.unpack_from(self._buffer, position)
                if not STDIN <= kind <= INPUT_TAKEN or length > PAYLOAD_LIMIT:
                    raise ValueError(f"no frame: type {kind}, {length} bytes")
                end = position + HEADER.size + length
                if len(self._buffer) < end:
                    break
                payload = bytes(self._buffer[position + HEADER.size : end])
                position = end
                yield kind, payload
        finally:
            del self._buffer[:position]


class Stream:
    """One connection of the stream socket, which a reply has promised."""

    def __init__(self, promise: Dict[str, Any]) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._parser = FrameParser()
        try:
            self._socket.connect(promise["socket"])
            self._socket.sendall(promise["token"].encode() + b"\n")
        except OSError as error:
            self._socket.close()
            raise Broken(str(error)) from error

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Writes a payload, in as many frames as it takes."""
        view = memoryview(payload)
        try:
            self._socket.sendall(encode_frame(kind, bytes(view[:PAYLOAD_LIMIT])))
            for start in range(PAYLOAD_LIMIT, len(view), PAYLOAD_LIMIT):
                self._socket.sendall(
                    encode_frame(kind, bytes(view[start : start + PAYLOAD_LIMIT]))
                )
        except OSError as error:
            raise Broken(str(error)) from error

    def frames(self) -> Iterator[Tuple[int, bytes]]:
        """Every frame until the last, which is EXIT or ERROR. Without it the stream was cut."""
        while True:
            try:
                data = self._socket.recv(256 << 10)
            except OSError as error:
                raise Broken(str(error)) from error
            if not data:
                raise Broken("the stream was cut")
            for kind, payload in self._parser.feed(data):
                yield kind, payload
                if kind in (EXIT, ERROR):
                    return

    def read_all(self, write: Callable[[bytes], Any]) -> int:
        """Hands all of standard output to `write`; the exit code."""
        for kind, payload in self.frames():
            if kind == STDOUT:
                write(payload)
            elif kind == EXIT:
                return payload[0]
            elif kind == ERROR:
                raise Failure(json.loads(payload))
        raise Broken("the stream was cut")

    def close(self) -> None:
        """Leaves. Also wakes whoever reads or writes here."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


# --- Requests ----------------------------------------------------------------------------------


class Client:
    """One connection of the JSON-RPC socket. Any thread may ask; replies come in any order.

    `on_event` and `on_progress` are called by the thread that reads: they must not ask themselves.
    """

    def __init__(
        self,
        path: str,
        name: str = "banger.py",
        on_event: Optional[Callable[[Dict[str, Any]], None]] = None,
        on_progress: Optional[Callable[[Dict[str, Any]], None]] = None,
    ) -> None:
        self._on_event = on_event
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._waiting: Dict[int, Future] = {}
        self._last_id = 0
        self.is_open = True
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Broken(str(error)) from error
        threading.Thread(target=self._read, daemon=True).start()
        self.call("daemon.hello", protocol=PROTOCOL, client=name)

    def submit(self, method: str, **params: Any) -> Future:
        """Asks, and does not wait. Parameters that are None are left out."""
        reply: Future = Future()
        params = {key: value for key, value in params.items() if value is not None}
        with self._lock:
            if not self.is_open:
                raise Broken("the connection is closed")
            self._last_id += 1
            request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
            self._waiting[self._last_id] = reply
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                del self._waiting[self._last_id]
                raise Broken(str(error)) from error
        return reply

    def call(self, method: str, **params: Any) -> Dict[str, Any]:
        """Asks and waits. Raises `Failure`, or `Broken` where the answer is not known."""
        return self.submit(method, **params).result()

    def close(self) -> None:
        """Hangs up, which cancels what still runs."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError):
            pass
        with self._lock:
            self.is_open = False
            waiting, self._waiting = self._waiting, {}
        self._socket.close()
        for reply in waiting.values():
            reply.set_exception(Broken("the daemon has gone"))

    def _take(self, message: Dict[str, Any]) -> None:
        if message.get("method") == "event":
            if self._on_event:
                self._on_event(message["params"]["event"])
        elif message.get("method") == "progress":
            if self._on_progress:
                self._on_progress(message["params"])
        else:
            with self._lock:
                reply = self._waiting.pop(message.get("id"), None)
            if reply is None:
                return
            if "error" in message:
                reply.set_exception(Failure(message["error"]["data"]))
            else:
                reply.set_result(message["result"])


class Daemon:
    """The daemon, connected to again whenever it has gone.

    `on_connect` is called with each new client, before anybody else gets it: the place to
    subscribe to events. It must not raise anything but Failure and Broken.
    """

    def __init__(
        self,
        binary: str = "banger",
        name: str = "banger.py",
        on_event: Optional[Callable[[Dict[str, Any]], None]] = None,
        on_progress: Optional[Callable[[Dict[str, Any]], None]] = None,
        on_connect: Optional[Callable[[Client], None]] = None,
    ) -> None:
        self._binary = binary
        self._name = name
        self._on_event = on_event
        self._on_progress = on_progress
        self._on_connect = on_connect
        self._lock = threading.Lock()
        self._client: Optional[Client] = None

    def client(self) -> Client:
        """A client that was connected a moment ago."""
        with self._lock:
            if self._client is None or not self._client.is_open:
                self._client = self._connect()
            return self._client

    def call(self, method: str, **params: Any) -> Dict[str, Any]:
        """As `Client.call`: Broken says that nobody knows whether it was done."""
        return self.client().call(method, **params)

    def ask(self, method: str, **params: Any) -> Dict[str, Any]:
        """The same for what may be asked twice: asks again where the connection was lost."""
        pause = Pause()
        while True:
            try:
                return self.call(method, **params)
            except Broken:
                pause.wait()

    def start_session(self, vm: str, name: str, **params: Any) -> Dict[str, Any]:
        """Starts a session, or finds the one that has the name already.

        So it may be called again whenever its answer was lost, also by a later process.
        """
        try:
            return self.ask("guest.session.start", vm=vm, name=name, **params)
        except Failure as failure:
            if failure.kind != "conflict":
                raise
            return self.ask("guest.session.get", vm=vm, session=name)

    def _connect(self) -> Client:
        # Does nothing where it runs, and tells where its socket is either way.
        started = subprocess.run(
            [self._binary, "--json", "daemon", "start"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for this program.
            start_new_session=True,
            check=False,
        )
        if started.returncode != 0:
            raise Failure(parse_failure(started.stderr))
        path = json.loads(started.stdout)["socket"]
        client = Client(path, self._name, self._on_event, self._on_progress)
        if self._on_connect:
            self._on_connect(client)
        return client


def parse_failure(text: bytes) -> Dict[str, Any]:
    """What `banger --json` writes to standard error."""
    try:
        return json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return {"kind": "daemon", "message": text.decode(errors="replace").strip()}


class Pause:
    """Ever longer pauses between attempts, 0.1 to 5 seconds."""

    def __init__(self) -> None:
        self._seconds = 0.1

    def wait(self) -> None:
        threading.Event().wait(self._seconds)
        self._seconds = min(self._seconds * 2, 5.0)

    def reset(self) -> None:
        self._seconds = 0.1


# --- Sessions ----------------------------------------------------------------------------------


class Attachment:
    """A session's output from a byte on and, for a writer, its input; both exactly once.

    The recipe of docs/protocol.md, "To resume after any break". What is kept of the input is what
    the session has not taken yet.
    """

    def __init__(
        self,
        daemon: Daemon,
        vm: str,
        session: str,
        writer: Optional[str] = None,
        takeover: bool = False,
        on_output: Optional[Callable[[int, bytes], None]] = None,
        on_break: Optional[Callable[[str], None]] = None,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
    ) -> None:
        """Observes where there is no `writer`: 1 to 32 of a-z and 0-9, for this session alone.

        `on_output` gets STDOUT or STDERR and bytes, `on_break` why the stream was lost.
        """
        self._daemon = daemon
        self._where = {"vm": vm, "session": session}
        self._writer = writer
        self._takeover = takeover
        self._on_output = on_output
        self._on_break = on_break
        self.offsets = {STDOUT: stdout_offset, STDERR: stderr_offset}
        #: Bytes that the logs no longer had when they were asked for.
        self.missed = 0
        #: How often the stream was lost.
        self.breaks = 0
        self._changed = threading.Condition()
        # Positions in the input, counted from its first byte.
        self._written = 0  # the end of what `write` was given
        self._taken = 0  # the end of what the session has taken, from any process of this writer
        self._sent = 0  # the end of what went out on this connection
        self._kept = bytearray()  # what ends at _written and is not known to be taken
        self._stream: Optional[Stream] = None  # while its first count has come
        self._is_over = False

    def write(self, data: bytes) -> None:
        """Adds input. It goes out when it can; see `drained`."""
        if self._writer is None:
            raise ValueError("an observer does not write")
        with self._changed:
            self._kept += data
            self._written += len(data)
            self._forget_taken()
            self._changed.notify_all()

    def drained(self) -> bool:
        """Waits until the session has taken all input; False where it has ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or not self._kept)
            return not self._kept

    def _forget_taken(self) -> None:
        begin = self._written - len(self._kept)
        if self._taken > begin:
            del self._kept[: self._taken - begin]

    def run(self) -> Optional[int]:
        """Reads until the session has ended: its exit code, or None where nobody saw it."""
        if self._writer is not None:
            threading.Thread(target=self._send, daemon=True).start()
        try:
            return self._run()
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _run(self) -> Optional[int]:
        pause = Pause()
        while True:
            try:
                return self._attach_once(pause)
            except Broken as broken:
                reason = str(broken)
            except Failure as failure:
                if failure.kind == "gone":
                    self._skip_what_is_gone()
                    continue
                if failure.kind not in PASSING:
                    raise
                reason = str(failure)
            self.breaks += 1
            if self._on_break:
                self._on_break(reason)
            pause.wait()

    def _attach_once(self, pause: Pause) -> Optional[int]:
        promise = self._daemon.call(
            "guest.session.attach",
            observe=self._writer is None,
            writer=self._writer,
            takeover=self._takeover,
            stdout_offset=self.offsets[STDOUT],
            stderr_offset=self.offsets[STDERR],
            **self._where,
        )
        # Whoever takes over from this one has its reasons: it is not done again.
        self._takeover = False
        stream = Stream(promise)
        try:
            for kind, payload in stream.frames():
                pause.reset()
                if kind in (STDOUT, STDERR):
                    self.offsets[kind] += len(payload)
                    if self._on_output:
                        self._on_output(kind, payload)
                elif kind == INPUT_TAKEN:
                    self._take(stream, int.from_bytes(payload, "big"))
                elif kind == EXIT:
                    return payload[0]
                elif kind == ERROR:
                    return self._why_ended(Failure(json.loads(payload)))
            raise Broken("the stream was cut")
        finally:
            with self._changed:
                self._stream = None
            stream.close()

    def _take(self, stream: Stream, taken: int) -> None:
        """The session has taken so many bytes of this writer, ever."""
        with self._changed:
            if self._stream is None:
                # The first of a connection: what was on the way is lost, and goes out again.
                self._stream = stream
                self._sent = taken
            self._taken = max(self._taken, taken)
            self._forget_taken()
            self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_over
                    or (self._stream is not None and self._sent < self._written)
                )
                if self._is_over:
                    return
                stream = self._stream
                start = self._sent - (self._written - len(self._kept))
                data = bytes(self._kept[start : start + PAYLOAD_LIMIT])
                self._sent += len(data)
            try:
                stream.send(STDIN, data)
            except Broken:
                with self._changed:
                    # The reader notices as well, and attaches again.
                    if self._stream is stream:
                        self._stream = None

    def _why_ended(self, failure: Failure) -> Optional[int]:
        """An error ends the stream: has the session ended, or was only the way to it lost?"""
        if failure.kind != "guest":
            raise failure
        snapshot = self._daemon.ask("guest.session.get", **self._where)["snapshot"]
        if snapshot["state"] in ("starting", "running"):
            raise failure
        return snapshot["exit_code"]

    def _skip_what_is_gone(self) -> None:
        snapshot = self._daemon.ask("guest.session.get", **self._where)["snapshot"]
        for kind, name in ((STDOUT, "stdout_start"), (STDERR, "stderr_start")):
            gap = snapshot[name] - self.offsets[kind]
            if gap > 0:
                self.missed += gap
                self.offsets[kind] += gap


def writer_name(*parts: str) -> str:
    """A writer's name that is the same each time: what is no letter or digit is left out."""
    text = "".join(c for c in "".join(parts).lower() if c.isascii() and c.isalnum())
    return text[-32:] or "writer"


def tagged(tags: List[str]) -> Dict[str, str]:
    """`key=value` words as tags."""
    pairs = (word.partition("=") for word in tags)
    return {key: value for key, _, value in pairs}
