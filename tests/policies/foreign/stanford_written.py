"""Policies of the original code written out in plain torch, and checkpoint files of them with random weights."""

import re
import sys
import typing
from collections import defaultdict
from types import ModuleType

import lerobot_written
import torch
from lerobot_written import Model, options, resnet, seen
from torch import nn


def inert(module, name):
    """Return a class that pickles under another module's name, as if that module were installed."""
    for part in ("omegaconf", "dill", module):
        sys.modules.setdefault(part, ModuleType(part))
    cls = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, cls)
    return cls


DictConfig = inert("omegaconf.dictconfig", "DictConfig")
ListConfig = inert("omegaconf.listconfig", "ListConfig")
AnyNode = inert("omegaconf.nodes", "AnyNode")
Metadata = inert("omegaconf.base", "ContainerMetadata")


def _load_type(name):
    return {"DictType": dict}[name]


_load_type.__module__, _load_type.__qualname__ = "dill._dill", "_load_type"
sys.modules.setdefault("dill", ModuleType("dill"))
sys.modules.setdefault("dill._dill", ModuleType("dill._dill"))._load_type = _load_type


class BuiltinType:
    def __reduce__(self):
        return _load_type, ("DictType",)


def node(value):
    """Return a configuration as omegaconf's objects hold it, parents and metadata included."""
    if isinstance(value, dict | list):
        found = DictConfig() if isinstance(value, dict) else ListConfig()
        inner = {k: node(v) for k, v in value.items()} if isinstance(value, dict) else [node(v) for v in value]
        found._content = inner
        for child in inner.values() if isinstance(inner, dict) else inner:
            child._parent = found
    else:
        found = AnyNode()
        found._val = value
    found._metadata = Metadata()
    found._metadata.object_type = BuiltinType()
    found._metadata.ref_type = dict
    found._metadata.element_type = typing.Any
    found._metadata.key_type = type(None)
    found._metadata.resolver_cache = defaultdict(dict)
    return found


class ImageModel(Model):
    """Told by cameras and states in `order`, every camera through its own network."""

    def __init__(self, body, order):
        super().__init__(body)
        self.order = order

    def condition(self, observed):
        parts, place = [], 0
        for name in self.order:
            x = observed[name]
            if x.ndim > 3:
                x = self.rgb_encoder[place](x.flatten(0, 1)).unflatten(0, x.shape[:2])
                place += 1
            parts.append(x)
        return torch.cat(parts, dim=-1).flatten(1)


class Pooled(nn.Module):
    """torchvision's ResNet-18 without its classifier, after a crop and ImageNet's colours."""

    def __init__(self, norm, crop):
        super().__init__()
        self.layers, self.crop = resnet("resnet18", norm), crop

    def forward(self, x):
        h, w = self.crop
        top, left = round((x.shape[-2] - h) / 2), round((x.shape[-1] - w) / 2)
        x = x[..., top : top + h, left : left + w]
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (x - mean[:, None, None]) / std[:, None, None]
        return self.layers(x).mean(dim=(2, 3))


def unet_keys(weights):
    """Return the U-Net's weights under the original names."""
    renamed = {}
    for key, value in weights.items():
        name = key.replace("conv1.block", "blocks.0.block").replace("conv2.block", "blocks.1.block")
        name = re.sub(r"^((?:down|up)_modules\.\d\.2)\.", r"\1.conv.", name)
        renamed[f"model.{name}"] = value
    return renamed


SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 8,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
NET = {
    "diffusion_step_embed_dim": 16,
    "down_dims": [16, 32],
    "kernel_size": 5,
    "n_groups": 4,
    "cond_predict_scale": False,
}
COMMON = {
    "horizon": 8,
    "n_obs_steps": 2,
    "n_action_steps": 4,
    "num_inference_steps": 8,
    "noise_scheduler": SCHEDULER,
}
PLACES = "diffusion_policy.policy"


