#!/usr/bin/env python3
"""Time PyTorch and ONNX Runtime on the same model and inputs on an NVIDIA GPU: `gpu.py WORK [--runs N]`.

Prints one JSON object a line for each peer and batch. An answer is counted from inputs on the host to scores on the host.
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


def timed(answer, runs):
    for _ in range(20):
        answer()
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        answer()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def report(peer, batch, times, scores, reference):
    error = float(np.linalg.norm(scores - reference) / np.linalg.norm(reference))
    latency = {"p50_ms": statistics.median(times), "mean_ms": statistics.fmean(times)}
    print(json.dumps({"peer": peer, "batch": batch, "latency": latency, "error": error}), flush=True)


def on_host(batch):
    """Inputs in pinned memory, as whoever wants to be fast has them."""
    inputs = [torch.from_numpy(tensor) for tensor in random_inputs(batch, SEED).values()]
    return [(tensor.half() if tensor.is_floating_point() else tensor).pin_memory() for tensor in inputs]


def eager(model, inputs):
    return lambda: model(*(tensor.cuda(non_blocking=True) for tensor in inputs)).float().cpu().numpy()


def cuda_graph(model, inputs):
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


def onnx_runtime(work, model, batch):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ImportError("onnxruntime has no CUDA")
    file = work / f"fp16-{batch}.onnx"
    if not file.exists():
        example = tuple(tensor.cuda() for tensor in on_host(batch))
        torch.onnx.export(model, example, file, dynamo=False, opset_version=18, input_names=INPUTS, output_names=["scores"])
    session = onnxruntime.InferenceSession(file, providers=["CUDAExecutionProvider"])
    inputs = dict(zip(INPUTS, (tensor.numpy() for tensor in on_host(batch))))
    return lambda: session.run(None, inputs)[0].astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU")
    make(options.work / "checkpoint", checkpoint)
    reference_model = load_model(options.work)
    references = {}
    with torch.inference_mode():
        for batch in BATCHES:
            inputs = [torch.from_numpy(tensor) for tensor in random_inputs(batch, SEED).values()]
            references[batch] = reference_model(*inputs).numpy()
        model = reference_model.half().cuda()
        for batch in BATCHES:
            inputs = on_host(batch)
            peers = {
                "PyTorch fp16": lambda: eager(model, inputs),
                "PyTorch fp16, CUDA graph": lambda: cuda_graph(model, inputs),
                "ONNX Runtime CUDA, fp16": lambda: onnx_runtime(options.work, model, batch),
            }
            for name, start in peers.items():
                try:
                    answer = start()
                except (ImportError, RuntimeError) as problem:
                    print(f"{name}, batch {batch}, is left out: {str(problem).splitlines()[0]}", file=sys.stderr)
                    continue
                report(name, batch, timed(answer, options.runs), answer(), references[batch])


if __name__ == "__main__":
    main()
