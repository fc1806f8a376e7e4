"""Checkpoints (.ckpt) of the original diffusion-policy code: U-Net policies on states and on images.

The file is a pickle, of which nothing is executed: see `pickled`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...data.normalize import Affine
from ...encoders.fuse import EncoderConfig
from ...encoders.image import IMAGENET_MEAN, IMAGENET_STD, CropSize
from ...encoders.pooling import AveragePoolConfig, SpatialSoftmaxConfig
from ...encoders.resnet import resnet18, resnet34
from ...errors import CheckpointError
from ...nets.unet1d import UNet1dConfig
from ..diffusion import DiffusionConfig
from ..policy import PolicySpec
from .layout import Foreign, Source
from .noise import PREDICTIONS, SCHEDULES, Noise
from .options import Options
from .pickled import unpickled

BEFORE_BACKBONE = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""Children of torchvision's ResNet, by their place in ours."""


def read(file: Path) -> Foreign:
    """Return the policy in `file`; `CheckpointError` that names what is missing, refused or not supported."""
    body, tensors = unpickled(file)
    whole = Options(body, where=str(file))
    policy = whole.inner("cfg").inner("policy")
    kinds: dict[str, Callable[[Options, dict[str, Tensor]], _Parts]] = {
        "DiffusionUnetLowdimPolicy": _of_states,
        "DiffusionUnetHybridImagePolicy": _of_hybrid,
        "DiffusionUnetImagePolicy": _of_images,
    }
    kind = policy.text("_target_").rpartition(".")[2]
    if kind not in kinds:
        raise CheckpointError(f"{file}: expected a policy of {', '.join(kinds)}, got {kind!r}")
    weights = {key: x for key, x in tensors.items() if not key.endswith("_dummy_variable")}
    parts = kinds[kind](policy, weights)
    config = _config(policy, parts)
    for options in (policy, *parts.options):
        _all_read(options)
    return Foreign(
        what="Stanford",
        config=config,
        sources=parts.sources,
        action=Source("action", parts.action, _affine(weights, "action", parts.action[0])),
        tensors={key: x for key, x in weights.items() if not key.startswith("normalizer.")},
        name_of=lambda key: _name_of(key, parts.vision_name),
        file=file,
        about={"file": file.name, "weights": whole.text("weights")},
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """What differs between the kinds of policies."""

    sources: tuple[Source, ...]
    action: tuple[int, ...]
    unet: Options
    encoder: EncoderConfig
    vision_name: Callable[[int, str], str]
    """(camera, rest of our name) -> their name of a weight of its vision network."""
    options: tuple[Options, ...] = ()
    """Further options, all of which have to be known."""


def _of_states(policy: Options, tensors: Mapping[str, Tensor]) -> _Parts:
    observed, action = policy.integer("obs_dim"), policy.integer("action_dim")
    for name, wanted in (
        ("obs_as_global_cond", True),
        ("obs_as_local_cond", False),
        ("pred_action_steps_only", False),
        ("oa_step_convention", True),
    ):
        policy.expect(name, wanted)
    unet = policy.inner("model")
    if unet.text("_target_").rpartition(".")[2] != "ConditionalUnet1D":
        raise unet.unsupported("_target_")
    unet.expect("local_cond_dim", None)
    unet.expect("input_dim", action)
    unet.expect("global_cond_dim", observed * policy.integer("n_obs_steps"))
    source = Source("obs", (observed,), _affine(tensors, "obs", observed))
    return _Parts((source,), (action,), unet, EncoderConfig(), lambda _, rest: rest, (unet,))


def _of_hybrid(policy: Options, tensors: dict[str, Tensor]) -> _Parts:
    """Return the parts of a policy whose images go through robomimic's encoder: a spatial softmax, then a layer."""
    policy.expect("obs_as_global_cond", True)
    shapes, action = _shapes(policy.inner("shape_meta"))
    crop = _crop(policy)
    if crop is not None:
        policy.expect("eval_fixed_crop", True)
    else:
        policy.value("eval_fixed_crop")
    group = policy.flag("obs_encoder_group_norm")
    cameras = [name for name, (kind, _) in shapes.items() if kind == "rgb"]
    encoder = EncoderConfig(crop=crop)
    for camera in cameras:
        head = f"obs_encoder.obs_nets.{camera}"
        _drop_copies(tensors, head)
        keypoints, dim = (_shape(tensors, f"{head}.nets.{name}.weight")[0] for name in ("1.nets", "3"))
        _temperature_one(tensors, head)
        x, y = (tensors.pop(f"{head}.nets.1.pos_{axis}", torch.zeros(0)).flatten() for axis in "xy")
        if len(x) != len(y):
            raise CheckpointError(f"expected as many pos_x as pos_y in {head}.nets.1, got {len(x)} and {len(y)}")
        tensors[f"{head}.nets.1.pos_grid"] = torch.stack([x, y], dim=1)
        vision = replace(
            resnet18(norm="group" if group else "batch"), pool=SpatialSoftmaxConfig(keypoints=keypoints), dim=dim
        )
        encoder = replace(encoder, vision=vision)
    sources = tuple(_source(tensors, name, kind, shape) for name, (kind, shape) in shapes.items())

    def name(camera: int, rest: str) -> str:
        head, _, tail = rest.partition(".")
        place = {"backbone": "0.nets", "pool": "1", "out": "3"}[head]
        return f"obs_encoder.obs_nets.{cameras[camera]}.nets.{place}.{tail}"

    return _Parts(sources, action, policy, encoder, name)


def _of_images(policy: Options, tensors: dict[str, Tensor]) -> _Parts:
    """Return the parts of a policy whose images go through torchvision's ResNet and its average pooling."""
    policy.expect("obs_as_global_cond", True)
    shapes, action = _shapes(policy.inner("shape_meta"))
    options = policy.inner("obs_encoder")
    model = options.inner("rgb_model")
    options.expect("resize_shape", None)
    group, shared, imagenet = (options.flag(n) for n in ("use_group_norm", "share_rgb_model", "imagenet_norm"))
    crop = _crop(options)
    if crop is not None:  # without it, old versions did not crop at all, newer ones at the centre
        options.expect("random_crop", True)
    # Its encoder sorts by name: images first, then states.
    ordered = sorted(shapes.items(), key=lambda item: (item[1][0] != "rgb", item[0]))
    cameras = [name for name, (kind, _) in ordered if kind == "rgb"]
    make = {"resnet18": resnet18, "resnet34": resnet34}[model.text("name", ["resnet18", "resnet34"])]
    # Its encoder puts group norms into copies of the network only, not into one that is shared.
    plain = make(norm="group" if group and not shared else "batch")
    vision = replace(plain, pool=AveragePoolConfig(), dim=plain.widths[-1], activation="none")
    users = ["rgb"] if shared else cameras
    for user in users:  # ours ends in a linear layer
        tensors[f"obs_encoder.key_model_map.{user}.out.weight"] = torch.eye(vision.dim)
        tensors[f"obs_encoder.key_model_map.{user}.out.bias"] = torch.zeros(vision.dim)
    sources = tuple(_source(tensors, name, kind, shape, imagenet=imagenet) for name, (kind, shape) in ordered)

    def name(camera: int, rest: str) -> str:
        head, _, tail = rest.partition(".")
        if head == "backbone":
            place, _, end = tail.partition(".")
            tail = f"{BEFORE_BACKBONE[int(place)]}.{end}"
        else:
            tail = rest
        return f"obs_encoder.key_model_map.{users[camera]}.{tail}"

    encoder = EncoderConfig(vision=vision, crop=crop, cameras="shared" if shared else "separate")
    for known in ("_target_", "shape_meta", "random_crop"):
        options.value(known)
    return _Parts(sources, action, policy, encoder if cameras else EncoderConfig(), name, (options,))


def _config(policy: Options, parts: _Parts) -> DiffusionConfig:
    observed, steps, noise = policy.integer("n_obs_steps"), policy.integer("horizon"), _noise(policy)
    unet = parts.unet
    with unet.naming("down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim"):
        net = UNet1dConfig(
            widths=unet.integers("down_dims"),
            kernel=unet.integer("kernel_size"),
            groups=unet.integer("n_groups"),
            film_scale=unet.flag("cond_predict_scale"),
            time_dim=unet.integer("diffusion_step_embed_dim"),
            time_scale=float(noise.steps),
            time_offset=-1.0,
        )
    return DiffusionConfig(
        spec=PolicySpec(
            obs_steps=observed, horizon=steps, stride=policy.integer("n_action_steps"), first_action=1 - observed
        ),
        net=net,
        encoder=parts.encoder,
        objective=noise.objective,
        sampling=noise.sampling,
    )


def _noise(policy: Options) -> Noise:
    options = policy.inner("noise_scheduler")
    name = options.text("_target_").rpartition(".")[2]
    if name not in ("DDPMScheduler", "DDIMScheduler"):
        raise CheckpointError(f"{options.where}: expected DDPMScheduler or DDIMScheduler, got {name!r}")
    ddpm = name == "DDPMScheduler"
    for key, wanted in (
        {"variance_type": "fixed_small"} if ddpm else {"set_alpha_to_one": True, "steps_offset": 0}
    ).items():
        options.expect(key, wanted)
    if "timestep_spacing" in options:  # newer versions of diffusers only
        options.expect("timestep_spacing", "leading")
    steps = options.integer("num_train_timesteps")
    calls = None if policy.value("num_inference_steps") is None else policy.integer("num_inference_steps")
    clips = options.flag("clip_sample")
    # Versions of diffusers without the option clip at 1.
    bound = options.real("clip_sample_range") if "clip_sample_range" in options else 1.0
    noise = Noise(
        scheduler="ddpm" if ddpm else "ddim",
        steps=steps,
        schedule=options.text("beta_schedule", SCHEDULES),
        beta_start=options.real("beta_start"),
        beta_end=options.real("beta_end"),
        prediction=options.text("prediction_type", list(PREDICTIONS)),
        clip=bound if clips else None,
        nfe=steps if calls is None else calls,
    )
    _all_read(options)
    return noise


def _all_read(options: Options) -> None:
    """Raise `CheckpointError` where options that are set were never asked for: they may change the actions."""
    if left := [key for key, value in options.unread.items() if value]:
        raise CheckpointError(f"{options.where}: expected options that are known here, got {', '.join(left)}")


def _shapes(meta: Options) -> tuple[dict[str, tuple[str, tuple[int, ...]]], tuple[int, ...]]:
    """Return (type, shape) of every observation, in the file's order, and the action's shape."""
    observed, action = meta.inner("obs"), meta.inner("action").integers("shape")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in observed.names:
        feature = observed.inner(name)
        kind = feature.text("type", ["rgb", "low_dim"]) if "type" in feature else "low_dim"
        shape = feature.integers("shape")
        if len(shape) != (3 if kind == "rgb" else 1) or (kind == "rgb" and shape[0] != 3) or min(shape) < 1:
            raise CheckpointError(
                f"{meta.where}: expected a vector or an image (3, height, width), got {name!r} {shape}"
            )
        found[name] = kind, shape
    if len(action) != 1:
        raise CheckpointError(f"{meta.where}: expected a vector of actions, got {action}")
    return found, action


def _source(
    tensors: Mapping[str, Tensor], name: str, kind: str, shape: tuple[int, ...], *, imagenet: bool = False
) -> Source:
    found = _affine(tensors, name, shape[0])
    if kind == "rgb" and imagenet:
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (IMAGENET_MEAN, IMAGENET_STD))
        found = Affine(found.kind, found.scale / std, (found.offset - mean) / std)
    return Source(name, shape, found)


