"""LeRobot's diffusion policy: `config.json`, `model.safetensors` and the statistics of its normaliser.

The statistics lie in `policy_preprocessor.json` and `policy_postprocessor.json` with their safetensors, or, before
those, in the weights as `normalize_inputs.buffer_observation_state.min` and the like. The kind of each map lies beside
them, as `norm_map` of the processor files; only without these files `normalization_mapping` of config.json holds.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...data.normalize import Affine
from ...encoders.fuse import EncoderConfig
from ...encoders.image import CropSize
from ...encoders.pooling import SpatialSoftmaxConfig
from ...encoders.resnet import ResNetConfig, resnet18, resnet34
from ...errors import CheckpointError
from ...nets.unet1d import UNet1dConfig
from ..diffusion import DiffusionConfig
from ..policy import PolicySpec
from .layout import Foreign, Source
from .noise import PREDICTIONS, SCHEDULES, Noise
from .options import Options, read_json, shapes
from .statistics import EPS, affine

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
BACKBONES: dict[str, Callable[..., ResNetConfig]] = {"resnet18": resnet18, "resnet34": resnet34}

WITHOUT_EFFECT = {
    *("drop_n_last_frames", "crop_ratio", "pretrained_backbone_weights", "gradient_checkpointing"),
    *("compile_model", "compile_mode", "do_mask_loss_for_padding", "policy_action_contract"),
    *("optimizer_lr", "optimizer_betas", "optimizer_eps", "optimizer_weight_decay"),
    *("scheduler_name", "scheduler_warmup_steps"),
    *("device", "use_amp", "use_peft", "push_to_hub", "repo_id", "private", "tags", "license"),
    *("pretrained_path", "pretrained_revision"),
}
"""Options that say how it was trained, stored or run, not what it computes."""

CENTRED = "crop_is_random=false: trained on the centre; its actions are the same, training on here crops at random"

PASSIVE = {"rename_processor", "rename_observations_processor", "to_batch_processor", "device_processor"}
"""Processor steps that change no number."""


def read(folder: Path) -> Foreign:
    """Return the policy in `folder`; `CheckpointError` that names what is missing, unexpected or not supported."""
    options = Options(read_json(folder / "config.json"), where=str(folder / "config.json"))
    options.text("type", ["diffusion"])
    tensors = {key.replace("._orig_mod", ""): value for key, value in _load(folder / "model.safetensors").items()}
    observed, action = _features(options)
    processed = (folder / f"{PREPROCESSOR}.json").exists()
    statistics = _statistics(folder, options, tensors, processed=processed)
    sources = tuple(Source(name, shape, statistics(name, kind, shape)) for name, (kind, shape) in observed.items())
    config = _config(options, cameras=[s.shape[1:] for s in sources if s.is_image])
    centred = "crop_is_random" in options and not options.flag("crop_is_random") and config.encoder.crop is not None
    if left := [name for name, value in options.unread.items() if name not in WITHOUT_EFFECT and value]:
        raise CheckpointError(
            f"{options.where}: expected options that are known here, got {', '.join(sorted(left))}: remove what does "
            "not change the policy's actions"
        )
    shared = config.encoder.cameras == "shared"
    return Foreign(
        what="LeRobot",
        config=config,
        sources=sources,
        action=Source(ACTION, action, statistics(ACTION, "ACTION", action)),
        tensors=tensors,
        name_of=lambda key: name_of(key, shared=shared),
        file=folder / "model.safetensors",
        about={
            "folder": folder.name,
            "normaliser": f"norm_map of {PREPROCESSOR}.json" if processed else "normalization_mapping of config.json",
            **({"crops": CENTRED} if centred else {}),
        },
    )


def name_of(key: str, *, shared: bool) -> str:
    """Return LeRobot's name of a weight of ours, without `backbone.`; cameras may share one encoder."""
    head, _, rest = key.partition(".")
    if head == "net":
        return f"diffusion.unet.{rest}"
    vision = rest.removeprefix("visions.")
    return f"diffusion.rgb_encoder.{vision.partition('.')[2] if shared else vision}"


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"expected a file of weights, got none: {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got {error}") from error


