"""Run the real TotalSegmentator, of whichever version this Python has, on a list of jobs.

Standard input: JSON [{image, labels, fast, force_split}]; standard output: JSON with the names of
the classes and the seconds of each job, on the wall and of the processor. It downloads nothing and
reports to nobody. Imports nothing of this project: it runs in the other package's environment.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    jobs = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the package prints is no answer
    import torch

    torch.load = functools.partial(torch.load, weights_only=False)
    from totalsegmentator import map_to_binary, python_api

    python_api.download_pretrained_weights = lambda *_, **__: None
    python_api.send_usage_stats = lambda *_, **__: None
    version = {"device": "cpu"} if hasattr(python_api, "select_device") else {}
    seconds = []
    for job in jobs:
        started, used = time.perf_counter(), processor_seconds()
        python_api.totalsegmentator(
            job["image"],
            job["labels"],
            ml=True,
            fast=job["fast"],
            force_split=job["force_split"],
            nr_thr_resamp=1,
            nr_thr_saving=1,
            **version,
        )
        seconds.append((time.perf_counter() - started, processor_seconds() - used))
    names = {"total": map_to_binary.class_map["total"], **map_to_binary.class_map_5_parts}
    json.dump({"names": names, "seconds": seconds}, answers)


if __name__ == "__main__":
    main()
