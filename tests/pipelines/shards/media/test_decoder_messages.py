"""Decoders' lines are caught, everybody else's pass."""

import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from pipelines.shards.media.decoder_messages import captured_messages
from tests.made.media import encoded_image, picture


def decode(encoded: bytes) -> None:
    cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)


def cut_and_closed() -> bytes:
    jpeg = encoded_image(picture(200, 150))
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


def test_lines_of_libjpeg_and_libpng_are_caught_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    png = bytearray(encoded_image(picture(), "PNG"))
    png[len(png) // 2] ^= 1
    with captured_messages() as messages:
        decode(cut_and_closed())
        decode(bytes(png))
    assert any("premature end of data segment" in message for message in messages)
    assert any(message.startswith("libpng error") for message in messages)
    assert capfd.readouterr().err == ""


def test_other_lines_go_on_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_messages() as messages:
        os.write(2, b"progress 3 of 4\n")
        decode(cut_and_closed())
    assert len(messages) == 1
    assert capfd.readouterr().err == "progress 3 of 4\n"


def test_nothing_is_left_for_the_next_block() -> None:
    with captured_messages():
        decode(cut_and_closed())
    with captured_messages() as messages:
        pass
    assert messages == []


def test_stderr_is_given_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), captured_messages():
        raise ValueError("inside")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_threads_get_their_own_messages() -> None:
    good, bad, wrong = encoded_image(picture(200, 150)), cut_and_closed(), []

    def work(encoded: bytes, num_expected: int) -> None:
        for _ in range(50):
            with captured_messages() as messages:
                decode(encoded)
            if len(messages) != num_expected:
                wrong.append(messages)

    threads = [threading.Thread(target=work, args=args) for args in [(good, 0), (bad, 1)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_descriptor_is_lost() -> None:
    with captured_messages():
        pass
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        with captured_messages():
            decode(cut_and_closed())
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_a_process_without_stderr_decodes_all_the_same() -> None:
    code = (
        "import os; os.close(2)\n"
        "from pipelines.shards.media.decoder_messages import captured_messages\n"
        "with captured_messages() as messages: print('fine', messages)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fine []"
