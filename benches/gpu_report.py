#!/usr/bin/env python3
"""Write what benches/gpu.sh found into a document: `gpu_report.py REPORTS DOCUMENT [FAILED…]`.

The document's last part, "Measured", has a section for each device, and what was measured on one before is replaced.
"""
import datetime
import json
import pathlib
import re
import sys

TITLE = "## Measured\n"
TYPES = ["f16", "q8_0", "q4_0"]
MIB = 2**20


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cell(value, form="{:.3f}"):
    return "" if value is None else form.format(value)


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def table(head, rows):
    return row(head) + "|---" + "|---:" * (len(head) - 1) + "|\n" + "".join(row(cells) for cells in rows) + "\n"


def goals(reports, profiles, peers):
    """What is aimed at, for one answer of the first type that was measured."""
    first = next((report for report in reports if report["batch"] == 1), None)
    p50 = first and first["latency"]["p50_ms"]
    rows = []
    for peer, goal in [("PyTorch fp16", 0.5), ("PyTorch fp16, CUDA graph", 1.0)]:
        other = next((line for line in peers if line["peer"] == peer and line["batch"] == 1), None)
        found = f"{p50 / other['latency']['p50_ms']:.2f}" if p50 and other else "not measured"
        rows.append([f"first question, of {peer}'s time", f"{goal:.1f}", found])
    for profile in profiles[:1]:
        found = profile["profile"]
        rows.append(["operations in one answer that are launched one by one", "200", str(found["count"])])
        rows.append(["of them on the CPU", "0", str(found["on_cpu"])])
    for report in [first] if first else []:
        over = (report["device_bytes"] - report["model"]["file_bytes"]) / MIB
        rows.append(["memory of the device beyond the file, MiB", "64", f"{over:.0f}"])
    return table(["goal", "at most", "found"], rows)


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
        text += f"**Failed: {', '.join(failed)}.**\n\n"
    rows = []
    for report in reports:
        next_ms = (report["next_question"] or {}).get("p50_ms")
        name = f"lxmert {report['model']['type']}"
        memory = cell(report["device_bytes"] / MIB, "{:.0f}")
        rows.append([name, str(report["batch"]), cell(report["latency"]["p50_ms"]), cell(next_ms), memory])
    for report in peers:
        rows.append([report["peer"], str(report["batch"]), cell(report["latency"]["p50_ms"]), "", ""])
    text += table(["", "batch", "p50 ms", "next question ms", "device MiB"], rows)
    return device, text + goals(reports, profiles, peers).rstrip("\n") + "\n"


def record(document, device, text):
    """Puts the section of a device into the document, in the place of an older one."""
    whole = document.read_text() if document.exists() else ""
    before, _, measured = whole.partition(TITLE)
    known = [part for part in re.split(r"(?m)^(?=### )", measured) if part.startswith("### ")]
    kept = [part.strip() + "\n" for part in known if part.splitlines()[0] != f"### {device}"]
    parts = [before.strip() + "\n"] if before.strip() else []
    document.write_text("\n".join(parts + [TITLE] + kept + [text]))


def main():
    folder, document, *failed = sys.argv[1:]
    device, text = section(pathlib.Path(folder), failed)
    print(text)
    record(pathlib.Path(document), device, text)


if __name__ == "__main__":
    main()
