"""Rows of a table, each in a process of its own with a time limit; finished rows are kept in a JSON file."""

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from zoo_page import header, passed, save, verdict

ROOT = Path(__file__).resolve().parents[1]
Job = tuple[str, tuple[str, ...]]
Examine = Callable[[str, Sequence[str], Callable[[Any], None]], dict[str, Any]]


def options(description: str | None, out: str, limit: float) -> argparse.ArgumentParser:
    """What the commands of both zoos take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("rows", nargs="*", help="only rows whose name has one of these in it")
    parser.add_argument("--fresh", action="store_true", help="repeat rows that are finished")
    parser.add_argument("--fresh-failed", action="store_true", help="repeat rows that do not pass")
    parser.add_argument("--recount", action="store_true", help="only count again what finished rows cost")
    parser.add_argument("--page", action="store_true", help="write the page, and run nothing")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=limit, help="seconds for one network")
    parser.add_argument("--until", help="start no network after this time of the day, HH:MM")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / out)
    return parser


def kept(path: Path) -> dict[str, Any]:
    """What a file has so far."""
    return json.loads(path.read_text()) if path.exists() else {"rows": {}}


def chosen(row: str, args: argparse.Namespace) -> bool:
    """Whether a row is asked for."""
    return not args.page and (not args.rows or any(part in row for part in args.rows))


def due(known: dict[str, Any] | None, args: argparse.Namespace) -> bool:
    """Whether a row is to be run: a new one, or one that is to be repeated."""
    if known is None or args.recount:
        return known is not None or not args.recount
    return args.fresh or (args.fresh_failed and not passed(known))


def run(todo: Sequence[Job], examine: Examine, results: dict[str, Any], args: argparse.Namespace, merge: Any) -> None:
    """Run rows; `merge(row, record, source)` puts each in `results`, which is written after each."""
    torch.set_num_threads(1)
    files = (path for path in sorted((ROOT / "src/anystride").rglob("*.py")) if "lab" not in path.parts)
    source = hashlib.sha1(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    for number, (row, record) in enumerate(_run_all(todo, examine, args), 1):
        if "missing" in record:
            print(f"{number}/{len(todo)} {row} skipped: {record['missing']}", flush=True)
            continue
        if args.recount:
            results["rows"][row] |= {"macs": record.get("macs"), "macs_source": source}
        else:
            merge(row, record, source)
        about = header(ROOT, f"python benchmarks/{args.out.stem}.py")
        save(args.out, json.dumps(results | about | {"rows": results["rows"]}, indent=1) + "\n")
        print(f"{number}/{len(todo)} {row} {record['run_seconds']} s: {verdict(results['rows'][row])}", flush=True)


def load(modules: Sequence[str]) -> None:
    """Import once what processes share; what is missing is found out by its rows."""
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)


def _work(row: str, steps: Sequence[str], examine: Examine, pipe: Any) -> None:
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    with Path(os.devnull).open("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
        try:
            record = examine(row, steps, pipe.send)
        except Exception as failure:
            record = {"checks": {"run": f"{type(failure).__name__}: {failure}"[:300]}}
    pipe.send((True, record | {"run_seconds": round(time.perf_counter() - start, 1)}))


def _run_all(todo: Sequence[Job], examine: Examine, args: argparse.Namespace) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each row in a process of its own, `args.workers` at once."""
    context = multiprocessing.get_context("fork")
    queue, running = list(todo), {}
    while queue or running:
        if time.strftime("%H:%M") >= (args.until or "99"):
            queue.clear()
        while queue and len(running) < args.workers:
            row, steps = queue.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(row, steps, examine, there))
            process.start()
            there.close()
            running[here] = (row, process, time.monotonic(), {"checks": {}})
        ready = wait(list(running), timeout=1.0)
        for pipe, (row, process, start, record) in list(running.items()):
            seconds = time.monotonic() - start
            done, failure = False, f"not done after {args.limit:.0f} s"
            try:
                if pipe in ready:
                    done, known = pipe.recv()
                    record.update(known)
            except EOFError:
                failure, seconds = "the process died", args.limit
            if done or seconds >= args.limit:
                process.kill()
                process.join()
                del running[pipe]
                if not done:
                    record["checks"]["run"] = failure
                yield row, {"run_seconds": args.limit, **record}
