"""A diffusion policy of ours as the folder that LeRobot loads; what it cannot express is one error that names it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...data.actions import Absolute
from ...data.formats.publish import publish
from ...data.normalize import Affine
from ...encoders.fuse import EncoderConfig
from ...encoders.image import Camera, cropped
from ...encoders.pooling import SpatialSoftmaxConfig
from ...encoders.resnet import ResNetConfig, StandardResNetConfig
from ...nets.unet1d import UNet1dConfig
from ...schema import Feature
from ..diffusion import DiffusionPolicy
from .layout import CONDITIONED
from .lerobot import ACTION, BACKBONES, ENVIRONMENT, POSTPROCESSOR, PREPROCESSOR, STATE, name_of
from .noise import cannot, noise_of
from .statistics import EPS, numbers_of

IMAGES = "observation.image"
"""How the names of LeRobot's cameras begin."""
SHIFTED = "diffusion_step_encoder.1.weight"
"""Name of the U-Net's weight that reads the sinusoids of the step."""


def write(policy: DiffusionPolicy, folder: Path) -> None:
    """Write `policy` as a new folder, complete or not at all; `ConfigError` names what LeRobot cannot express."""
    exported = _Exported(policy)
    tensors, body, statistics = exported.tensors(), exported.config(), exported.statistics()

    def fill(temporary: Path) -> None:
        temporary.mkdir()
        _json(temporary / "config.json", body)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        for name, steps in exported.processors().items():
            _json(temporary / f"{name}.json", {"name": name, "steps": steps})
            for step in steps:
                if "state_file" in step:
                    save_file(statistics, temporary / step["state_file"])

    publish(folder, fill, overwrite=False)