def _features(options: Options) -> tuple[dict[str, tuple[str, tuple[int, ...]]], tuple[int, ...]]:
    """Return (type, shape) of what is observed, in the condition's order, and the action's shape."""
    inputs, outputs = shapes(options.inner("input_features")), shapes(options.inner("output_features"))
    where = options.where
    by_type: dict[str, list[str]] = {"STATE": [], "VISUAL": [], "ENV": []}
    for name, (kind, shape) in inputs.items():
        if kind not in by_type:
            raise CheckpointError(f"{where}: expected features of type {', '.join(by_type)}, got {kind} of {name!r}")
        if len(shape) != (3 if kind == "VISUAL" else 1) or (kind == "VISUAL" and shape[0] != 3) or min(shape) < 1:
            raise CheckpointError(f"{where}: expected a vector, or an image (3, height, width), got {name!r} {shape}")
        by_type[kind].append(name)
    if by_type["STATE"] != [STATE] or len(by_type["ENV"]) > 1:
        raise CheckpointError(
            f"{where}: expected one state, {STATE!r}, and at most one environment state, "
            f"got {by_type['STATE']} and {by_type['ENV']}"
        )
    sizes = {inputs[name][1] for name in by_type["VISUAL"]}
    if len(sizes) > 1:
        raise CheckpointError(f"{where}: expected images of one size, got {sorted(sizes)}")
    if list(outputs) != [ACTION] or outputs[ACTION][0] != "ACTION" or len(outputs[ACTION][1]) != 1:
        raise CheckpointError(f"{where}: expected one output, a vector 'action', got {dict(outputs)}")
    order = [*by_type["STATE"], *by_type["VISUAL"], *by_type["ENV"]]
    return {name: inputs[name] for name in order}, outputs[ACTION][1]


def _config(options: Options, *, cameras: list[tuple[int, ...]]) -> DiffusionConfig:
    steps = options.integer("num_train_timesteps")
    calls = None if options.value("num_inference_steps") is None else options.integer("num_inference_steps")
    clips, bound = options.flag("clip_sample"), options.real("clip_sample_range")
    scheduler = options.text("noise_scheduler_type", ["DDPM", "DDIM"]).lower()
    noise = Noise(
        scheduler=cast('Literal["ddpm", "ddim"]', scheduler),
        steps=steps,
        schedule=options.text("beta_schedule", SCHEDULES),
        beta_start=options.real("beta_start"),
        beta_end=options.real("beta_end"),
        prediction=options.text("prediction_type", list(PREDICTIONS)),
        clip=bound if clips else None,
        nfe=steps if calls is None else calls,
    )
    observed = options.integer("n_obs_steps")
    with options.naming("down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim"):
        net = UNet1dConfig(
            widths=options.integers("down_dims"),
            kernel=options.integer("kernel_size"),
            groups=options.integer("n_groups"),
            film_scale=options.flag("use_film_scale_modulation"),
            time_dim=options.integer("diffusion_step_embed_dim"),
            time_scale=float(steps),
            time_offset=-1.0,
        )
    return DiffusionConfig(
        spec=PolicySpec(
            obs_steps=observed,
            horizon=options.integer("horizon"),
            stride=options.integer("n_action_steps"),
            first_action=1 - observed,
        ),
        net=net,
        encoder=_encoder(options, cameras),
        objective=noise.objective,
        sampling=noise.sampling,
    )


def _encoder(options: Options, cameras: list[tuple[int, ...]]) -> EncoderConfig:
    """Return the encoder of the cameras; the options must be there even where there are none."""
    crop = None if options.value("crop_shape") is None else options.integers("crop_shape")
    keypoints = options.integer("spatial_softmax_num_keypoints")
    backbone = BACKBONES[options.text("vision_backbone", list(BACKBONES))]
    groups = options.flag("use_group_norm")
    separate = options.flag("use_separate_rgb_encoder_per_camera")
    if "resize_shape" in options:  # newer versions only
        options.expect("resize_shape", None)
    if crop is not None and len(crop) != 2:
        raise options.unsupported("crop_shape")
    if not cameras:
        return EncoderConfig()
    plain = backbone(norm="group" if groups else "batch")
    return EncoderConfig(
        vision=ResNetConfig(
            widths=plain.widths,
            blocks=plain.blocks,
            strides=plain.strides,
            stem=plain.stem,
            norm=plain.norm,
            pool=SpatialSoftmaxConfig(keypoints=keypoints),
            dim=2 * keypoints,
        ),
        cameras="separate" if separate else "shared",
        crop=None if crop is None else CropSize(*crop),
    )


