"""The tables, as Markdown."""
import importlib.metadata
import os
import pathlib
import platform
import statistics
import subprocess

PACKAGES = ["onnxruntime", "openvino", "nncf", "torch", "transformers", "onnx", "numpy"]


def environment(ours):
    """What the figures depend on: processor, kernel, versions. `ours` is what our program says of itself."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    here = pathlib.Path(__file__).parent
    describe = ["git", "-C", here, "describe", "--always", "--dirty"]
    revision = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    versions = {"working tree": revision or "unknown", "Python": platform.python_version()}
    versions.update((package, importlib.metadata.version(package)) for package in PACKAGES)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "ours": ours.splitlines(),
        "versions": versions,
    }


def table(header, rows):
    align = ["---"] + ["---:"] * (len(header) - 1)
    lines = [header, align, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def setting_name(threads, batch):
    return f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}"


class Results:
    """Turns of one run, without those during which others kept more than `quiet` cores busy."""

    def __init__(self, turns, quiet):
        self.left_out = sum(turn["others"] > quiet for turn in turns)
        self.all_turns = turns
        self.turns = [turn for turn in turns if turn["others"] <= quiet]
        self.settings = list(dict.fromkeys((turn["threads"], turn["batch"]) for turn in turns))
        self.names = list(dict.fromkeys(turn["runtime"] for turn in turns))

    def median(self, name, setting, what="latency_ms"):
        """Over all inferences of all rounds; None if there are none."""
        values = [
            value
            for turn in self.turns
            if turn["runtime"] == name and (turn["threads"], turn["batch"]) == setting
            for value in turn.get(what) or []
        ]
        return statistics.median(values) if values else None


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def medians(results):
    header = ["median, ms", *(setting_name(*setting) for setting in results.settings)]
    rows = [[name, *(number(results.median(name, s)) for s in results.settings)] for name in results.names]
    for name in results.names:
        following = [results.median(name, setting, "next_question_ms") for setting in results.settings]
        if any(following):
            rows.append([f"{name}, next question", *map(number, following)])
    return table(header, rows)


def ratios(results, ours, setting):
    """Ours over each peer's: below 1, ours is faster."""
    peers = [name for name in results.names if name not in ours]
    rows = []
    for name in ours:
        mine, row = results.median(name, setting), [name]
        for peer in peers:
            theirs = results.median(peer, setting)
            row.append(number(mine / theirs if mine and theirs else None, 2))
        rows.append(row)
    return table([f"ours / peer, {setting_name(*setting)}", *peers], rows)


def footprints(found):
    mebi = 2**20
    header = ["", "files, MiB", "start to first answer, s", "peak memory, MiB", "error of the logits"]
    cached = any("cached" in entry for entry in found.values())
    header += ["start with a compile cache, s", "peak with it, MiB"] if cached else []
    rows = []
    for name, entry in found.items():
        row = [
            name,
            f"{entry['bytes'] / mebi:.0f}",
            f"{entry['start_s']:.2f}",
            f"{entry['peak_bytes'] / mebi:.0f}",
            f"{100 * entry['error']:.2f} %",
        ]
        if cached:
            again = entry.get("cached")
            row += [f"{again['start_s']:.2f}", f"{again['peak_bytes'] / mebi:.0f}"] if again else ["–", "–"]
        rows.append(row)
    return table(header, rows)


def busyness(results):
    rows = []
    for setting in results.settings:
        turns = [turn for turn in results.all_turns if (turn["threads"], turn["batch"]) == setting]
        loads, others = ([turn[what] for turn in turns] for what in ("load", "others"))
        rows.append([
            setting_name(*setting),
            f"{min(loads):.1f} – {max(loads):.1f}",
            f"{statistics.median(others):.2f}",
            f"{max(others):.2f}",
        ])
    header = ["how busy the machine was", "load average", "cores kept busy by others: median", "most"]
    return table(header, rows)


def markdown(environment, found, results, ours):
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    cpu = f"{environment['cpu']}, {environment['cores']} cores, Linux {environment['kernel']}"
    parts = [f"{'; '.join([cpu, *environment['ours']])}; {versions}.\n"]
    if found:
        parts.append(footprints(found))
    if results.names:
        parts.append(medians(results))
        if ours and len(ours) < len(results.names):
            parts += [ratios(results, ours, setting) for setting in results.settings]
        parts.append(busyness(results))
    if results.left_out:
        parts.append(f"{results.left_out} of {len(results.all_turns)} turns were disturbed and are left out.\n")
    return "\n".join(parts)
