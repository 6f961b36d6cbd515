"""python3 -m unittest: what needs no daemon."""

import random
import threading
import unittest

from banger import (
    ERROR,
    EXIT,
    INPUT_TAKEN,
    PAYLOAD_LIMIT,
    STDIN,
    STDOUT,
    Attachment,
    FrameParser,
    encode_frame,
    from_bytes,
    to_bytes,
    writer_name,
)


class FrameParserTest(unittest.TestCase):
    FRAMES = [
        (STDOUT, b""),
        (STDOUT, bytes(range(256))),
        (INPUT_TAKEN, (1 << 40).to_bytes(8, "big")),
        (STDOUT, b"x" * PAYLOAD_LIMIT),
        (ERROR, b"{}"),
        (EXIT, b"\x07"),
    ]

    def test_frames_survive_however_the_bytes_are_cut(self):
        data = b"".join(encode_frame(*frame) for frame in self.FRAMES)
        cuts = random.Random(7)
        for size in (1 << 20, 4096, 7):
            parser, got, position = FrameParser(), [], 0
            while position < len(data):
                end = position + cuts.randint(1, size if size > 7 or position < 900 else 1 << 16)
                got += parser.feed(data[position:end])
                position = end
            self.assertEqual(got, self.FRAMES)

    def test_what_is_no_frame_is_refused(self):
        for data in (b"\0\0\0\0\0", b"\x0a\0\0\0\0", b"\x03\xff\0\0\0"):
            with self.assertRaises(ValueError):
                list(FrameParser().feed(data))
        with self.assertRaises(ValueError):
            encode_frame(STDIN, b"x" * (PAYLOAD_LIMIT + 1))


class BytesTest(unittest.TestCase):
    def test_bytes_survive(self):
        for value in (b"", "ä\n".encode(), b"\xff\0"):
            self.assertEqual(to_bytes(from_bytes(value)), value)

    def test_a_writers_name_is_one(self):
        self.assertEqual(writer_name("Agents-", "3"), "agents3")
        self.assertEqual(writer_name("é-"), "writer")
        self.assertEqual(len(writer_name("x" * 99)), 32)


class FakeDaemon:
    """Promises streams that take a part of the input, break, and tell the truth afterwards."""

    def __init__(self, before):
        self.taken = bytearray(before)
        self.streams = 0

    def call(self, method, **params):
        self.streams += 1
        return FakeStream(self, self.streams)


class FakeStream:
    def __init__(self, daemon, number):
        self.daemon = daemon
        self.number = number
        self.changed = threading.Condition()

    def send(self, kind, payload):
        with self.changed:
            # The first connections lose the end of each piece.
            end = len(payload) if self.number > 2 else (len(payload) + 1) // 2
            self.daemon.taken += payload[:end]
            self.changed.notify_all()

    def count(self):
        return INPUT_TAKEN, len(self.daemon.taken).to_bytes(8, "big")

    def frames(self):
        from banger import Broken

        before = len(self.daemon.taken)
        yield self.count()
        with self.changed:
            taken = self.daemon.taken
            if not self.changed.wait_for(lambda: len(taken) > before or len(taken) == 10, 10):
                raise AssertionError("nothing was sent")
        if self.number <= 2:
            raise Broken("cut")
        yield self.count()
        yield EXIT, b"\0"

    def close(self):
        pass


class AttachmentTest(unittest.TestCase):
    def run_with(self, before):
        import banger

        daemon = FakeDaemon(before)
        original, banger.Stream = banger.Stream, lambda promise: promise
        try:
            attached = Attachment(daemon, "vm", "session", writer="me")
            attached.write(b"0123456789")
            self.assertEqual(attached.run(), 0)
        finally:
            banger.Stream = original
        self.assertEqual(bytes(daemon.taken), b"0123456789")
        self.assertTrue(attached.drained())
        self.assertEqual(attached.breaks, 2)

    def test_input_arrives_once_over_breaks(self):
        self.run_with(b"")

    def test_what_an_earlier_process_sent_is_not_sent_again(self):
        self.run_with(b"0123456")

    def test_an_observer_does_not_write(self):
        with self.assertRaises(ValueError):
            Attachment(FakeDaemon(b""), "vm", "session").write(b"x")


if __name__ == "__main__":
    unittest.main()
