#!/usr/bin/env python3
"""Runs a program in N sessions at once, gives them work as JSON lines, and waits for all.

    ./orchestrator.py --vm dev --sessions 4 --tasks tasks.jsonl -- my-agent --json
    ./orchestrator.py --repository ~/project --sessions 2 --export work.patch -- my-agent

The sessions do not depend on this program: kill it, kill the daemon, and start it again with the
same arguments. It finds its sessions by their names, and goes on to read and to write where it was.

Exit codes: 0 all sessions ended with 0; 1 one did not; 2 usage; 3 banger failed; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import Any, Dict, List, Optional

from banger import (
    STDERR,
    STDOUT,
    Attachment,
    Broken,
    Client,
    Daemon,
    Failure,
    Stream,
    tagged,
    writer_name,
)

# Sessions that print nothing for this long are shown as idle.
IDLE_MS = 10_000


class Screen:
    """What the user sees. Names and output come from a guest: they are shown with care."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        with self._lock:
            print(safe, flush=True)


class Agent:
    """One session: its input, its output, and how it ended."""

    def __init__(self, batch: "Batch", index: int, tasks: List[bytes]) -> None:
        self.batch = batch
        self.index = index
        self.name = f"{batch.name}-{index}"
        self.tasks = tasks
        self.state = "starting"
        self.exit_code: Optional[int] = None
        self.error: Optional[str] = None
        self._lines = {STDOUT: bytearray(), STDERR: bytearray()}
        self.attachment: Optional[Attachment] = None
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def _run(self) -> None:
        try:
            self._start()
            self.exit_code = self._talk()
            # The stream tells the code; this tells what state that is.
            session = self.batch.daemon.ask(
                "guest.session.wait", vm=self.batch.vm, session=self.name
            )
            self.state = session["snapshot"]["state"]
        except (Failure, Broken) as error:
            self.state = "failed"
            self.error = str(error)
            if isinstance(error, Failure):
                where = f" ({error.stage})" if error.stage else ""
                self.error += where + (f": {error.hint}" if error.hint else "")

    def _start(self) -> None:
        batch = self.batch
        session = batch.daemon.start_session(
            batch.vm,
            self.name,
            command=batch.command,
            stdin="pipe",
            tags={**batch.tags, "batch": batch.name, "index": str(self.index)},
            env=[["AGENT_INDEX", str(self.index)], ["AGENT_NAME", self.name]],
        )
        if session["tags"].get("batch") != batch.name:
            raise Failure(
                {
                    "kind": "conflict",
                    "message": f"there is another session `{self.name}`",
                    "hint": "choose another --batch",
                }
            )
        self.state = session["snapshot"]["state"]

    def _talk(self) -> Optional[int]:
        observe = not self.tasks
        self.attachment = Attachment(
            self.batch.daemon,
            self.batch.vm,
            self.name,
            # The same in every process: another run goes on where this one stopped.
            writer=None if observe else writer_name(self.name),
            # What an earlier run of this program had attached ends.
            on_output=self._show,
            on_break=lambda why: self.batch.screen.say(f"{self.name}: cut ({why}), resuming"),
        )
        threading.Thread(target=self._feed, daemon=True).start()
        return self.attachment.run()

    def _feed(self) -> None:
        """Gives the session its work, then the end of its input."""
        attachment = self.attachment
        assert attachment is not None
        if self.tasks:
            attachment.write(b"".join(self.tasks))
            if not attachment.drained():
                return
        try:
            self.batch.daemon.ask(
                "guest.session.send",
                vm=self.batch.vm,
                session=self.name,
                message="",
                close=True,
            )
        except Failure as failure:
            # It has ended, or was told so before.
            if failure.kind != "conflict":
                self.batch.screen.say(f"{self.name}: its input stays open: {failure}")

    def _show(self, kind: int, data: bytes) -> None:
        if not self.batch.show_output:
            return
        lines = self._lines[kind]
        lines += data
        while b"\n" in lines or len(lines) > 4096:
            end = lines.find(b"\n") + 1 or len(lines)
            text = bytes(lines[:end]).rstrip(b"\n").decode(errors="replace")
            del lines[:end]
            self.batch.screen.say(f"{self.name} {'|' if kind == STDOUT else '!'} {text}")

    def summary(self) -> str:
        attachment = self.attachment
        out = attachment.offsets[STDOUT] if attachment else 0
        parts = [f"{self.name}: {self.state}"]
        if self.exit_code is not None:
            parts.append(f"code {self.exit_code}")
        parts.append(f"{out} bytes out")
        if attachment and attachment.missed:
            parts.append(f"{attachment.missed} bytes no longer kept")
        if self.error:
            parts.append(self.error)
        return ", ".join(parts)


