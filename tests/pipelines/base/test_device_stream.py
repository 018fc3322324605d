"""Streams: nothing on a CPU; on a GPU, played by recorders, what waits for what."""

import torch

from pipelines.base.device_stream import DeviceStream

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_on_a_cpu_work_is_done_and_nothing_waits():
    stream, tensor = DeviceStream(CPU), torch.ones(2)
    with stream.work():
        tensor += 1
    with stream.work_between([tensor]):
        tensor += 1
    assert stream.mark() is None
    stream.hand_over([tensor], stream.mark())
    assert tensor.tolist() == [3, 3]


def test_the_reader_waits_for_the_mark_and_not_for_later_work(stand_in):
    stream = DeviceStream(CUDA)
    with stream.work():
        made = torch.ones(2, device=CUDA)
    mark = stream.mark()
    with stream.work():
        torch.zeros(2, device=CUDA)
    reader = torch.cuda.current_stream()
    assert reader.waited_for == []
    with stand_in.no_reads():
        stream.hand_over([made], mark)
    assert reader.waited_for == [mark]
    assert stand_in.kept == [2]  # elements of the tensor whose memory stays until the reader is done


def test_work_between_waits_on_both_sides(stand_in):
    stream, given = DeviceStream(CUDA), torch.ones(3, device=CUDA)
    own = torch.cuda.current_stream()
    with stream.work_between([given]):
        assert stream._stream.waited_for == [own]
        assert own.waited_for == []
    assert own.waited_for == [stream._stream]
    assert stand_in.kept == [3]
