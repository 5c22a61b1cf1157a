"""The limit: OpenVINO alone on tensors in memory, all cores, the best of some batches and streams.

raw_engine.py model.xml --precision f32 --seconds 4
"""

import argparse
import json
import os
import statistics
import time

import numpy as np
import openvino as ov

# Many images at once on all cores, or as many requests at a time as there are cores.
BATCHES = (1, 2, 4, 6, 8, 16, 32)
# The best of many is the luckiest too: so many are measured again, so often, and that counts.
FINALISTS = 4
AGAIN = 2


def main() -> None:
    """Try all combinations, and print their rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    settings = [(batch, streams) for batch in BATCHES for streams in sorted({1, cores})]

    def measured(setting: tuple[int, int]) -> float:
        batch, streams = setting
        return rate(compiled(arguments, batch, streams, cores), batch, arguments.seconds)

    first = {each: measured(each) for each in settings}
    finalists = sorted(settings, key=first.__getitem__)[-FINALISTS:]
    again = [{each: measured(each) for each in finalists} for _ in range(AGAIN)]
    rates = {each: statistics.mean(those[each] for those in again) for each in finalists}
    best = max(finalists, key=rates.__getitem__)
    print(
        json.dumps(
            {
                "images_per_second": round(rates[best], 2),
                "best": name(best),
                "all": {name(each): value for each, value in first.items()},
                "again": {name(each): [those[each] for those in again] for each in finalists},
            }
        )
    )


def name(setting: tuple[int, int]) -> str:
    """Name a setting."""
    return "batch {}, streams {}".format(*setting)


def compiled(
    arguments: argparse.Namespace, batch: int, streams: int, cores: int
) -> ov.AsyncInferQueue:
    """Load the network for batches of one size."""
    core = ov.Core()
    model = core.read_model(arguments.model)
    _, *shape = model.input().partial_shape
    model.reshape([batch, *shape])
    settings = {
        "INFERENCE_PRECISION_HINT": arguments.precision,
        "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": cores,
    }
    queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", settings), streams)
    rng = np.random.default_rng(0)
    for request in queue:
        pixels = rng.integers(0, 256, request.input_tensors[0].shape, np.uint8)
        request.set_input_tensor(ov.Tensor(pixels))
    return queue


def rate(queue: ov.AsyncInferQueue, batch: int, seconds: float) -> float:
    """Return images a second, after a first round that warms up."""
    for _ in range(2 * len(queue)):
        queue.start_async()
    queue.wait_all()
    done = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        queue.start_async()
        done += batch
    queue.wait_all()
    return round(done / (time.perf_counter() - begin), 2)


if __name__ == "__main__":
    main()
