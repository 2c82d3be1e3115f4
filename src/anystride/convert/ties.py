"""Which of a model's downsamplers must agree, found by running it at sizes that do not.

Every operation that changes the resolution by a fixed factor is a *site*. The model runs on tensors without data, and
each site's output is given a size of its own, a prime number that no other map has. Where an operation then refuses to
work, the maps that it got should have been of one size: the sites they come from are tied, and the run starts anew.
Where that does not help, a size is fixed by something else (a table of positions, a linear layer), and the message of
the operation that refused is the reason. When a run passes, any sizes that respect the ties do.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from anystride.convert.groups import Groups, Resolution
from anystride.convert.labelled import InTheWayError, RefusedError
from anystride.convert.sites import Site, SiteKey, Survey
from anystride.convert.trials import Trial
from anystride.execution import Execution, NeedsDataError

# Sizes of trials relative to those of the example: near them, and larger, where tables would be too short.
SCALES = (1.0, 1.25)
# How many classes are tried one by one, to see which axis of each is fixed.
ALONE = 8


class Ties(NamedTuple):
    """What a search found.

    Attributes:
        groups: the classes of maps.
        nodes: the site of each item.
        sources: the class that each item's input has, where it is one.
        calls: which of its site's calls each item comes from.
        positions: modules that number the positions of a map.
    """

    groups: Groups
    nodes: dict[Resolution, SiteKey]
    sources: dict[Resolution, Resolution]
    calls: dict[Resolution, list[int]]
    positions: frozenset[str]


Runs = Sequence[Callable[[Execution], None]]


def find_ties(
    runs: Runs,
    sites: dict[SiteKey, Site],
    groups: Groups | None = None,
    limit: int = 400,
    survey: Survey | None = None,
) -> Ties:
    """Run until runs pass, and then free each axis that nothing forces.

    Args:
        runs: each runs the model once under the given execution, in one of its modes.
        sites: what may be given another size.
        groups: what is known already.
        limit: runs after which the search is given up.
        survey: the pass that found the sites.

    Raises:
        RuntimeError: the search did not end.
    """
    groups = groups or Groups()
    clean = 0
    for _ in range(limit):
        before = groups.state()
        # Most is learned in the first mode; the others are asked once that passes.
        trials = _pass(runs if clean else runs[:1], sites, groups, SCALES[clean % len(SCALES)], survey)
        if trials is None:
            continue
        nodes = {item: key for trial in trials for item, key in trial.nodes.items()}
        close_chains(groups, nodes, sites)
        if not _learned(groups, before):
            clean += 1
            if clean == len(SCALES):
                release(runs, sites, groups, survey)
                calls: dict[Resolution, list[int]] = {}
                for trial in trials:
                    for item, found in trial.items.items():
                        calls[item] = max(calls.get(item, []), found, key=len)
                sources = {item: groups.find(item[2]) for item in nodes if item[2] in groups.parent}
                positions = frozenset[str]().union(*(trial.positions for trial in trials))
                return Ties(groups, nodes, sources, calls, positions)
    raise RuntimeError(f"no set of sizes was found at which the model runs, in {limit} runs; use filter or groups")


def _pass(
    runs: Runs,
    sites: dict[SiteKey, Site],
    groups: Groups,
    scale: float,
    survey: Survey | None,
) -> list[Trial] | None:
    """One trial in each mode; None if one was refused, and something was learned from it."""
    trials = []
    for run in runs:
        trial = Trial(sites, groups, scale, survey)
        try:
            run(trial)
        except RefusedError:
            return None
        except (NeedsDataError, InTheWayError):
            raise
        except Exception as error:
            trial.refused_by_model(error)
            return None
        trials.append(trial)
    return trials


def _learned(groups: Groups, before: tuple[Any, ...]) -> bool:
    """Whether classes that were known before have changed."""
    parent, *rest = groups.state()
    known = {item: root for item, root in parent.items() if item in before[0]}
    return known != before[0] or rest[:3] != list(before[1:4])


def release(runs: Runs, sites: dict[SiteKey, Site], groups: Groups, survey: Survey | None) -> None:
    """Free the axes of classes that a refusal fixed as a whole: where runs still pass, nothing forces them.

    All classes together first, along each axis, then one after the other.
    """
    whole = [root for root in groups.fixed if groups.find(root) == root and not groups.freed.get(root)]
    whole = [root for root in whole if root[0] != "input" and len(groups.size[root]) > 1]
    most = max((len(groups.size[root]) for root in whole), default=0)
    asked = [[(root, axis) for root in whole if axis < len(groups.size[root])] for axis in range(most)]
    while asked:
        pairs = asked.pop(0)
        before = groups.state()
        for root, axis in pairs:
            groups.freed[root] = groups.freed[root] | {axis}
        during = groups.state()
        try:
            passes = all(_pass(runs, sites, groups, scale, survey) is not None for scale in SCALES)
        except NeedsDataError:
            raise
        except Exception:  # it refuses, whatever the reason
            passes = False
        if not passes or _learned(groups, during):
            groups.restore(before)
            if 1 < len(pairs) <= ALONE:
                asked.extend([pair] for pair in pairs)


def close_chains(groups: Groups, nodes: dict[Resolution, SiteKey], sites: dict[SiteKey, Site]) -> None:
    """Where chains of sites meet, tie also the maps along them that had one size: then they meet at any stride."""
    arriving: dict[Resolution, list[Resolution]] = {}
    for item, key in nodes.items():
        if not sites[key].grows and item[2] in groups.parent:
            arriving.setdefault(groups.find(item), []).append(groups.find(item[2]))
    for sources in arriving.values():
        for a in sources:
            for b in sources:
                if groups.find(a) != groups.find(b) and groups.size[groups.find(a)] == groups.size[groups.find(b)]:
                    groups.merge(a, b, "chains that meet further on")
