"""How many network calls a policy needs among several ways and in manipulation, and how long a plan takes."""

from ..evaluate.latency import measure_latency
from ..machine import hardware
from ..policies import DiffusionPolicy, Sampling
from ..seeds import derive
from .denoising_steps import CALLS, TOLD, Arms, Steps, counts, fewer, figure, table, times
from .policies import (
    COUNTED,
    DIFFUSION,
    JERKS,
    NAVIGATION,
    SPLIT,
    SUCCESS,
    Budget,
    beginning,
    check_tasks,
    driven,
    learnt,
    reached,
    routed,
    smooth,
    taught,
)
from .study import Findings, Progress, Settings, by_chance, paragraphs, points

TASKS = ("obstacles", "grasp_seen", "grasp_seen_post")
MEASURES = (SUCCESS, SPLIT, JERKS)


def run(settings: Settings, progress: Progress) -> Findings:
    """Return success, routes and latency of the same policies for every number of network calls, task by task."""
    tasks = settings.pick(TASKS, quick=TASKS[:2], tiny=TASKS[:1])
    budget = settings.pick(
        Budget(demonstrations=200, steps=3000, episodes=100, seeds=3, longer=NAVIGATION),
        quick=Budget(demonstrations=90, steps=600, episodes=30, seeds=3),
        tiny=Budget(demonstrations=6, steps=2, episodes=2, seeds=2),
    )
    plans = settings.pick(100, quick=20, tiny=1)
    compared = settings.pick(CALLS, quick=CALLS, tiny=CALLS[:2])
    check_tasks(tasks)
    arms: Arms = {(task, calls): Steps() for task in tasks for calls in compared}
    done = 0
    for k in range(budget.seeds):
        for task in tasks:
            seed = derive(settings.seed, "steps-policy", task, k)
            shown = taught(budget, seed, task=task)
            policy = learnt(task, DIFFUSION, shown.episodes, budget=budget, seed=seed)
            assert isinstance(policy, DiffusionPolicy), "the configuration is of one"
            for calls in compared:
                sampled = policy.resampled(Sampling(nfe=calls))
                results = driven(sampled, budget.episodes, task=task)
                further = {**routed(results, shown.routes), **smooth(results, shown.episodes, policy.spec.control_hz)}
                arms[task, calls].arm.add(results, further=further)
                arms[task, calls].latency.append(measure_latency(sampled, beginning(results), calls=plans))
                done += 1
                progress(done, budget.seeds * len(arms))
    return findings(arms)


def findings(arms: Arms) -> Findings:
    """Return table, figure and paragraph."""
    columns, rows = table(arms, "task", MEASURES)
    return Findings(columns, rows, figure(arms, MEASURES), paragraph(arms), COUNTED)


def paragraph(arms: Arms) -> str:
    """Return what the numbers show."""
    most = max(counts(arms))
    tasks = list(dict.fromkeys(task for task, _ in arms))
    sentences = [
        points(
            f"In {task}, with {most} steps, the policies succeed {reached(arms[task, most].arm)}. Against them:",
            fewer(arms, task, MEASURES),
        )
        for task in tasks
    ]
    taken = [f"{task}: {times(arms, task)}" for task in tasks]
    sentences.append(points(f"On {hardware()}, one thread, batch 1, a plan takes ({TOLD}):", taken))
    return paragraphs(*sentences, by_chance(len(tasks) * (len(counts(arms)) - 1) * len(MEASURES)))