class _Exported:
    """A policy that has been checked, and what LeRobot's files hold of it."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        config = policy.config
        self.policy, self.spec, self.encoder = policy, config.spec, config.encoder
        self.net = _net(policy)
        self.noise = noise_of(config.objective, config.sampling)
        _check_spec(policy, levels=len(self.net.widths))
        if self.net.time_scale != self.noise.steps:
            raise cannot("policy.net.time_scale", f"the steps of the path, {self.noise.steps}", self.net.time_scale)
        observations = policy.schema.observations
        for feature in observations:
            if feature.goal or feature.kind not in ("vector", "image"):
                raise cannot(f"feature {feature.name!r}", "a vector or an image", _kind(feature))
        self.cameras = {_camera_name(f): f for f in observations if f.kind == "image"}
        self.states = _states([f for f in observations if f.is_state], seeing=bool(self.cameras))
        if self.cameras:
            self.vision = _vision(self.encoder)
            sizes = {(f.image_size, cropped(f, self.encoder.crop)) for f in self.cameras.values()}
            if len(sizes) > 1:
                raise cannot("cameras", "images of one size, cropped alike", sorted(sizes))
        _check_encoder(self.encoder)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights under LeRobot's names, their condition in LeRobot's order."""
        backbone = self.policy.backbone
        shared = self.encoder.cameras == "shared"
        found: dict[str, Tensor] = {}
        columns = self._columns()
        steps, width = self.spec.obs_steps, len(columns)
        for key, value in backbone.state_dict().items():
            if not key.startswith(("net.", "encoder.visions.")):
                continue  # colours are statistics
            tensor = value
            if key.endswith(SHIFTED):
                tensor = _counted_from_zero(value, shift=self.net.time_offset + 1)
            if key.endswith(CONDITIONED) and columns != list(range(width)):
                time, told = value.split([value.shape[1] - steps * width, steps * width], dim=1)
                told = told.unflatten(1, (steps, width))[:, :, columns].flatten(1)
                tensor = torch.cat([time, told], dim=1)
            found[name_of(key, shared=shared)] = tensor.detach().clone().contiguous()
        return found

    def _columns(self) -> list[int]:
        """Return, for every column of an observed step in LeRobot's order, its place in ours."""
        dim = self.vision.dim if self.cameras else 0
        starts: dict[str, int] = {}
        start = 0
        states = [f for f in self.policy.schema.observations if f.is_state]
        cameras = list(self.cameras.values())
        # All states lie together, where the first of them stands in the schema.
        before = _cameras_before(self.policy.schema.observations)
        for feature in (*before, *states, *(c for c in cameras if c not in before)):
            starts[feature.name] = start
            start += dim if feature.kind == "image" else feature.size
        theirs = [*self.states[STATE], *cameras, *self.states.get(ENVIRONMENT, [])]
        return [starts[f.name] + k for f in theirs for k in range(dim if f.kind == "image" else f.size)]

    def _features(self) -> dict[str, dict[str, Any]]:
        """Return the input features: name -> type and shape."""
        kinds = {STATE: "STATE", ENVIRONMENT: "ENV"}
        images = {name: {"type": "VISUAL", "shape": [3, *feature.image_size]} for name, feature in self.cameras.items()}
        states = {n: {"type": kinds[n], "shape": [sum(f.size for f in fs)]} for n, fs in self.states.items()}
        return {STATE: states.pop(STATE), **images, **states}

    def _maps(self) -> dict[str, list[Affine]]:
        """Return the normalisers by LeRobot's names."""
        affines = self.policy.backbone.normalizer.affines
        maps = {name: [affines[f.name] for f in features] for name, features in self.states.items()}
        by_name = {m.feature.name: m for m in self.policy.modules() if isinstance(m, Camera)}
        for name, feature in self.cameras.items():
            mean, std = (x.double().cpu() for x in (by_name[feature.name].mean, by_name[feature.name].std))
            maps[name] = [Affine("gaussian", 1 / std, -mean / std)]
        return maps | {ACTION: [affines[self.policy.schema.action.name]]}

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics `feature.statistic`, images as [3, 1, 1]."""
        found: dict[str, Tensor] = {}
        for name, maps in self._maps().items():
            for key, value in numbers_of(maps, where=name)[1].items():
                found[f"{name}.{key}"] = value.reshape(-1, 1, 1) if name in self.cameras else value
        return found

    def _modes(self) -> dict[str, str]:
        modes = {name: numbers_of(maps, where=name)[0] for name, maps in self._maps().items()}
        kinds = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
        return {kinds.get(name, "VISUAL"): mode for name, mode in modes.items()}

    def config(self) -> dict[str, Any]:
        """Return config.json."""
        noise, net, spec = self.noise, self.net, self.spec
        crop = None
        if self.cameras and self.encoder.crop is not None:
            crop = list(cropped(next(iter(self.cameras.values())), self.encoder.crop))
        pool = self.vision.pool if self.cameras else SpatialSoftmaxConfig()
        assert isinstance(pool, SpatialSoftmaxConfig)
        return {
            "type": "diffusion",
            "n_obs_steps": spec.obs_steps,
            "horizon": spec.horizon,
            "n_action_steps": spec.stride,
            "input_features": self._features(),
            "output_features": {ACTION: {"type": "ACTION", "shape": list(self.policy.schema.action.shape)}},
            "normalization_mapping": self._modes(),
            "vision_backbone": _backbone_name(self.vision) if self.cameras else "resnet18",
            "crop_shape": crop,
            "crop_is_random": True,
            "pretrained_backbone_weights": None,
            "use_group_norm": self.vision.norm == "group" if self.cameras else True,
            "spatial_softmax_num_keypoints": pool.keypoints,
            "use_separate_rgb_encoder_per_camera": self.encoder.cameras == "separate",
            "down_dims": list(net.widths),
            "kernel_size": net.kernel,
            "n_groups": net.groups,
            "diffusion_step_embed_dim": net.time_dim,
            "use_film_scale_modulation": net.film_scale,
            "noise_scheduler_type": noise.scheduler.upper(),
            "num_train_timesteps": noise.steps,
            "beta_schedule": noise.schedule,
            "beta_start": noise.beta_start,
            "beta_end": noise.beta_end,
            "prediction_type": noise.prediction,
            "clip_sample": noise.clip is not None,
            "clip_sample_range": 1.0 if noise.clip is None else noise.clip,
            "num_inference_steps": noise.nfe,
            "do_mask_loss_for_padding": True,
        }

    def processors(self) -> dict[str, list[dict[str, Any]]]:
        """Return the steps of both processor files."""
        outputs = {ACTION: {"type": "ACTION", "shape": list(self.policy.schema.action.shape)}}

        def normalizer(name: str, file: str, features: dict[str, Any]) -> dict[str, Any]:
            config = {"eps": EPS, "features": features, "norm_map": self._modes()}
            return {"registry_name": name, "config": config, "state_file": file}

        device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
        before = [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            device,
        ]
        files = f"{PREPROCESSOR}_step_3_normalizer_processor", f"{POSTPROCESSOR}_step_0_unnormalizer_processor"
        return {
            PREPROCESSOR: [
                *before,
                normalizer("normalizer_processor", f"{files[0]}.safetensors", {**self._features(), **outputs}),
            ],
            POSTPROCESSOR: [normalizer("unnormalizer_processor", f"{files[1]}.safetensors", outputs), device],
        }


def _net(policy: DiffusionPolicy) -> UNet1dConfig:
    net = policy.config.net
    if not isinstance(net, UNet1dConfig):
        raise cannot("policy.net", "unet1d", net)
    if net.conditioning != "film" or net.time_embedding != "sinusoidal":
        raise cannot("policy.net", "film conditioning and sinusoids", f"{net.conditioning} and {net.time_embedding}")
    return net


def _check_spec(policy: DiffusionPolicy, *, levels: int) -> None:
    spec = policy.spec
    if not isinstance(spec.action_space, Absolute):
        raise cannot("policy.spec.action_space", "absolute", spec.action_space)
    if spec.first_action != 1 - spec.obs_steps:
        raise cannot("policy.spec.first_action", str(1 - spec.obs_steps), spec.first_action)
    if spec.horizon % 2**levels:
        raise cannot("policy.spec.horizon", f"a multiple of {2**levels} (two to the number of widths)", spec.horizon)


def _check_encoder(encoder: EncoderConfig) -> None:
    if encoder.proprioception:
        raise cannot("policy.encoder.proprioception", "none", encoder.proprioception)
    if encoder.token_dim is not None:
        raise cannot("policy.encoder.token_dim", "none", encoder.token_dim)
    if encoder.modality_dropout:
        raise cannot("policy.encoder.modality_dropout", "0", encoder.modality_dropout)


def _vision(encoder: EncoderConfig) -> ResNetConfig:
    vision = encoder.vision.resnet if isinstance(encoder.vision, StandardResNetConfig) else encoder.vision
    if not isinstance(vision, ResNetConfig) or _backbone_name(vision) is None:
        raise cannot("policy.encoder.vision", "resnet18 or resnet34", vision)
    pool = vision.pool
    if not isinstance(pool, SpatialSoftmaxConfig) or pool.temperature != 1 or pool.learn != "nothing":
        raise cannot("policy.encoder.vision.pool", "a spatial softmax of temperature 1", pool)
    if vision.dim != 2 * pool.keypoints or vision.activation != "relu":
        raise cannot(
            "policy.encoder.vision.dim", f"{2 * pool.keypoints}, and relu", f"{vision.dim}, and {vision.activation}"
        )
    return vision


def _backbone_name(vision: ResNetConfig) -> str | None:
    def shape(v: ResNetConfig) -> tuple[object, ...]:
        return v.widths, v.blocks, v.strides, v.stem, v.group_channels if v.norm == "group" else 16

    return next((name for name, make in BACKBONES.items() if shape(make(norm=vision.norm)) == shape(vision)), None)


def _states(states: list[Feature], *, seeing: bool) -> dict[str, list[Feature]]:
    """Return which states go where: LeRobot wants one that is the robot's, and a camera or an environment state."""
    around = [f for f in states if f.name == ENVIRONMENT]
    if not around and not seeing:
        around = states[1:]
    robot = [f for f in states if f not in around]
    if not robot or not (seeing or around):
        raise cannot("observations", "a state, and a camera or a second state", [f.name for f in states])
    return {STATE: robot, ENVIRONMENT: around} if around else {STATE: robot}


