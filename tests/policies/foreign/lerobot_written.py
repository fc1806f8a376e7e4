"""LeRobot's diffusion policy written out in plain torch from its file layout, and folders of it with random weights."""

import json
import math

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import save_file
from torch import nn


class Block(nn.Module):
    def __init__(self, i, o, kernel, groups):
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(i, o, kernel, padding=kernel // 2), nn.GroupNorm(groups, o), nn.Mish())

    def forward(self, x):
        return self.block(x)


class Residual(nn.Module):
    def __init__(self, i, o, told, kernel, groups, scaled):
        super().__init__()
        self.o, self.scaled = o, scaled
        self.conv1, self.conv2 = Block(i, o, kernel, groups), Block(o, o, kernel, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(told, 2 * o if scaled else o))
        self.residual_conv = nn.Conv1d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x, told):
        film = self.cond_encoder(told)[:, :, None]
        h = self.conv1(x)
        h = film[:, : self.o] * h + film[:, self.o :] if self.scaled else h + film
        return self.conv2(h) + self.residual_conv(x)


class Sines(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, k):
        half = self.dim // 2
        angle = k[:, None] * torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))[None]
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class UNet(nn.Module):
    def __init__(self, body, action, told):
        super().__init__()
        step, widths = body["diffusion_step_embed_dim"], body["down_dims"]
        told += step
        rest = told, body["kernel_size"], body["n_groups"], body["use_film_scale_modulation"]
        self.diffusion_step_encoder = nn.Sequential(
            Sines(step), nn.Linear(step, 4 * step), nn.Mish(), nn.Linear(4 * step, step)
        )
        pairs = list(zip([action, *widths[:-1]], widths, strict=True))
        self.down_modules = nn.ModuleList()
        for n, (i, o) in enumerate(pairs):
            down = nn.Conv1d(o, o, 3, 2, 1) if n + 1 < len(pairs) else nn.Identity()
            self.down_modules.append(nn.ModuleList([Residual(i, o, *rest), Residual(o, o, *rest), down]))
        last = widths[-1]
        self.mid_modules = nn.ModuleList([Residual(last, last, *rest), Residual(last, last, *rest)])
        self.up_modules = nn.ModuleList()
        for i, o in reversed(pairs[1:]):
            up = nn.ConvTranspose1d(i, i, 4, 2, 1)
            self.up_modules.append(nn.ModuleList([Residual(2 * o, i, *rest), Residual(i, i, *rest), up]))
        self.final_conv = nn.Sequential(
            Block(widths[0], widths[0], body["kernel_size"], 8), nn.Conv1d(widths[0], action, 1)
        )

    def forward(self, x, k, condition):
        x = x.transpose(1, 2)
        told = torch.cat([self.diffusion_step_encoder(k), condition], dim=-1)
        kept = []
        for one, two, down in self.down_modules:
            x = two(one(x, told), told)
            kept.append(x)
            x = down(x)
        for one in self.mid_modules:
            x = one(x, told)
        for one, two, up in self.up_modules:
            x = up(two(one(torch.cat((x, kept.pop()), dim=1), told), told))
        return self.final_conv(x).transpose(1, 2)


class Basic(nn.Module):
    def __init__(self, i, o, stride, norm):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), norm(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), norm(o)
        if stride != 1 or i != o:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), norm(o))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(h + self.downsample(x))


WIDTHS = (64, 128, 256, 512)
"""Channels of the stages; conftest.py makes both sides narrower."""


BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def resnet(name, norm):
    stages, i = [], WIDTHS[0]
    for o, stride, count in zip(WIDTHS, (1, 2, 2, 2), BLOCKS[name], strict=True):
        stages.append(nn.Sequential(Basic(i, o, stride, norm), *(Basic(o, o, 1, norm) for _ in range(count - 1))))
        i = o
    first = nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False), norm(WIDTHS[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(*first, *stages)


class Pool(nn.Module):
    def __init__(self, height, width, keypoints):
        super().__init__()
        self.nets = nn.Conv2d(WIDTHS[-1], keypoints, 1)
        grid = [
            [-1 + 2 * x / max(width - 1, 1), -1 + 2 * y / max(height - 1, 1)]
            for y in range(height)
            for x in range(width)
        ]
        self.register_buffer("pos_grid", torch.tensor(grid))

    def forward(self, maps):
        weights = self.nets(maps).flatten(2).softmax(-1)
        return torch.einsum("nkp,pc->nkc", weights, self.pos_grid).flatten(1)


class Rgb(nn.Module):
    def __init__(self, body, size):
        super().__init__()
        self.crop = body["crop_shape"]
        norm = (lambda c: nn.GroupNorm(c // 16, c)) if body["use_group_norm"] else nn.BatchNorm2d
        self.backbone = resnet(body["vision_backbone"], norm)
        height, width = (math.ceil(n / 32) for n in (self.crop or size))
        keypoints = body["spatial_softmax_num_keypoints"]
        self.pool = Pool(height, width, keypoints)
        self.out = nn.Linear(2 * keypoints, 2 * keypoints)

    def forward(self, x):
        if self.crop:
            (height, width), (h, w) = x.shape[-2:], self.crop
            top, left = round((height - h) / 2), round((width - w) / 2)
            x = x[..., top : top + h, left : left + w]
        return torch.relu(self.out(self.pool(self.backbone(x))))


class Model(nn.Module):
    """`diffusion.*` of the weights; observations come normalised, actions leave so."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        inputs = body["input_features"]
        self.cameras = [n for n, f in inputs.items() if f["type"] == "VISUAL"]
        told = sum(f["shape"][0] for f in inputs.values() if f["type"] != "VISUAL")
        told += 2 * body["spatial_softmax_num_keypoints"] * len(self.cameras)
        if self.cameras:
            size = inputs[self.cameras[0]]["shape"][1:]
            separate = body["use_separate_rgb_encoder_per_camera"]
            self.rgb_encoder = nn.ModuleList(Rgb(body, size) for _ in self.cameras) if separate else Rgb(body, size)
        self.unet = UNet(body, body["output_features"]["action"]["shape"][0], told * body["n_obs_steps"])

    def condition(self, observed):
        batch, steps = observed["observation.state"].shape[:2]
        parts = [observed["observation.state"]]
        for n, name in enumerate(self.cameras):
            encoder = self.rgb_encoder[n] if isinstance(self.rgb_encoder, nn.ModuleList) else self.rgb_encoder
            parts.append(encoder(observed[name].flatten(0, 1)).unflatten(0, (batch, steps)))
        if "observation.environment_state" in observed:
            parts.append(observed["observation.environment_state"])
        return torch.cat(parts, dim=-1).flatten(1)

    @torch.no_grad()
    def sample(self, observed, generator):
        body = self.body
        scheduler = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}[body["noise_scheduler_type"]](
            num_train_timesteps=body["num_train_timesteps"],
            **{key: body[key] for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type")},
            **{key: body[key] for key in ("clip_sample", "clip_sample_range")},
        )
        scheduler.set_timesteps(body["num_inference_steps"] or body["num_train_timesteps"])
        condition = self.condition(observed)
        shape = len(condition), body["horizon"], body["output_features"]["action"]["shape"][0]
        x = torch.randn(shape, generator=generator)
        for k in scheduler.timesteps:
            y = self.unet(x, torch.full((len(x),), k, dtype=torch.long), condition)
            x = scheduler.step(y, k, x, generator=generator).prev_sample
        return x


def normalised(x, mode, numbers, *, old):
    if mode == "IDENTITY":
        return x
    if mode == "MEAN_STD":
        return (x - numbers["mean"]) / (numbers["std"] + 1e-8)
    low, high = (numbers[n] for n in (("min", "max") if mode == "MIN_MAX" else ("q01", "q99")))
    width = high - low
    if old:
        return (x - low) / (width + 1e-8) * 2 - 1
    return 2 * (x - low) / torch.where(width == 0, 1e-8, width) - 1


def unnormalised(y, mode, numbers):
    if mode == "IDENTITY":
        return y
    if mode == "MEAN_STD":
        return y * numbers["std"] + numbers["mean"]
    low, high = (numbers[n] for n in (("min", "max") if mode == "MIN_MAX" else ("q01", "q99")))
    return (y + 1) / 2 * (high - low) + low


class Policy:
    """A folder's policy: normaliser, model and executed slice."""

    def __init__(self, body, statistics, *, old=False, seed=0):
        torch.manual_seed(seed)
        self.body, self.statistics, self.old = body, statistics, old
        self.features = {**body["input_features"], **body["output_features"]}
        self.model = Model(body).eval()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)

    def mode(self, name):
        return self.body["normalization_mapping"].get(self.features[name]["type"], "IDENTITY")

    def act(self, observed, generator):
        """Return the executed actions, and the whole chunk, of observations in robot units (images in 0..1)."""
        inputs = {
            name: normalised(observed[name], self.mode(name), self.statistics.get(name), old=self.old)
            for name in self.body["input_features"]
        }
        chunk = unnormalised(self.model.sample(inputs, generator), self.mode("action"), self.statistics.get("action"))
        start = self.body["n_obs_steps"] - 1
        return chunk[:, start : start + self.body["n_action_steps"]], chunk

    def save(self, folder, *, compiled=False):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.body))
        weights = {f"diffusion.{key}": value for key, value in self.model.state_dict().items()}
        if compiled:
            weights = {key.replace("diffusion.unet.", "diffusion.unet._orig_mod."): v for key, v in weights.items()}
        if self.old:
            for name, numbers in self.statistics.items():
                kept = {"MIN_MAX": ("min", "max"), "MEAN_STD": ("mean", "std"), "IDENTITY": ()}[self.mode(name)]
                heads = ["normalize_targets", "unnormalize_outputs"] if name == "action" else ["normalize_inputs"]
                for head in heads:
                    prefix = f"{head}.buffer_{name.replace('.', '_')}"
                    weights |= {f"{prefix}.{key}": numbers[key].clone() for key in kept}
        else:
            self._processors(folder)
        save_file(weights, folder / "model.safetensors")
        return folder

    def _processors(self, folder):
        flat = {f"{name}.{key}": v.clone() for name, numbers in self.statistics.items() for key, v in numbers.items()}
        config = {"eps": 1e-8, "features": self.features, "norm_map": self.body["normalization_mapping"]}
        device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
        chains = {
            "policy_preprocessor": [
                {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
                {"registry_name": "to_batch_processor", "config": {}},
                device,
                {"registry_name": "normalizer_processor", "config": config},
            ],
            "policy_postprocessor": [{"registry_name": "unnormalizer_processor", "config": config}, device],
        }
        for name, steps in chains.items():
            for place, step in enumerate(steps):
                if "normalizer" in step["registry_name"]:
                    step["state_file"] = f"{name}_step_{place}_{step['registry_name']}.safetensors"
                    save_file(flat, folder / step["state_file"])
            (folder / f"{name}.json").write_text(json.dumps({"name": name, "steps": steps}))


def options(**changed):
    """Return a configuration, small but for the vision network."""
    body = {
        "type": "diffusion",
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [3]},
            "observation.environment_state": {"type": "ENV", "shape": [4]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"},
        "drop_n_last_frames": 7,
        "vision_backbone": "resnet18",
        "crop_shape": None,
        "crop_is_random": True,
        "pretrained_backbone_weights": None,
        "use_group_norm": True,
        "spatial_softmax_num_keypoints": 6,
        "use_separate_rgb_encoder_per_camera": False,
        "down_dims": [16, 32],
        "kernel_size": 5,
        "n_groups": 4,
        "diffusion_step_embed_dim": 16,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 12,
        "beta_schedule": "squaredcos_cap_v2",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": None,
        "do_mask_loss_for_padding": False,
        "optimizer_lr": 1e-4,
        "optimizer_betas": [0.95, 0.999],
        "scheduler_name": "cosine",
        "device": "cuda",
        "use_amp": False,
        "repo_id": "somebody/something",
    }
    return {**body, **changed}


def seen(*, cameras=1, environment=False, size=(48, 40)):
    """Return input features; environment state, where there is one, is named before the cameras."""
    features = {"observation.state": {"type": "STATE", "shape": [3]}}
    if environment:
        features["observation.environment_state"] = {"type": "ENV", "shape": [4]}
    names = ["observation.image"] if cameras == 1 else [f"observation.images.c{n}" for n in range(cameras)]
    return features | {name: {"type": "VISUAL", "shape": [3, *size]} for name in names}


def statistics(body, *, seed=1):
    """Return statistics of every feature, a constant column in the state among them."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, feature in {**body["input_features"], **body["output_features"]}.items():
        shape = (3, 1, 1) if feature["type"] == "VISUAL" else tuple(feature["shape"])
        whole = torch.rand(shape, generator=g) if feature["type"] == "VISUAL" else 300 * torch.rand(shape, generator=g)
        spread = 0.2 + torch.rand(shape, generator=g)
        spread = spread if feature["type"] == "VISUAL" else 100 * spread
        found[name] = {"mean": whole, "std": spread, "min": whole - spread, "max": whole + spread}
        found[name] |= {"q01": whole - 0.9 * spread, "q99": whole + 0.8 * spread, "count": torch.tensor([7])}
    if "observation.state" in found:
        for key in ("max", "q01", "q99"):
            found["observation.state"][key][1] = found["observation.state"]["min"][1]
    return found


def observed(policy, *, batch=2, seed=2):
    """Return observations in robot units inside the statistics' ranges; the constant column keeps its value."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, feature in policy.body["input_features"].items():
        shape = batch, policy.body["n_obs_steps"], *feature["shape"]
        u = torch.rand(shape, generator=g)
        low, high = (policy.statistics[name][key] for key in ("min", "max"))
        found[name] = u if feature["type"] == "VISUAL" else low + u * (high - low)
    return found