def body_of(features):
    return options(
        input_features=features, num_train_timesteps=8, use_film_scale_modulation=False, n_groups=4, crop_shape=[40, 32]
    )


def normalizer(sizes, seed=1):
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, size in sizes.items():
        scale, offset = 0.01 + 0.01 * torch.rand(size, generator=g), torch.rand(size, generator=g) - 1.0
        if name.endswith("image"):
            scale, offset = torch.tensor([2.0]), torch.tensor([-1.0])
        found[f"normalizer.params_dict.{name}.scale"] = scale
        found[f"normalizer.params_dict.{name}.offset"] = offset
        for kind in ("min", "max", "mean", "std"):
            found[f"normalizer.params_dict.{name}.input_stats.{kind}"] = torch.rand(size, generator=g)
    return found


class Written:
    """A policy of the original code: its network, its weights under the original names, its configuration."""

    def __init__(self, model, weights, policy, sizes):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
        self.model, self.policy = model.eval(), policy
        self.maps = normalizer(sizes)
        self.weights = {**weights, **self.maps, "_dummy_variable": torch.zeros(0)}

    def payload(self, *, use_ema=True):
        other = {key: torch.zeros_like(value) for key, value in self.weights.items()}
        states = {"model": other, "ema_model": self.weights} if use_ema else {"model": self.weights}
        moments = {"state": {0: {"exp_avg": torch.ones(3), "step": 7}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
        return {
            "cfg": node({"policy": self.policy, "training": {"use_ema": use_ema}, "name": "x"}),
            "state_dicts": {**states, "optimizer": moments},
            "pickles": {"global_step": b"\x80\x04K\x07.", "empty": b""},
        }

    def save(self, path, **options):
        torch.save(self.payload(**options), path)
        return path

    def act(self, observed, generator):
        """Return the executed actions, and the whole chunk, of observations in robot units."""
        inputs = {name: self._map(name, x) for name, x in observed.items()}
        chunk = self.model.sample(inputs, generator)
        scale, offset = (self.maps[f"normalizer.params_dict.action.{part}"] for part in ("scale", "offset"))
        chunk = (chunk - offset) / scale
        start = self.policy["n_obs_steps"] - 1
        return chunk[:, start : start + self.policy["n_action_steps"]], chunk

    def _map(self, name, x):
        name = "obs" if name == "observation.state" else name
        scale, offset = (self.maps[f"normalizer.params_dict.{name}.{part}"] for part in ("scale", "offset"))
        return x * scale + offset


def of_states(**changed):
    torch.manual_seed(0)
    body = body_of({"observation.state": {"type": "STATE", "shape": [5]}})
    model = Model(body)
    policy = {
        "_target_": f"{PLACES}.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
        "model": {
            "_target_": "diffusion_policy.model.diffusion.conditional_unet1d.ConditionalUnet1D",
            "input_dim": 2,
            "local_cond_dim": None,
            "global_cond_dim": 10,
            **NET,
        },
        **COMMON,
        "obs_dim": 5,
        "action_dim": 2,
        "obs_as_local_cond": False,
        "obs_as_global_cond": True,
        "pred_action_steps_only": False,
        "oa_step_convention": True,
        **changed,
    }
    weights = unet_keys(model.unet.state_dict())
    weights["mask_generator._dummy_variable"] = torch.zeros(0)
    return Written(model, weights, policy, {"obs": 5, "action": 2})


def meta(order):
    image, state = {"shape": [3, 48, 40], "type": "rgb"}, {"shape": [3]}  # states need not say their type
    return {"obs": {name: image if name.endswith("image") else state for name in order}, "action": {"shape": [2]}}


def _features(order):
    images = {name: {"type": "VISUAL", "shape": [3, 48, 40]} for name in order if name.endswith("image")}
    states = 3 * sum(not name.endswith("image") for name in order)
    return {"observation.state": {"type": "STATE", "shape": [states]}, **images}


def of_hybrid(order=("position", "front_image", "gripper"), **changed):
    torch.manual_seed(0)
    body = body_of(_features(order)) | {"use_separate_rgb_encoder_per_camera": True}
    model = ImageModel(body, order)
    weights = unet_keys(model.unet.state_dict())
    cameras = [name for name in order if name.endswith("image")]
    for encoder, camera in zip(model.rgb_encoder, cameras, strict=True):
        head = f"obs_encoder.obs_nets.{camera}"
        for key, value in encoder.state_dict().items():
            first, _, rest = key.partition(".")
            if first == "out":
                weights[f"{head}.nets.3.{rest}"] = value
                continue
            names = ("backbone.nets", "nets.0.nets") if first == "backbone" else ("pool", "nets.1")
            found = {rest: value}
            if rest == "pos_grid":
                found = {"pos_x": value[:, 0][None], "pos_y": value[:, 1][None], "temperature": torch.ones(1)}
            weights |= {f"{head}.{name}.{key}": x for name in names for key, x in found.items()}
    policy = {
        "_target_": f"{PLACES}.diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy",
        "shape_meta": meta(order),
        **COMMON,
        **NET,
        "obs_as_global_cond": True,
        "crop_shape": [40, 32],
        "obs_encoder_group_norm": True,
        "eval_fixed_crop": True,
        **changed,
    }
    sizes = {name: 1 if name.endswith("image") else 3 for name in order} | {"action": 2}
    return Written(model, weights, policy, sizes)


def of_images(order=("gripper", "z_image", "position"), *, shared=False, **changed):
    """The encoder sorts: images by name, then states by name. A network that is shared keeps its batch norms."""
    torch.manual_seed(0)
    body = body_of(_features(order)) | {"spatial_softmax_num_keypoints": lerobot_written.WIDTHS[-1] // 2}
    ordered = sorted(order, key=lambda name: (not name.endswith("image"), name))
    model = ImageModel(body, ordered)
    cameras = [name for name in ordered if name.endswith("image")]
    encoders = [Pooled(nn.BatchNorm2d, [40, 32]) for _ in (cameras[:1] if shared else cameras)]
    model.rgb_encoder = nn.ModuleList(encoders * len(cameras) if shared else encoders)
    weights = unet_keys(model.unet.state_dict())
    children = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    policy = {
        "_target_": f"{PLACES}.diffusion_unet_image_policy.DiffusionUnetImagePolicy",
        "shape_meta": meta(order),
        **COMMON,
        **NET,
        "obs_as_global_cond": True,
        "obs_encoder": {
            "_target_": "diffusion_policy.model.vision.multi_image_obs_encoder.MultiImageObsEncoder",
            "shape_meta": meta(order),
            "rgb_model": {"_target_": "get_resnet", "name": "resnet18", "weights": None},
            "resize_shape": None,
            "crop_shape": [40, 32],
            "random_crop": True,
            "use_group_norm": shared,  # of no effect on a shared one
            "share_rgb_model": shared,
            "imagenet_norm": True,
        },
        **changed,
    }
    sizes = {name: 1 if name.endswith("image") else 3 for name in order} | {"action": 2}
    written = Written(model, weights, policy, sizes)
    for encoder, user in zip(encoders, ["rgb"] if shared else cameras, strict=True):
        for key, value in encoder.layers.state_dict().items():
            place, _, rest = key.partition(".")
            written.weights[f"obs_encoder.key_model_map.{user}.{children[int(place)]}.{rest}"] = value
    return written


def observed(written, *, batch=2, seed=4):
    """Return observations in robot units by the checkpoint's names."""
    g = torch.Generator().manual_seed(seed)
    meta = written.policy.get("shape_meta")
    if meta is None:
        return {"observation.state": 100 * torch.rand(batch, 2, 5, generator=g)}
    return {
        name: torch.rand(batch, 2, *f["shape"], generator=g) * (1 if "type" in f else 100)
        for name, f in meta["obs"].items()
    }


__all__ = ["observed", "of_hybrid", "of_images", "of_states", "seen"]