def _cameras_before(observations: tuple[Feature, ...]) -> list[Feature]:
    """Return the cameras that stand before the first state."""
    first = next((k for k, f in enumerate(observations) if f.is_state), len(observations))
    return [f for f in observations[:first] if f.kind == "image"]


def _camera_name(feature: Feature) -> str:
    return feature.name if feature.name.startswith(IMAGES) else f"{IMAGES}s.{feature.name}"


def _counted_from_zero(weight: Tensor, *, shift: float) -> Tensor:
    """Return the weight that reads the sinusoids of step k - `shift` as `weight` reads those of step k.

    Sine and cosine of (k - s) f are a rotation of those of k f by the angle s f.
    """
    if not shift:
        return weight
    half = weight.shape[1] // 2
    frequencies = torch.exp(-torch.log(torch.tensor(1e4).double()) * torch.arange(half).double() / (half - 1))
    sine, cosine = (shift * frequencies).sin(), (shift * frequencies).cos()
    w_sin, w_cos = weight.detach().double().split(half, dim=1)
    # k = (k - s) + s, by the addition theorems.
    turned = torch.cat([w_sin * cosine - w_cos * sine, w_sin * sine + w_cos * cosine], dim=1)
    return turned.to(weight.dtype)


def _kind(feature: Feature) -> str:
    return f"a goal {feature.kind}" if feature.goal else f"{'an' if feature.kind[0] in 'aeiou' else 'a'} {feature.kind}"


def _json(path: Path, body: object) -> None:
    path.write_text(json.dumps(body, indent=4, allow_nan=False) + "\n")
