#!/usr/bin/env python3
"""Compare this project with what a user would pick instead: ONNX Runtime and OpenVINO, on the same model and inputs.

Results go to standard output as Markdown, progress to standard error.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

import report
from processes import Worker, fresh, run, run_script, watch
from runtimes import OPENVINO, all_runtimes, chosen

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = (
    "{bin}/lxmert-bench --model {model} --inputs {inputs} --threads {threads} --runs {runs} --warmup {warmup}"
    " --cold-starts 0 --json"
)


def numbers(text):
    return [int(number) for number in text.split(",")]


def arguments():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--work", type=pathlib.Path, required=True, metavar="DIR",
        help="where the models are made, once, and kept: about 6 GB")
    add("--bin", type=pathlib.Path, default=target / "release", metavar="DIR",
        help="where this project's programs are [default: %(default)s]")
    add("--only", type=lambda text: text.split(","), default=["*"], metavar="NAME,…",
        help="runtimes to compare; * and ? match, as in lxmert-*,openvino-int8")
    add("--pack", metavar="ISA", help="measure this project's files packed for an instruction set too")
    add("--threads", type=numbers, default=[1, 2], metavar="N,…", help="[default: 1,2]")
    add("--batches", type=numbers, default=[1, 8], metavar="N,…", help="[default: 1,8]")
    add("--rounds", type=int, default=10, metavar="N",
        help="rounds, in each of which every runtime has its turn; 0 measures no speed [default: %(default)s]")
    add("--runs", type=int, default=20, metavar="N",
        help="inferences that are timed in a turn, divided by the batch, at least 3 [default: %(default)s]")
    add("--warmup", type=int, default=3, metavar="N", help="inferences before them [default: %(default)s]")
    add("--starts", type=int, default=3, metavar="N",
        help="fresh processes for start and memory; 0 leaves these out [default: %(default)s]")
    add("--quiet", type=float, default=float("inf"), metavar="CORES",
        help="leave out turns during which other processes kept more than this many cores busy")
    add("--ours-command", default=COMMAND, metavar="TEMPLATE",
        help='what prints {"latency_ms": […], "next_question_ms": […]} [default: %(default)s]')
    add("--json", type=pathlib.Path, metavar="OUT", help="write everything that was measured to this file")
    return parser, parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def convert(options, runtime):
    """Makes a file of ours, again whenever the converter is newer than it."""
    file, converter = runtime.file(options.work), options.bin / "lxmert-quantize"
    if file.exists() and file.stat().st_mtime > converter.stat().st_mtime:
        return
    say(f"making {file.name}")
    pack = ["--pack", runtime.pack] if runtime.pack else []
    run([converter, *pack, runtime.type, options.work / "checkpoint", file])


def lxmert_run(options, runtime, batch, outputs):
    inputs = options.work / f"batch-{batch}" / "inputs.safetensors"
    return [options.bin / "lxmert-run", "--model", runtime.file(options.work), "--inputs", inputs,
            "--outputs", outputs, "--output", "question_answering_score", "--threads", str(max(options.threads))]


def footprint(options, runtime):
    """Size, error, and what a fresh process takes up to its first answer, with the first of the batches."""
    say(f"starting {runtime.name}")
    batch, threads = options.batches[0], max(options.threads)
    found = {"bytes": runtime.bytes(options.work)}
    if runtime.is_ours:
        with tempfile.TemporaryDirectory() as directory:
            outputs = pathlib.Path(directory) / "logits.safetensors"
            command = lxmert_run(options, runtime, batch, outputs)
            # Once more than is counted, so that the file is in the page cache.
            starts = [fresh(command) for _ in range(1 + options.starts)][1:]
            reference = options.work / f"batch-{batch}" / "logits.safetensors"
            found["error"] = float(run_script("compare.py", outputs, reference))
        seconds, peaks = zip(*starts)
        return found | {"start_s": statistics.median(seconds), "peak_bytes": statistics.median(peaks)}

    def first_answers(*cache):
        firsts = []
        for _ in range(1 + options.starts):
            with contextlib.closing(Worker(runtime.name, options.work, batch, threads, *cache)) as worker:
                firsts.append(worker.first)
        return {key: statistics.median(first[key] for first in firsts[1:]) for key in firsts[0]}

    found |= first_answers()
    if runtime.kind == OPENVINO:
        with tempfile.TemporaryDirectory(dir=options.work) as cache:
            found["cached"] = first_answers(cache)
    return found


def ours_turn(options, runtime, threads, batch, runs):
    command = options.ours_command.format(
        bin=shlex.quote(str(options.bin)),
        model=shlex.quote(str(runtime.file(options.work))),
        inputs=shlex.quote(str(options.work / f"batch-{batch}" / "inputs.safetensors")),
        threads=threads,
        runs=runs,
        warmup=options.warmup,
    )
    measured = json.loads(run(shlex.split(command)))
    return {key: measured.get(key) for key in ("latency_ms", "next_question_ms")}


def rounds(options, runtimes, threads, batch):
    """Every runtime's turns, in an order that is rotated from round to round."""
    runs = max(3, options.runs // batch)
    with contextlib.ExitStack() as stack:
        workers = {}
        for runtime in runtimes if options.rounds else []:
            if not runtime.is_ours:
                worker = Worker(runtime.name, options.work, batch, threads)
                workers[runtime] = stack.enter_context(contextlib.closing(worker))
        for number in range(options.rounds):
            shift = number % len(runtimes)
            for runtime in runtimes[shift:] + runtimes[:shift]:
                with watch(workers.get(runtime)) as busy:
                    if runtime.is_ours:
                        measured = ours_turn(options, runtime, threads, batch, runs)
                    else:
                        measured = {"latency_ms": workers[runtime].answer(options.warmup, runs)}
                median = statistics.median(measured["latency_ms"])
                say(f"{report.setting_name(threads, batch)}, round {number + 1}: {runtime.name} {median:.1f} ms"
                    f" (load {busy['load']:.1f}, others {busy['others']:.2f} cores)")
                yield {"runtime": runtime.name, "threads": threads, "batch": batch, "round": number + 1,
                       **measured, **busy}


def main():
    parser, options = arguments()
    options.work = options.work.resolve()
    try:
        runtimes = chosen(all_runtimes(options.pack), options.only)
    except ValueError as error:
        parser.error(str(error))
    ours = [runtime for runtime in runtimes if runtime.is_ours]
    peers = [runtime for runtime in runtimes if not runtime.is_ours]
    if ours and not (options.bin / "lxmert-quantize").exists():
        parser.error(f"no lxmert-quantize in {options.bin}: cargo build --release first, or say where with --bin")
    run_script("prepare.py", options.work, ",".join(map(str, options.batches)), *(peer.name for peer in peers))
    for runtime in ours:
        convert(options, runtime)

    found = {runtime.name: footprint(options, runtime) for runtime in runtimes} if options.starts else {}
    turns = []
    with contextlib.suppress(KeyboardInterrupt):
        for batch in options.batches:
            for threads in options.threads:
                turns.extend(rounds(options, runtimes, threads, batch))
    environment = report.environment(run([options.bin / "lxmert-run", "--version"]) if ours else "")
    results = report.Results(turns, options.quiet)
    print(report.markdown(environment, found, results, [runtime.name for runtime in ours]))
    if options.json:
        everything = {"environment": environment, "footprints": found, "turns": turns}
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
