#!/usr/bin/env python3
"""Time PyTorch and ONNX Runtime on the same model and inputs on an NVIDIA GPU: `gpu.py WORK [--runs N] [--trial]`.

Prints one JSON object a line for each peer and batch: its times, or the problem that it was left out for. An answer is counted
from inputs on the host to scores on the host. A trial runs the same lines on the CPU, where what only a GPU has is left out.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np
import torch

from prepare import INPUTS, SEED, checkpoint, load_model, make, random_inputs

BATCHES = [1, 8, 64]


class Place:
    """Where the peers compute."""

    def __init__(self, trial):
        self.device = "cpu" if trial else "cuda"
        # Not every CPU has products in fp16.
        self.dtype = torch.float32 if trial else torch.float16
        self.provider = "CPUExecutionProvider" if trial else "CUDAExecutionProvider"

    def on_host(self, batch):
        """Inputs in pinned memory, as whoever wants to be fast has them."""
        inputs = [torch.from_numpy(tensor) for tensor in random_inputs(batch, SEED).values()]
        inputs = [tensor.to(self.dtype) if tensor.is_floating_point() else tensor for tensor in inputs]
        return inputs if self.device == "cpu" else [tensor.pin_memory() for tensor in inputs]


def timed(answer, runs, warmup=20):
    for _ in range(warmup):
        answer()
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        answer()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def eager(place, model, inputs):
    return lambda: model(*(tensor.to(place.device, non_blocking=True) for tensor in inputs)).float().cpu().numpy()


def cuda_graph(place, model, inputs):
    if place.device != "cuda":
        raise RuntimeError("only a GPU has CUDA graphs")
    static = [tensor.cuda() for tensor in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = model(*static)

    def answer():
        for there, here in zip(static, inputs):
            there.copy_(here, non_blocking=True)
        graph.replay()
        return scores.float().cpu().numpy()

    return answer


def export(directory, place, model, batch):
    example = tuple(tensor.to(place.device) for tensor in place.on_host(batch))
    names = {"input_names": INPUTS, "output_names": ["scores"]}
    torch.onnx.export(model, example, directory / "model.onnx", dynamo=False, opset_version=18, **names)


def onnx_runtime(place, work, model, batch):
    import onnxruntime

    name = f"onnx-{place.device}-{batch}"
    make(work / name, export, place, model, batch)
    session = onnxruntime.InferenceSession(work / name / "model.onnx", providers=[place.provider])
    # A provider that does not start is left out without an error, and the CPU takes its place.
    if session.get_providers()[0] != place.provider:
        raise RuntimeError(f"onnxruntime runs on {session.get_providers()[0]}, not {place.provider}")
    inputs = dict(zip(INPUTS, (tensor.numpy() for tensor in place.on_host(batch))))
    return lambda: session.run(None, inputs)[0].astype(np.float32)


def measured(start, runs, reference):
    answer = start()
    times = timed(answer, runs)
    error = float(np.linalg.norm(answer() - reference) / np.linalg.norm(reference))
    return {"latency": {"p50_ms": statistics.median(times), "mean_ms": statistics.fmean(times)}, "error": error}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--trial", action="store_true", help="on the CPU, in small batches")
    options = parser.parse_args()
    if not options.trial and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU")
    place = Place(options.trial)
    make(options.work / "checkpoint", checkpoint)
    reference_model = load_model(options.work)
    batches = BATCHES[:1] if options.trial else BATCHES
    references = {}
    with torch.inference_mode():
        for batch in batches:
            inputs = [torch.from_numpy(tensor) for tensor in random_inputs(batch, SEED).values()]
            references[batch] = reference_model(*inputs).numpy()
        model = reference_model.to(place.dtype).to(place.device)
        for batch in batches:
            inputs = place.on_host(batch)
            peers = {
                "PyTorch fp16": lambda: eager(place, model, inputs),
                "PyTorch fp16, CUDA graph": lambda: cuda_graph(place, model, inputs),
                "ONNX Runtime CUDA, fp16": lambda: onnx_runtime(place, options.work, model, batch),
            }
            for name, start in peers.items():
                name = f"{name} (a trial on the CPU)" if options.trial else name
                try:
                    result = measured(start, options.runs, references[batch])
                # Whatever goes wrong with one peer, its row says so, and the others are measured.
                except Exception as problem:
                    text = str(problem).strip().splitlines() or [type(problem).__name__]
                    result = {"problem": text[0]}
                print(json.dumps({"peer": name, "batch": batch, **result}), flush=True)


if __name__ == "__main__":
    main()
