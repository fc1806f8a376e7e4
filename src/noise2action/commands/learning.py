"""What `n2a toy` and `n2a image` share: the options of learning a distribution, its training, and the animation."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from ..diffusion.objective import Diffusion
from ..errors import ConfigError, MissingExtraError
from ..generative import AnyModel, AnyModelConfig, Guidance, store
from ..storage import atomic_write
from ..train.generative import GenerativeTrain, fit
from .checks import above_zero, at_least
from .drawing import Drawing, usual_grid
from .sampling import grid_named, objective_named, resolve
from .terminal import check_new, note, training_bar


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Options of learning a distribution with diffusion and of drawing from it."""

    out: Path
    """Folder to write: the model, metrics.json, figures and the animation."""
    steps: int
    """Optimiser steps."""
    seconds: float | None = None
    """Budget in seconds of training, instead of steps."""
    path: str = "cosine"
    """Forward process: straight, cosine, linear_vp, sub_vp, ve, edm, table or schedule."""
    target: str = "v"
    """What the network predicts: epsilon, clean, v, score, velocity or edm."""
    times: str = "stratified"
    """Training times: uniform, stratified, logit_normal, log_normal or loss_second_moment."""
    weight: str = "uniform"
    """Weight of the loss: uniform, snr, min_snr or likelihood."""
    span: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest time; some targets are singular at an end."""
    batch_size: int
    """Samples a step."""
    learning_rate: float
    """Peak learning rate."""
    p_uncond: float = 0.1
    """Probability that training hides a label; guidance needs it above 0."""
    sampler: str = "dpm-solver++-2m"
    """Solver, such as ddim, dpm-solver++-2m or heun."""
    nfe: int | None = None
    """Network evaluations a sample."""
    grid: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras; by default log_snr, on discrete paths trailing."""
    eta: float | None = None
    """Stochasticity of ddim, 0 to 1."""
    order: int | None = None
    """Order of the solvers that have one."""
    switch: float | None = None
    """Noise-to-signal ratio at which hybrid changes from its first solver to its second."""
    rtol: float | None = None
    """Tolerance of adaptive, relative and absolute."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance: -1 unconditional, 0 conditional, more is sharper."""
    seed: int = 0
    """Seed of everything."""
    overwrite: bool = False
    """Replace a model that is there."""

    def check(self) -> None:
        """Raise `ConfigError` unless the folder can be written and the seed is one."""
        check_new(self.out)
        if (self.out / store.CONFIG).exists() and not self.overwrite:
            raise ConfigError(f"--out: expected a new folder, got a model in {self.out}: add --overwrite")
        at_least("--seed", self.seed, 0)
        at_least("--nfe", self.nfe, 1)
        at_least("--steps", self.steps, 1)
        at_least("--batch-size", self.batch_size, 1)
        above_zero("--learning-rate", self.learning_rate)
        above_zero("--seconds", self.seconds)
        if not 0 <= self.p_uncond < 1:
            raise ConfigError(f"--p-uncond: expected a probability from 0 up to, but not, 1, got {self.p_uncond:g}")

    @contextmanager
    def told_where_interrupted(self) -> Generator[None]:
        """Tell what an interrupt leaves, and what to do, before it goes on its way."""
        try:
            yield
        except KeyboardInterrupt:
            whole = store.holds(self.out)
            kept = f"the model in {self.out} is whole: n2a sample {self.out}" if whole else "nothing was saved"
            note(f"interrupted: {kept}; run the same command again for all, with --seconds for a shorter training")
            raise

    def objective(self) -> Diffusion:
        """Return path, target, training times and weight."""
        return objective_named(path=self.path, target=self.target, times=self.times, weight=self.weight, span=self.span)

    def drawing(self, w: float, *, nfe: int) -> Drawing:
        """Return how samples are drawn, with guidance `w` and `nfe` calls where none are asked for."""
        sampler = resolve(
            self.sampler, eta=self.eta, order=self.order, switch=self.switch, rtol=self.rtol, nfe=self.nfe
        )
        return Drawing(sampler, grid_named(self.grid_name()), nfe if self.nfe is None else self.nfe, Guidance(w))

    def grid_name(self) -> str:
        """Return the grid that is asked for, or the usual one of the path."""
        return self.grid or usual_grid(self.objective().path)

    def about(self, data: str) -> dict[str, Any]:
        """Return what is stored beside the model: data, seed and sampling."""
        sampling = {name: getattr(self, name) for name in ("sampler", "nfe", "eta", "order", "switch", "rtol")}
        return {"data": data, "seed": self.seed, "sampling": {**sampling, "grid": self.grid_name()}}

    def train(self, config: AnyModelConfig, x: Tensor, labels: Tensor | None) -> AnyModel:
        """Return the trained model, with progress on the way."""
        budget = GenerativeTrain(self.steps, self.seconds, self.batch_size, self.learning_rate)
        with training_bar() as told:
            model = fit(
                config,
                x,
                labels,
                train=budget,
                seed=self.seed,
                on_status=lambda s: told(s.progress, f"step {s.step}  loss {s.loss:.4f}"),
            )
            told(1.0, None)
        return model


def write_animation(out: Path, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> None:
    """Write denoising.gif and denoising.mp4; without PyAV the first alone, and a note."""
    from ..evaluate.point_figures import encode_gif  # noqa: PLC0415 - matplotlib is an extra
    from ..evaluate.video import write_mp4  # noqa: PLC0415

    fps = max(8.0, len(pictures) / 4)
    lasting = [*pictures, *[pictures[-1]] * round(1.5 * fps)]  # the result stays for a moment
    atomic_write(out / "denoising.gif", encode_gif(lasting, fps))
    try:
        write_mp4(out / "denoising.mp4", lasting, fps)
    except MissingExtraError as error:
        note(f"note: no mp4: {error}")
