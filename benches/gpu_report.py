#!/usr/bin/env python3
"""Write what benches/gpu.sh found into a document: `gpu_report.py REPORTS DOCUMENT [FAILED…]`.

The document's last part, "Measured", has a section for each device, and what was measured on one before is replaced. With
`--count-launches` instead, add up the calls that start work on a GPU in a table of CUDA's calls on standard input.
"""
import csv
import datetime
import json
import pathlib
import re
import sys

TITLE = "## Measured\n"
TYPES = ["f16", "q8_0", "q4_0"]
MIB = 2**20
UNKNOWN = "not measured"
# CUDA's runtime and driver, by their names in Nsight's table, which may have a version behind.
LAUNCH = re.compile(r"^(cudaLaunch|cuLaunch|cudaGraphLaunch|cuGraphLaunch)")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cell(value, form="{:.3f}"):
    return "" if value is None else form.format(value)


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def table(head, rows):
    return row(head) + "|---" + "|---:" * (len(head) - 1) + "|\n" + "".join(row(cells) for cells in rows) + "\n"


def count_launches(text):
    """The calls that start work, in the CSV of `nsys stats --report cuda_api_sum`, which may have lines before its head."""
    rows = list(csv.reader(text.splitlines()))
    head = next((n for n, cells in enumerate(rows) if "Name" in cells and "Num Calls" in cells), None)
    if head is None:
        raise ValueError("no table of CUDA's calls with Name and Num Calls")
    name, calls = rows[head].index("Name"), rows[head].index("Num Calls")
    table = [cells for cells in rows[head + 1 :] if len(cells) > max(name, calls)]
    return sum(int(cells[calls].replace(",", "")) for cells in table if LAUNCH.match(cells[name]))


def launches(folder):
    """Launches of an answer, for each type that Nsight has counted."""
    path = folder / "launches.txt"
    counted = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {kind: (int(many) - int(few)) / int(answers) for kind, few, many, answers in counted}


def goal(what, most, found, form):
    """A row: what is aimed at, and whether it is met; `found` is None if nobody knows."""
    verdict = UNKNOWN if found is None else "met" if found <= most else "**missed**"
    return [what, f"{most:g}", cell(found, form), verdict]


def goals(reports, profiles, counted, peers):
    """What is aimed at, for one answer of each type that was measured."""
    rows = []
    for report in (report for report in reports if report["batch"] == 1):
        kind, p50 = report["model"]["type"], report["latency"]["p50_ms"]
        for peer, most in [("PyTorch fp16", 0.5), ("PyTorch fp16, CUDA graph", 1.0)]:
            other = next((line for line in peers if line["peer"] == peer and line["batch"] == 1), None)
            ratio = p50 / other["latency"]["p50_ms"] if other else None
            rows.append(goal(f"{kind}: a first question, beside {peer}", most, ratio, "{:.2f}"))
        rows.append(goal(f"{kind}: launches of an answer", 200, counted.get(kind), "{:.0f}"))
        taken = report["device_taken_bytes"]
        over = None if taken is None else (taken - report["model"]["file_bytes"]) / MIB
        rows.append(goal(f"{kind}: memory of the device beyond the file, MiB", 64, over, "{:.0f}"))
    for report in profiles:
        found = report["profile"]
        rows.append(goal(f"{report['model']['type']}: operations on the CPU, of {found['count']}", 0, found["on_cpu"], "{:d}"))
    return table(["goal", "at most", "found", ""], rows)


def section(folder, failed):
    reports = [report for kind in TYPES for report in lines(folder / f"{kind}.jsonl")]
    profiles = [report for kind in TYPES for report in lines(folder / f"{kind}.profile.jsonl")]
    peers = lines(folder / "peers.jsonl")
    if not reports:
        sys.exit("error: nothing was measured")
    device = reports[0]["device_name"] or reports[0]["device"]
    machine = folder / "machine.txt"
    known = [line.strip() for line in machine.read_text().splitlines()] if machine.exists() else []
    known += [reports[0]["build"], f"{reports[0]['runs']} runs", datetime.date.today().isoformat()]
    text = f"### {device}\n\n{'; '.join(known)}.\n\n"
    if failed:
        text += f"**Failed: {'; '.join(failed)}.**\n\n"
    rows = []
    for report in reports:
        next_ms = (report["next_question"] or {}).get("p50_ms")
        name = f"lxmert {report['model']['type']}"
        memory = [cell(bytes and bytes / MIB, "{:.0f}") for bytes in (report["device_taken_bytes"], report["device_bytes"])]
        rows.append([name, str(report["batch"]), cell(report["latency"]["p50_ms"]), cell(next_ms), *memory])
    for report in peers:
        if "problem" in report:
            rows.append([report["peer"], str(report["batch"]), f"left out: {report['problem']}", "", "", ""])
        else:
            rows.append([report["peer"], str(report["batch"]), cell(report["latency"]["p50_ms"]), "", "", ""])
    text += table(["", "batch", "p50 ms", "next question ms", "device MiB, by its driver", "as planned"], rows)
    measured = [report for report in peers if "problem" not in report]
    return device, text + goals(reports, profiles, launches(folder), measured).rstrip("\n") + "\n"


def record(document, device, text):
    """Puts the section of a device into the document, in the place of an older one."""
    whole = document.read_text() if document.exists() else ""
    before, _, measured = whole.partition(TITLE)
    known = [part for part in re.split(r"(?m)^(?=### )", measured) if part.startswith("### ")]
    kept = [part.strip() + "\n" for part in known if part.splitlines()[0] != f"### {device}"]
    parts = [before.strip() + "\n"] if before.strip() else []
    document.write_text("\n".join(parts + [TITLE] + kept + [text]))


def main():
    if sys.argv[1:] == ["--count-launches"]:
        try:
            print(count_launches(sys.stdin.read()))
        except ValueError as problem:
            sys.exit(f"error: {problem}")
        return
    folder, document, *failed = sys.argv[1:]
    device, text = section(pathlib.Path(folder), failed)
    print(text)
    record(pathlib.Path(document), device, text)


if __name__ == "__main__":
    main()