class Batch:
    """All sessions of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.screen = Screen()
        self.name: str = arguments.batch
        self.command: List[str] = arguments.command
        self.tags: Dict[str, str] = tagged(arguments.tag)
        self.show_output: bool = arguments.show_output
        self.vm: str = arguments.vm or ""
        self.daemon = Daemon(
            arguments.banger,
            name="orchestrator.py 1",
            on_event=self._hear,
            on_progress=lambda one: self.screen.say(f"{one['stage']}: {one['message']}"),
            on_connect=self._subscribe,
        )
        work: List[List[bytes]] = [[] for _ in range(arguments.sessions)]
        for number, task in enumerate(read_tasks(arguments.tasks)):
            work[number % len(work)].append(task)
        self.agents = [Agent(self, index, tasks) for index, tasks in enumerate(work)]
        self._by_name = {agent.name: agent for agent in self.agents}

    def run(self) -> bool:
        """Starts all, waits for all; whether all ended well."""
        for agent in self.agents:
            agent.thread.start()
        for agent in self.agents:
            agent.thread.join()
        self.screen.say("")
        for agent in self.agents:
            self.screen.say(agent.summary())
        return all(agent.exit_code == 0 for agent in self.agents)

    def _subscribe(self, client: Client) -> None:
        """On each new connection: what happens from now on, then what is true now."""
        client.call("events.subscribe", tags={"batch": self.name}, idle_ms=IDLE_MS)
        for session in client.call("guest.session.list", tags={"batch": self.name})["sessions"]:
            agent = self._by_name.get(session["name"])
            if agent:
                agent.state = session["snapshot"]["state"]

    def _hear(self, event: Dict[str, Any]) -> None:
        agent = self._by_name.get(event["session"])
        if agent is None:
            return
        agent.state = "idle" if event["kind"] == "output-idle" else event["state"]
        counts: Dict[str, int] = {}
        for one in self.agents:
            counts[one.state] = counts.get(one.state, 0) + 1
        now = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        code = "" if event["exit_code"] is None else f" {event['exit_code']}"
        self.screen.say(f"{agent.name} {event['kind']}{code} ({now})")


def read_tasks(path: Optional[str]) -> List[bytes]:
    """The lines of a file, each of which must be JSON: a mistake costs least before the start."""
    if path is None:
        return []
    with open(path, "rb") as file:
        lines = [line.rstrip(b"\r\n") + b"\n" for line in file if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise SystemExit(f"{path}: task {number} is no JSON: {error}") from error
    return lines


def export(daemon: Daemon, vm: str, path: str, screen: Screen) -> None:
    """Writes what the sessions changed as a patch. A file that is there is replaced when whole."""
    reply = daemon.ask("vm.workspace.export", vm=vm)
    patch = bytearray()
    code = Stream(reply["patch"]).read_all(patch.extend)
    if code != 0:
        raise Failure({"kind": "guest", "message": f"the export ended with {code}"})
    with open(path, "wb") as file:
        file.write(patch)
    screen.say(f"{path}: {len(reply['changes'])} files changed since {reply['base_commit'][:12]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs a program in N sessions at once, gives them work, and waits for all."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--vm", help="a machine that there is")
    where.add_argument("--repository", help="make a machine with this repository")
    parser.add_argument("--sessions", type=int, default=2, help="how many (2)")
    parser.add_argument("--batch", default="agents", help="names the sessions and their tag")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tasks", help="a file of JSON lines, dealt out in turn")
    parser.add_argument("--show-output", action="store_true", help="print what they print")
    parser.add_argument("--export", metavar="FILE", help="write the changes as a patch")
    parser.add_argument("--banger", default="banger", help="the program")
    parser.add_argument("command", nargs="+", help="what each session runs, after `--`")
    arguments = parser.parse_args()
    if arguments.sessions < 1:
        parser.error("--sessions must be at least 1")
    return arguments


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    arguments = parse()
    # Also where a shell without job control has it ignored.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    batch = Batch(arguments)
    try:
        if arguments.repository:
            made = batch.daemon.call(
                "vm.run", create={}, prepare={"path": arguments.repository}
            )
            batch.vm = made["vm"]["name"]
        all_well = batch.run()
        if arguments.export:
            export(batch.daemon, batch.vm, arguments.export, batch.screen)
    except (Failure, Broken) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, Failure) and error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        if not batch.vm:
            print("\nstopped; what was half-made is taken back", file=sys.stderr)
            return 130
        print(
            f"\nThe sessions run on in {batch.vm}. The same command, with --vm {batch.vm}, goes "
            f"on with them;\n`{arguments.banger} vm session list {batch.vm}` shows them, "
            f"`{arguments.banger} vm session stop {batch.vm} NAME` ends one.",
            file=sys.stderr,
        )
        return 130
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
