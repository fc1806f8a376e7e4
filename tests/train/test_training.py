import json
import math
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from noise2action.data.normalize import Normalizer
from noise2action.errors import ConfigError, DataError, RunLockedError, StorageError, TrainingError
from noise2action.nets import MLPConfig
from noise2action.policies import DiffusionConfig, RegressionConfig
from noise2action.policies.checkpoint import load
from noise2action.train.config import TrainConfig
from noise2action.train.ema import ConstantEMA, PowerEMA
from noise2action.train.folder import Metrics, locked, read_metrics
from noise2action.train.loop import fit
from noise2action.train.weights import Weights
from small_policies import NET, SCHEMA, SPEC, episodes, job, normalizer

SHORT = TrainConfig(steps=24, precision="fp32", log_every=5, save_steps=6, warmup_steps=4, ema_every=2)


def dropout_job(train=SHORT):
    # Dropout draws from the global generator, which a resumed run must continue too.
    net = MLPConfig(width=32, blocks=2, condition_width=16, time_dim=16, dropout=0.2)
    return job(DiffusionConfig(spec=SPEC, net=net), train=train)


def tensors(run):
    found = load(run)
    return {f"{part}.{name}": t for part, group in found.tensors.items() for name, t in group.items()}


def assert_bit_equal(a, b):
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert load(a).step == load(b).step


def _fit_and_wait(run: str) -> None:
    torch.set_num_threads(1)

    def tell(status):
        Path(run, "step").write_text(str(status.step))

    fit(dropout_job(), Path(run), on_status=tell)


@pytest.mark.parametrize("after", [5, 15])
def test_a_run_resumed_after_kill_9_is_bit_equal_to_one_that_was_not_killed(tmp_path, after):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    fit(dropout_job(), whole)

    child = multiprocessing.get_context("fork").Process(target=_fit_and_wait, args=(str(killed),))
    child.start()
    deadline = time.monotonic() + 60
    while child.is_alive() and time.monotonic() < deadline:
        reported = killed / "step"
        if reported.exists() and int(reported.read_text() or 0) >= after:
            break
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.join()

    fit(dropout_job(), killed, resume=True)
    assert_bit_equal(whole, killed)
    steps = [r["step"] for r in read_metrics(killed) if r["kind"] == "train"]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("stop", [0, 1, 6, 7, 23])