def _affine(tensors: Mapping[str, Tensor], name: str, size: int) -> Affine:
    """Return the map `x scale + offset` that the file holds; one number for all columns of an image."""
    columns: list[Tensor] = []
    for part in ("scale", "offset"):
        value = tensors.get(f"normalizer.params_dict.{name}.{part}")
        if value is None:
            raise CheckpointError(f"expected a normaliser of {name!r}, got no normalizer.params_dict.{name}.{part}")
        if value.numel() not in (1, size) or not bool(value.isfinite().all()) or (part == "scale" and not value.all()):
            raise CheckpointError(
                f"normaliser of {name!r}: expected {size} usable numbers in {part}, got {value.tolist()}"
            )
        columns.append(value.flatten().to(torch.float64).expand(size).clone())
    return Affine("limits", *columns)


def _crop(options: Options) -> CropSize | None:
    if options.value("crop_shape") is None:
        return None
    shape = options.integers("crop_shape")
    if len(shape) != 2:
        raise options.unsupported("crop_shape")
    return CropSize(*shape)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors or not tensors[name].ndim:
        raise CheckpointError(f"expected the weight {name!r}, got none")
    return tuple(tensors[name].shape)


def _drop_copies(tensors: dict[str, Tensor], head: str) -> None:
    """Take out the second names of the same modules, which must hold the same numbers."""
    for second, first in (("backbone.", "nets.0."), ("pool.", "nets.1.")):
        for key in [k for k in tensors if k.startswith(f"{head}.{second}")]:
            other = f"{head}.{first}{key.removeprefix(f'{head}.{second}')}"
            if other not in tensors or not tensors[other].equal(tensors[key]):
                raise CheckpointError(f"expected the same numbers in {key!r} and {other!r}, got others")
            del tensors[key]


def _temperature_one(tensors: dict[str, Tensor], head: str) -> None:
    temperature = tensors.pop(f"{head}.nets.1.temperature", torch.ones(1))
    if not bool((temperature == 1).all()):
        raise CheckpointError(f"{head}: expected a spatial softmax of temperature 1, got {temperature.tolist()}")


def _name_of(key: str, vision_name: Callable[[int, str], str]) -> str:
    """Return their name of a weight of ours, without `backbone.`."""
    head, _, rest = key.partition(".")
    if head != "net":
        place, _, tail = rest.removeprefix("visions.").partition(".")
        return vision_name(int(place), tail)
    words = rest.split(".")
    words = [{"conv1": "blocks.0", "conv2": "blocks.1"}.get(word, word) for word in words]
    if words[0] in ("down_modules", "up_modules") and words[2] == "2":
        words.insert(3, "conv")
    return ".".join(["model", *words])