Statistics = Callable[[str, str, tuple[int, ...]], Affine]
"""(name, type, shape) -> the map of a feature; a channel a column for images."""


def _statistics(folder: Path, options: Options, tensors: dict[str, Tensor], *, processed: bool) -> Statistics:
    """Return the normaliser; what it is made of is taken out of `tensors`."""
    mapping = options.inner("normalization_mapping")
    if processed:
        inputs, outputs = (
            _processor(folder, name, step)
            for name, step in ((PREPROCESSOR, "normalizer_processor"), (POSTPROCESSOR, "unnormalizer_processor"))
        )
        return lambda name, kind, shape: _same(
            [
                affine(
                    modes.get(kind, "IDENTITY"),
                    numbers.get(name, {}),
                    size=shape[0],
                    where=f"{folder}: {name}",
                    eps=eps,
                )
                for modes, eps, numbers in ((inputs, outputs) if kind == "ACTION" else (inputs,))
            ],
            name,
        )
    modes = {kind: mapping.text(kind) for kind in mapping.names}
    return lambda name, kind, shape: _buffered(tensors, name, mode=modes.get(kind, "IDENTITY"), size=shape[0])


def _buffered(tensors: dict[str, Tensor], name: str, *, mode: str, size: int) -> Affine:
    """Return the map that old versions keep in the weights, and take its statistics out of them."""
    heads = ("normalize_targets", "unnormalize_outputs") if name == ACTION else ("normalize_inputs",)
    found: list[Affine] = []
    for head in heads:
        prefix = f"{head}.buffer_{name.replace('.', '_')}."
        numbers = {key: tensors.pop(prefix + key) for key in _ends(tensors, prefix)}
        found.append(affine(mode, numbers, size=size, where=prefix[:-1], widened=name != ACTION))
    return _same(found, name)


def _ends(tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]


def _same(found: list[Affine], name: str) -> Affine:
    """Return the first of several maps that have to be the same."""
    first = found[0]
    for other in found[1:]:
        if not (first.scale.equal(other.scale) and first.offset.equal(other.offset)):
            raise CheckpointError(f"expected one normaliser of {name!r}, got others before and after the policy")
    return first


def _processor(folder: Path, name: str, wanted: str) -> tuple[dict[str, str], float, dict[str, dict[str, Tensor]]]:
    """Return (mode by feature type, eps, statistics by feature) of the step `wanted` of a processor file."""
    body = Options(read_json(folder / f"{name}.json"), where=str(folder / f"{name}.json"))
    steps = body.value("steps")
    if not isinstance(steps, list):
        raise body.unsupported("steps")
    chosen: list[Options] = []
    for place, item in enumerate(cast("list[Any]", steps)):
        step = Options(item, where=f"{body.where}: step {place}")
        kind = step.text("registry_name", [*PASSIVE, wanted])
        if kind == wanted:
            chosen.append(step)
        elif kind == "device_processor" and step.inner("config").value("float_dtype") != "float32":
            step.inner("config").expect("float_dtype", None)
    if len(chosen) != 1:
        raise CheckpointError(f"{body.where}: expected one step {wanted!r}, got {len(chosen)}")
    config, file = chosen[0].inner("config"), chosen[0].text("state_file")
    if "normalize_observation_keys" in config:
        config.expect("normalize_observation_keys", None)
    modes = config.inner("norm_map")
    if Path(file).name != file:
        raise CheckpointError(f"{body.where}: expected a file beside it, got {file!r}")
    numbers: dict[str, dict[str, Tensor]] = {}
    for key, value in _load(folder / file).items():
        feature, _, statistic = key.rpartition(".")
        numbers.setdefault(feature, {})[statistic] = value
    eps = config.real("eps") if "eps" in config else EPS
    if not 0 < eps < 1:
        raise config.unsupported("eps")
    return {kind: modes.text(kind) for kind in modes.names}, eps, numbers
