"""Paired measurements: programs take turns, and a row of the table is the median of the ratios of neighbouring runs."""
import json
import os
import statistics
import struct
import subprocess
import time


class Failed(Exception):
    """What is measured cannot be built or run; the text says why."""


def output(command, **keywords):
    """What a command prints; its first error line as Failed if it does not succeed."""
    result = subprocess.run(command, capture_output=True, text=True, **keywords)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit status {result.returncode}"]
        error = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise Failed(f"{os.path.basename(command[0])}: {error.strip()}")
    return result.stdout


def compiled(options, model, program, *arguments):
    """The program that mcc makes of a model, and the summary of its compilation."""
    text = output([options.mcc, "compile", "--json", model, "-o", program, *arguments])
    return program, json.loads(text)


def alternate(runs, *measures):
    """Calls the measures in turn, `runs` times after one round that warms up; a list of results for each."""
    for measure in measures:
        measure()
    results = [[] for _ in measures]
    for _ in range(runs):
        for measure, found in zip(measures, results):
            found.append(measure())
    return results


def ratio(a, b):
    """The median of the ratios of neighbouring runs."""
    return statistics.median(x / y for x, y in zip(a, b))


def spread(values):
    """The mean and half of the range of figures of several seeds."""
    return statistics.mean(values), (max(values) - min(values)) / 2


def row(work, ours, peer, value, bar, unit="", **more):
    """A row of the table: `value` is to be at least `bar`; `ours` and `peer` are for reading."""
    return {"work": work, "ours": ours, "peer": peer, "unit": unit, "ratio": value, "bar": bar,
            "reached": None if value is None or bar is None else value >= bar, **more}


def attempt(work, function, *arguments):
    """The rows of a function, or a row that says why there are none."""
    try:
        found = function(*arguments)
        return found if isinstance(found, list) else [found]
    except (Failed, OSError, ImportError, KeyError, ValueError, RuntimeError) as error:
        return [{"work": work, "error": f"{type(error).__name__}: {error}" if not isinstance(error, Failed)
                 else str(error)}]


def number(value):
    """A figure with three digits; nothing for none."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def markdown(found):
    """A row of the README's table."""
    if "error" in found:
        return f"| {found['work']} | not measured: {found['error']} | | | |"
    ratio, bar = ("" if found[key] is None else f"{found[key]:.2f}" for key in ("ratio", "bar"))
    ours = " ".join(part for part in (number(found["ours"]), found["unit"]) if part)
    note = f" ({found['note']})" if found.get("note") else ""
    missed = ", missed" if found["reached"] is False else ""
    return f"| {found['work']}{note} | {ours} | {number(found['peer'])} | {ratio} | {bar}{missed} |"


def line(found):
    """A row for a person."""
    if "error" in found:
        return f"{found['work']:<44} not measured: {found['error']}"
    verdict = {None: "", True: "reached", False: "NOT reached"}[found["reached"]]
    bar = "" if found["bar"] is None else f"{found['bar']:.2f}"
    value = "" if found["ratio"] is None else f"{found['ratio']:.2f}"
    return (f"{found['work']:<44} {number(found['ours']):>9} {number(found['peer']):>9} {found['unit']:<9} "
            f"{value:>6} {bar:>6}  {verdict}{'  ' + found['note'] if found.get('note') else ''}")


HEAD = f"{'work':<44} {'mcc':>9} {'peer':>9} {'':<9} {'ratio':>6} {'bar':>6}"


def seconds(command):
    """Wall-clock time from the start to the end of a command, and its peak of resident memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(command[:3])} exits with {process.returncode}")
    return elapsed, usage.ru_maxrss * 1024


def machine_code_bytes(path):
    """Bytes of the executable sections of an ELF file of 64 bits."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            raise Failed(f"{path} is no ELF file of 64 bits")
        offset, = struct.unpack_from("<Q", head, 0x28)
        size, count = struct.unpack_from("<HH", head, 0x3A)
        file.seek(offset)
        table = file.read(size * count)
    sections = (struct.unpack_from("<IIQQQQ", table, index * size) for index in range(count))
    return sum(section[5] for section in sections if section[2] & 4)
