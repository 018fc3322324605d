"""Losses of a build: files, labels and notes in; one line for each sort of loss, with number and example, out."""

from collections.abc import Iterator, Sequence
from operator import attrgetter

from pipelines.shards.sources.items import Ignored, Note, SourceItem

__all__ = ["LeftOut"]

# Pictures, videos and archives that a user surely meant to give, and what to do about them; said first.
REMEDIES = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".exr", ".hdr"), "convert"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".ico", ".tga"), "convert"),
    **dict.fromkeys((".mts", ".mxf", ".m2v", ".mpe", ".rm", ".rmvb", ".divx", ".f4v", ".3g2", ".apng"), "convert"),
    **dict.fromkeys((".zip", ".rar", ".7z", ".gz", ".tgz", ".bz2", ".xz", ".zst"), "unpack"),
    **dict.fromkeys((".tar", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"), "name as sources"),
}
MOST_SUFFIXES = 8
MAX_KINDS = 1000
"""Suffixes and notes remembered: names of files can be anything, and must not fill the memory."""


class LeftOut:
    """Counts of what is not used, in constant memory; `warnings` turns them into lines."""

    def __init__(self) -> None:
        self.num_ignored = self.num_labelled = self.num_unlabelled = self.num_labelled_videos = 0
        self._ignored: dict[str, tuple[int, str]] = {}
        self._notes: dict[str, tuple[int, str]] = {}
        self._unlabelled = self._labelled_video = ""

    def add_items(self, items: Sequence[SourceItem], *, with_labels: bool) -> int:
        """Count labels that are missing or cannot be kept. Returns the number of videos."""
        # Counted column by column: this runs for every item of a build.
        num_videos = list(map(attrgetter("kind"), items)).count("clip")
        if not with_labels:
            return num_videos
        num_unlabelled = list(map(attrgetter("label"), items)).count(None)
        if num_videos:
            videos = [item for item in items if item.kind == "clip"]
            labelled = [item for item in videos if item.label is not None]
            num_unlabelled -= len(videos) - len(labelled)
            self.num_labelled_videos += len(labelled)
            self._labelled_video = self._labelled_video or (labelled[0].source if labelled else "")
        # One example is enough: a search in every batch would take longer than the counts.
        if num_unlabelled and not self._unlabelled:
            self._unlabelled = next(item.source for item in items if item.label is None and item.kind == "image")
        self.num_unlabelled += num_unlabelled
        self.num_labelled += len(items) - num_videos - num_unlabelled
        return num_videos

    def add_ignored(self, ignored: Ignored) -> None:
        """Count a file that is neither image nor video."""
        self.num_ignored += 1
        name = ignored.source.rpartition("/")[2]
        dot = name.rfind(".")
        _count(self._ignored, name[dot:].lower() if dot > 0 else "", ignored.source)

    def add_note(self, note: Note) -> None:
        """Count a note; the same text of many sources becomes one line."""
        _count(self._notes, note.text, note.source)

    def warnings(self) -> Iterator[str]:
        """Yield one line for each sort of loss."""
        if self.num_ignored:
            yield self._ignored_text()
        # Without any label there is nothing to miss: most pretraining data has none.
        if self.num_unlabelled and self.num_labelled:
            num_images = self.num_labelled + self.num_unlabelled
            yield f"{self.num_unlabelled} of {num_images} images have no label, for example {self._unlabelled}"
        if self.num_labelled_videos:
            yield (
                f"labels of {self.num_labelled_videos} videos are left out, for example of {self._labelled_video}: "
                "clips carry none"
            )
        for text, (count, example) in self._notes.items():
            yield f"{example}{f' and {count - 1} other sources' if count > 1 else ''}: {text}"

    def _ignored_text(self) -> str:
        """Return the line on ignored files: formats that hold pictures or videos first, then the most frequent ones."""
        kinds = sorted(self._ignored.items(), key=lambda one: (one[0] not in REMEDIES, -one[1][0]))
        shown = [f"{count} {suffix or 'without a suffix'} ({example})" for suffix, (count, example) in kinds]
        more = f", and {len(shown) - MOST_SUFFIXES} other kinds" if len(shown) > MOST_SUFFIXES else ""
        remedies = list(dict.fromkeys(REMEDIES[suffix] for suffix, _ in kinds if suffix in REMEDIES))
        hint = f"; {' or '.join(remedies)} what should be used" if remedies else ""
        files = "1 file is" if self.num_ignored == 1 else f"{self.num_ignored} files are"
        return f"{files} left out, no image or video by name: {', '.join(shown[:MOST_SUFFIXES])}{more}{hint}"


def _count(counts: dict[str, tuple[int, str]], name: str, example: str) -> None:
    count, first = counts.get(name, (0, example))
    if count or len(counts) < MAX_KINDS:
        counts[name] = count + 1, first
