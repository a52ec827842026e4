#!/usr/bin/env python3
"""A process with one peer in it: `worker.py NAME WORK BATCH THREADS [CACHE]`.

It answers once and prints what that took, as a JSON object on one line. After that each line "WARMUP RUNS" on standard
input is answered by the milliseconds of RUNS inferences, as a JSON list. It ends with its input.
"""
import ctypes
import json
import pathlib
import signal
import sys
import time

from runtimes import ONNX_RUNTIME, all_runtimes, chosen


def main():
    # A worker waits stopped for its turn, and a stopped process does not notice that nobody reads it any more.
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # An interrupt is for the driver, which reports what it has and kills its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    name, work, batch, threads, *cache = sys.argv[1:]
    work = pathlib.Path(work)
    [runtime] = chosen(all_runtimes(None), [name])
    directory = work / f"batch-{batch}"

    from safetensors.numpy import load_file

    from compare import logits_in, relative_l2

    inputs = load_file(directory / "inputs.safetensors")
    reference = logits_in(directory / "logits.safetensors")
    python_bytes = peak_bytes()

    load = onnx_runtime if runtime.kind == ONNX_RUNTIME else openvino
    start = time.perf_counter()
    answer = load(runtime, runtime.file(work), inputs, int(threads), *cache)
    logits = answer()
    first = {
        "start_s": time.perf_counter() - start,
        "peak_bytes": peak_bytes(),
        "python_bytes": python_bytes,
        "error": relative_l2(logits, reference),
    }
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        warmup, runs = map(int, line.split())
        for _ in range(warmup):
            answer()
        print(json.dumps([milliseconds(answer) for _ in range(runs)]), flush=True)


def milliseconds(function):
    start = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - start) / 1e6


def peak_bytes():
    with open("/proc/self/status") as status:
        [peak] = [line for line in status if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


def onnx_runtime(runtime, file, inputs, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The batch stays a dynamic axis: fixing it with a free-dimension override made int8 10 % slower.
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], inputs)[0]


def openvino(runtime, file, inputs, threads, cache=None):
    import openvino as ov

    core = ov.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        **dict(runtime.properties),
    }
    if cache:
        properties["CACHE_DIR"] = cache
    model = core.read_model(file)
    model.reshape({name: list(tensor.shape) for name, tensor in inputs.items()})
    request = core.compile_model(model, "CPU", properties).create_infer_request()
    for name, tensor in inputs.items():
        request.set_tensor(name, ov.Tensor(tensor, shared_memory=True))

    def answer():
        request.infer()
        return request.get_output_tensor(0).data

    return answer


if __name__ == "__main__":
    main()
