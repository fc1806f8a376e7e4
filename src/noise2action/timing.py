"""Wall time by stage, in milliseconds."""

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Collects the duration of named stages: `with watch("encode"): ...`."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def __call__(self, stage: str) -> Generator[None]:
        """Time the block and append its duration to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage].append((time.perf_counter() - start) * 1e3)
