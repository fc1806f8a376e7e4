"""Studies: each answers one question by an experiment, and writes the table, the figure and what was found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A study by the module that defines its `STUDY`; listing the studies imports none of them."""

    module: str
    question: str


STUDIES = {
    "forward": Entry("forward", "What does the forward process leave of the data after 0 to 1000 steps?"),
    "schedules": Entry("schedules", "How do noise schedules differ, and what does it cost in sample quality?"),
    "loss-by-time": Entry("loss_by_time", "At which noise levels is the training loss made, for each target?"),
    "information": Entry("information", "How many bits does each noise level destroy, and what do all cost as a code?"),
    "steps": Entry("steps", "How good are samples after 5 to 1000 network calls, solver by solver?"),
    "eta": Entry("eta", "What does DDIM's eta do to quality and diversity?"),
    "guidance": Entry("guidance", "What does classifier-free guidance buy in fidelity, and what does it cost?"),
    "ode-vs-sde": Entry("ode_vs_sde", "When is sampling with fresh noise better than without?"),
    "solver-order": Entry("solver_order", "How fast does the error of each solver fall with the number of calls?"),
    "latency-budget": Entry("latency_budget", "How many network calls fit in 100 ms here, and how good are they?"),
    "time-sampling": Entry("time_sampling", "Which law of training times learns fastest?"),
    "prediction-targets": Entry("prediction_targets", "Which quantity should the network predict?"),
    "history": Entry("history", "How many observed steps should a policy plan from?"),
    "chunk-size": Entry("chunk_size", "How long should a chunk of actions be, for success and for smoothness?"),
    "denoising-steps": Entry(
        "denoising_steps", "How many denoising steps does a policy need, and how long do they take?"
    ),
    "backbones": Entry("backbones", "Which network, at what price, and what does diffusion add to regression on it?"),
    "conditioning": Entry("conditioning", "How should a network be told about the observation?"),
    "guidance-control": Entry("guidance_control", "How strongly does the policy follow the instruction, by guidance?"),
    "demonstrations": Entry("demonstrations", "How many demonstrations does a policy need?"),
    "bc-vs-diffusion": Entry(
        "bc_vs_diffusion", "Where does averaging the demonstrated ways fail, and where does it not?"
    ),
    "robustness": Entry("robustness", "How much noise, how hard a push, what friction and mass does a policy bear?"),
    "seen-vs-novel": Entry("seen_vs_novel", "Does a policy grasp objects of shapes that it was not shown?"),
    "steps-policy": Entry(
        "steps_policy", "How many network calls do several ways and manipulation need, at what latency?"
    ),
    "one-or-many-actions": Entry("one_or_many_actions", "How many actions should be executed before the next plan?"),
}
"""Every study by name."""
