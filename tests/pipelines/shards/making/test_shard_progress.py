import threading

from pipelines.shards.making.shard_progress import listening, tell


def test_news_go_to_whoever_listens_nearest() -> None:
    outer: list[tuple[int, int]] = []
    inner: list[tuple[int, int]] = []
    tell(1, 10)
    with listening(lambda *news: outer.append(news)):
        tell(2, 20)
        with listening(lambda *news: inner.append(news)):
            tell(3, 30)
        tell(4, 40)
    tell(5, 50)
    assert (outer, inner) == ([(2, 20), (4, 40)], [(3, 30)])


def test_other_threads_are_not_heard() -> None:
    heard: list[tuple[int, int]] = []
    with listening(lambda *news: heard.append(news)):
        thread = threading.Thread(target=tell, args=(1, 1))
        thread.start()
        thread.join()
    assert heard == []