def test_a_run_interrupted_at_any_step_resumes_to_the_same_bits(tmp_path, stop, monkeypatch):
    fit(dropout_job(), tmp_path / "whole")
    from noise2action.train import loop  # noqa: PLC0415

    original, validate = loop._step, loop._Window

    def step_and_interrupt(state):
        done = original(state)
        if state.step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return done

    def window_and_interrupt(step):
        if stop == 0:  # before the first step: nothing is in the optimiser yet
            os.kill(os.getpid(), signal.SIGINT)
        return validate(step)

    monkeypatch.setattr(loop, "_step", step_and_interrupt)
    monkeypatch.setattr(loop, "_Window", window_and_interrupt)
    assert fit(dropout_job(), tmp_path / "stopped") is False
    monkeypatch.undo()
    assert load(tmp_path / "stopped").step == stop
    assert fit(dropout_job(), tmp_path / "stopped", resume=True) is True
    assert_bit_equal(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.unchecked
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss_and_the_average_follows_the_weights(tmp_path, precision):
    ema = PowerEMA(limit=0.98)
    config = TrainConfig(steps=600, precision=precision, log_every=50, ema=ema, learning_rate=4e-3, warmup_steps=10)
    fit(job(RegressionConfig(spec=SPEC, net=NET), train=config), tmp_path)
    losses = [r["loss"] for r in read_metrics(tmp_path) if r["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0]
    found = load(tmp_path).tensors
    apart = sum(float((found["ema"][n] - w).norm()) ** 2 for n, w in found["model"].items()) ** 0.5
    size = sum(float(w.norm()) ** 2 for w in found["model"].values()) ** 0.5
    assert 0 < apart < 0.1 * size
    assert all(w.dtype == torch.float32 for w in found["model"].values())


def test_metrics_record_buckets_validation_and_rates(tmp_path):
    fit(job(train=SHORT), tmp_path)
    records = read_metrics(tmp_path)
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == [5, 10, 15, 20]
    assert all(len(r["buckets"]) == 10 and r["samples_per_s"] > 0 for r in train)
    # 5 batches of 16 stratified times put the mean of the buckets near the mean of the loss.
    assert train[0]["loss"] == pytest.approx(sum(train[0]["buckets"]) / 10, rel=0.5)
    (validation,) = [r for r in records if r["kind"] == "validation"]
    assert validation["step"] == 24
    assert validation["action_error_unit"] == "m/s"
    assert validation["action_error"] > 0


def test_the_learning_rate_warms_up_and_decays_as_a_cosine():
    config = TrainConfig(steps=1000, warmup_steps=100, learning_rate=2.0, final_lr=0.1)
    assert config.rate(0, 0.0) == pytest.approx(0.02)
    assert config.rate(500, 0.0) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert config.rate(1000, 0.0) == pytest.approx(0.2)
    clocked = TrainConfig(minutes=10.0, warmup_steps=0, learning_rate=1.0, final_lr=0.0)
    assert clocked.rate(10**6, 300.0) == pytest.approx(0.5)
    assert clocked.progress(10**6, 600.0) == 1.0


def test_averages_decay_as_their_formulas_say():
    assert ConstantEMA(0.9).decay(1000) == 0.9
    assert PowerEMA(power=0.75, limit=0.9999).decay(15) == pytest.approx(1 - 16**-0.75)
    assert PowerEMA(limit=0.5).decay(10**6) == 0.5


def small_weights(half=False, **options):
    policy, data = DiffusionConfig(spec=SPEC, net=NET), normalizer(episodes())
    torch.manual_seed(0)
    return Weights(lambda: policy.build(SCHEMA, data), TrainConfig(**options), half=half)


def set_gradients(weights, seed=0):
    g = torch.Generator().manual_seed(seed)
    for p in weights.worker.parameters():
        p.grad = torch.randn(p.shape, generator=g).to(p.dtype)
    return {name: p.grad.float() for name, p in weights.worker.named_parameters()}


def test_a_step_is_adamw_with_decay_of_matrices_only_and_clipped_gradients():
    weights = small_weights(weight_decay=0.1, betas=(0.8, 0.9))
    before = {name: p.detach().clone() for name, p in weights.policy.named_parameters()}
    gradients = set_gradients(weights)
    norm = weights.step(rate=0.01, grad_clip=0.5)
    total = sum(float(g.norm()) ** 2 for g in gradients.values()) ** 0.5
    assert norm == pytest.approx(total, rel=1e-4)
    for name, p in weights.policy.named_parameters():
        g = gradients[name] * 0.5 / total
        # The first step of Adam: both bias-corrected moments are the gradient and its square.
        expected = before[name] * (1 - 0.01 * (0.1 if p.ndim > 1 else 0)) - 0.01 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-3, atol=1e-5)


def test_the_worker_holds_the_weights_in_its_own_precision():
    weights = small_weights(half=True)
    set_gradients(weights)
    weights.step(rate=0.01, grad_clip=1.0)
    for p, w in zip(weights.policy.parameters(), weights.worker.parameters(), strict=True):
        assert w.dtype == torch.bfloat16
        assert torch.equal(p.detach().bfloat16(), w.detach())


def test_the_average_moves_by_its_decay():
    weights = small_weights()
    before = [p.clone() for p in weights.ema.parameters()]
    set_gradients(weights)
    weights.step(rate=0.1, grad_clip=1.0)
    weights.average(0.75)
    for old, new, p in zip(before, weights.ema.parameters(), weights.policy.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * p.detach())


def test_a_run_folder_is_held_by_one_process(tmp_path):
    with locked(tmp_path), pytest.raises(RunLockedError, match=rf'"pid": {os.getpid()}') as error, locked(tmp_path):
        pass
    assert error.value.exit_code == 4
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_folder_with_checkpoints_is_not_trained_over(tmp_path):
    fit(job(train=SHORT), tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        fit(job(train=SHORT), tmp_path)


def test_a_resumed_run_must_be_the_same_run(tmp_path):
    fit(job(train=SHORT), tmp_path)
    with pytest.raises(ConfigError, match="configuration of the run"):
        fit(job(RegressionConfig(spec=SPEC, net=NET), train=SHORT), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="configuration of the run"):
        fit(job(train=SHORT, seed=1), tmp_path, resume=True)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path):
    fit(job(train=SHORT), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert fit(job(train=SHORT), tmp_path, resume=True) is True
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_another_data_set_is_noticed_when_resuming(tmp_path):
    fit(job(train=SHORT), tmp_path)
    other = job(train=SHORT)
    scaled = Normalizer.fit(
        {name: 2 * array for name, array in episodes().arrays.items()},
        {"position": "limits", "heading": "identity", "action": "limits"},
    )
    with pytest.raises(ConfigError, match="data set that the run was started with"):
        fit(replace(other, normalizer=scaled), tmp_path, resume=True)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    weights = small_weights()
    before = [p.detach().clone() for p in weights.policy.parameters()]
    set_gradients(weights)
    next(weights.worker.parameters()).grad[0] = torch.inf
    with pytest.raises(TrainingError, match="finite gradient"):
        weights.step(rate=0.1, grad_clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights.policy.parameters(), strict=True))


def test_a_full_disk_while_metrics_are_written_is_told_as_such(tmp_path):
    with Metrics(tmp_path, after_step=0, tensorboard=False) as metrics:
        metrics._file.close()
        metrics._file = Path("/dev/full").open("w")  # noqa: SIM115
        with pytest.raises(StorageError, match="free disk space"):
            metrics.add({"kind": "train", "step": 1})


@pytest.mark.parametrize("line", ["not json", "[1]", '{"step": 1}', "\xff\xfe"])
def test_damaged_metrics_are_told_and_an_unfinished_last_line_is_skipped(tmp_path, line):
    good = '{"kind": "train", "step": 1}'
    (tmp_path / "metrics.jsonl").write_bytes(f"{good}\n{line}".encode("latin-1"))
    assert [r["step"] for r in read_metrics(tmp_path)] == [1]
    (tmp_path / "metrics.jsonl").write_bytes(f"{line}\n{good}\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        read_metrics(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_with_a_remedy(tmp_path):
    config = TrainConfig(steps=200, precision="fp32", learning_rate=1e30, warmup_steps=0, grad_clip=1e30)
    with pytest.raises(TrainingError, match=r"lower --train\.learning-rate"):
        fit(job(train=config), tmp_path)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"minutes": -1.0}, {"betas": (0.9, 1.0)}, {"threads": -1}, {"learning_rate": math.nan}]
)
def test_budgets_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        TrainConfig(**bad)


def test_tensorboard_events_are_an_extra_beside_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    fit(job(train=replace(SHORT, tensorboard=True)), tmp_path)
    assert any(p.stat().st_size > 100 for p in (tmp_path / "tensorboard").iterdir())
    assert read_metrics(tmp_path)
