#!/usr/bin/python3
"""Writes encoders/*.onnx, as PyTorch exports them with a dynamic batch, and encoders.txt, what PyTorch computes with them.

Needs python3-torch, python3-onnx and python3-numpy. Each network is small, has seeded weights and takes pictures of 3 x 8 x 8. A line of
encoders.txt is the name of a network, the number of a picture and the numbers that PyTorch makes of it (of many, the first 200), the same in batches
of 1, 2, 3, 5 and 8. The test makes the pictures in the same way as `picture` here.
"""

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
import torch
import torch.nn.functional as F
from torch import nn

FOLDER = Path(__file__).resolve().parent
COUNT = 8
SIZE = 8


def picture(number):
    """Colours from 0 to 1: bright and dark, flat and rough, so that no two pictures are alike."""
    values = np.zeros((3, SIZE, SIZE), np.float32)
    for c in range(3):
        for y in range(SIZE):
            for x in range(SIZE):
                rough = (number * 7919 + c * 104729 + y * 1299709 + x * 15485863) % 251 % (16 << (number % 4))
                values[c, y, x] = min(255, rough + 23 * number * (c + 1) % 128)
    return torch.from_numpy(values / 255)


PICTURES = torch.stack([picture(number) for number in range(COUNT)])


class Function(nn.Module):
    """A network that is one function, with the modules it uses."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, image):
        return self.function(self, image)


class Last(nn.Module):
    """Applies a module to the channels as the last axis, as transformers and ConvNeXt do."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels, squeeze, act=nn.ReLU(), gate=nn.Sigmoid()):
        super().__init__()
        self.squeeze, self.act, self.gate = squeeze, act, gate
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        return x * self.gate(self.up(self.act(self.down(self.squeeze(x)))))


class LinearGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(channels, 2), nn.ReLU(), nn.Linear(2, channels), nn.Sigmoid())

    def forward(self, x):
        return x * self.net(x.mean((2, 3))).view(x.size(0), x.size(1), 1, 1)


class Attention(nn.Module):
    """Self-attention of one head over tokens, N x tokens x width."""

    def __init__(self, width, scale_first=False):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.scale, self.scale_first = width**-0.5, scale_first

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        products = (q * self.scale) @ k.transpose(1, 2) if self.scale_first else q @ k.transpose(1, 2) * self.scale
        return products.softmax(-1) @ v


class Tokens(nn.Module):
    """Patches of 4 x 4 as 4 tokens of 6 numbers, with what happens to them."""

    def __init__(self, *steps, pool="mean", position=None):
        super().__init__()
        self.patches, self.steps, self.pool = nn.Conv2d(3, 6, 4, 4), nn.Sequential(*steps), pool
        self.position = nn.Parameter(torch.randn(1, 4, 6)) if position else None

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        if self.position is not None:
            x = x + self.position
        x = self.steps(x)
        return x.mean(1) if self.pool == "mean" else x[:, 0] if self.pool == "first" else x.flatten(1)


class Residual(nn.Module):
    def __init__(self, *steps):
        super().__init__()
        self.steps = nn.Sequential(*steps)

    def forward(self, x):
        return x + self.steps(x)


class Transform(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Normalise(nn.Module):
    """Mean and standard deviation inside of the network."""

    def __init__(self, shape):
        super().__init__()
        self.register_buffer("mean", MEAN.view(shape))
        self.register_buffer("std", STD.view(shape))

    def forward(self, x):
        return (x - self.mean) / self.std


def stem(channels=4):
    return [nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU()]


def head(channels=4, out=5):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, out)]


def around(*steps, channels=4, out=5):
    """A network with these steps in the middle, on 4 x 4 x 4."""
    return nn.Sequential(*stem(channels), *steps, *head(channels, out))


def flat(*steps):
    """A network whose embedding is everything that these steps leave of 4 x 4 x 4."""
    return nn.Sequential(*stem(), *steps, nn.Conv2d(4, 2, 1), nn.Flatten())


def mean_23(x):
    return x.mean((2, 3), keepdim=True)


def networks():
    S = nn.Sequential
    act = {
        "relu": nn.ReLU(), "relu6": nn.ReLU6(), "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7), "silu": nn.SiLU(), "gelu": nn.GELU(),
        "gelu_tanh": Transform(lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        "mish": nn.Mish(), "hardswish": nn.Hardswish(), "hardsigmoid": nn.Hardsigmoid(), "prelu": nn.PReLU(4), "celu": nn.CELU(0.6),
        "selu": nn.SELU(), "softplus": nn.Softplus(), "tanh": nn.Tanh(), "clamp_min": Transform(lambda x: x.clamp(min=0.1)),
        "clamp_max": Transform(lambda x: x.clamp(max=0.2)), "abs_sqrt": Transform(lambda x: (x.abs() + 0.1).sqrt()),
    }
    for name, module in act.items():
        yield f"act_{name}", S(nn.Conv2d(3, 4, 3, 2, 1), module, *head())

    yield "conv_plain", around(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    yield "conv_batchnorm", around(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    yield "conv_depthwise", around(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1))
    yield "conv_grouped", around(nn.Conv2d(4, 4, 3, padding=1, groups=2))
    yield "conv_dilated", around(nn.Conv2d(4, 4, 3, padding=2, dilation=2))
    yield "conv_one_sided", around(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3))
    yield "conv_reflect", around(nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3))
    yield "conv_replicate", around(nn.ReplicationPad2d(1), nn.Conv2d(4, 4, 3))
    yield "conv_pad_value", around(nn.ConstantPad2d(1, 0.7), nn.Conv2d(4, 4, 3))
    yield "conv_transpose", around(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1))
    yield "residual", around(Residual(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)), nn.ReLU())
    yield "inverted_residual", around(Residual(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
                                               nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)))
    yield "dense_concat", S(*stem(), Function(lambda m, x: torch.cat([x, m.a(x)], 1), a=nn.Conv2d(4, 4, 3, padding=1)), *head(8))
    yield "layer_scale", around(Residual(nn.Conv2d(4, 4, 1), Function(lambda m, x: x * m.s.weight.view(1, 4, 1, 1), s=nn.Linear(4, 1))))
    yield "channel_shuffle", around(Transform(lambda x: x.view(x.size(0), 2, 2, 4, 4).transpose(1, 2).reshape(x.size(0), 4, 4, 4)))
    yield "pixel_shuffle", around(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2))
    yield "pixel_unshuffle", S(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1), *head())
    yield "split_halves", around(Function(lambda m, x: torch.cat([m.a(x[:, :2]), x[:, 2:]], 1), a=nn.Conv2d(2, 2, 1)))
    yield "chunk_glu", around(nn.Conv2d(4, 8, 1), nn.GLU(1))

    yield "se_pool", around(Gate(4, nn.AdaptiveAvgPool2d(1)))
    yield "se_mean", around(Gate(4, Transform(mean_23)))
    yield "se_linear", around(LinearGate(4))
    yield "se_hard", around(Gate(4, nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Hardsigmoid()))
    yield "se_silu", around(Gate(4, Transform(mean_23), nn.SiLU()))
    yield "se_high_2", S(nn.Conv2d(3, 4, 4, 4), Gate(4, nn.AdaptiveAvgPool2d(1)), *head())
    yield "se_max", around(Gate(4, nn.AdaptiveMaxPool2d(1)))
    yield "spatial_gate", around(Function(lambda m, x: x * torch.sigmoid(m.a(x)), a=nn.Conv2d(4, 1, 3, padding=1)))
    yield "spatial_mean_gate", around(Transform(lambda x: x * torch.sigmoid(x.mean(1, keepdim=True))))
    yield "context_add", around(Function(lambda m, x: x + m.a(F.adaptive_avg_pool2d(x, 1)), a=nn.Conv2d(4, 4, 1)))
    yield "context_sub", around(Transform(lambda x: x - x.mean((2, 3), keepdim=True)), nn.ReLU())

    yield "layernorm_vector", S(*stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 5))
    yield "layernorm_channels", around(Last(nn.LayerNorm(4)))
    yield "layernorm_map", around(nn.LayerNorm([4, 4, 4]))
    yield "layernorm_by_hand", around(Transform(lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()), nn.Conv2d(4, 4, 1))
    yield "groupnorm_1", around(nn.GroupNorm(1, 4))
    yield "groupnorm_2", around(nn.GroupNorm(2, 4))
    yield "instancenorm", flat(nn.InstanceNorm2d(4, affine=True))
    yield "response_norm", around(nn.LocalResponseNorm(3))
    yield "l2_normalised", S(*stem(), *head(), Transform(lambda x: F.normalize(x, dim=1)))
    yield "l2_by_hand", S(*stem(), *head(), Transform(lambda x: x / x.norm(dim=1, keepdim=True)))
    yield "normalise_4d", S(Normalise((1, 3, 1, 1)), *stem(), *head())
    yield "normalise_3d", S(Normalise((3, 1, 1)), *stem(), *head())
    yield "normalise_scale", S(Transform(lambda x: x * 2 - 1), *stem(), *head())
    yield "normalise_255", S(Transform(lambda x: (x * 255 - 127.5) / 58.4), *stem(), *head())

    yield "convnext", around(Residual(nn.Conv2d(4, 4, 7, padding=3, groups=4), Last(S(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)))))
    yield "mixer", Tokens(nn.Linear(6, 6), Transform(lambda x: x.transpose(1, 2)), nn.Linear(4, 4), nn.GELU(), Transform(lambda x: x.transpose(1, 2)))
    yield "vit_position", Tokens(nn.Linear(6, 6), nn.GELU(), position=True)
    yield "vit_attention", Tokens(Attention(6), position=True)
    yield "vit_attention_q", Tokens(Attention(6, scale_first=True), position=True)
    yield "vit_block", Tokens(Residual(nn.LayerNorm(6), Attention(6)), Residual(nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)), position=True)
    yield "vit_first", Tokens(Attention(6), pool="first")
    yield "vit_class_token", Function(lambda m, x: m.a(torch.cat([m.c.weight.view(1, 1, 6).expand(x.size(0), -1, -1), m.p(x).flatten(2).transpose(1, 2)], 1))[:, 0],
                                      c=nn.Linear(6, 1), p=nn.Conv2d(3, 6, 4, 4), a=Attention(6))
    yield "vit_flat", Tokens(Attention(6), pool="flat")
    yield "vit_square", Function(lambda m, x: m.n(m.p(x).flatten(2).transpose(1, 2)).mean(1), p=nn.Conv2d(3, 4, 4, 4), n=nn.LayerNorm(4))
    yield "multihead", Tokens(Function(lambda m, x: m.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(6, 2, batch_first=True)))
    yield "position_map", around(Function(lambda m, x: x + m.p.weight.view(1, 4, 4, 4), p=nn.Linear(64, 1)))
    yield "attention_pool", around(Transform(lambda x: x * x.flatten(1).softmax(-1).view(-1, 4, 4, 4)))
    yield "softmax_channels", around(Transform(lambda x: x.softmax(1)))
    yield "log_softmax", S(*stem(), *head(), nn.LogSoftmax(1))
    yield "matmul_self", Function(lambda m, x: torch.bmm(m.s(x).flatten(2), m.s(x).flatten(2).transpose(1, 2)).flatten(1), s=S(*stem()))

    yield "avg_pool_padded", flat(nn.AvgPool2d(3, 2, 1))
    yield "avg_pool_excluded", flat(nn.AvgPool2d(3, 2, 1, count_include_pad=False))
    yield "avg_pool_both", flat(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AvgPool2d(3, 1, 1))
    yield "avg_pool_ceil", flat(nn.AvgPool2d(3, 2, ceil_mode=True))
    yield "avg_pool_ceil_padded", flat(nn.AvgPool2d(3, 2, 1, ceil_mode=True))
    yield "avg_pool_ceil_excluded", flat(nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False))
    yield "avg_pool_wide", flat(nn.AvgPool2d((1, 3), (1, 2), (0, 1), count_include_pad=False))
    yield "max_pool_padded", flat(nn.MaxPool2d(3, 2, 1))
    yield "max_pool_ceil", flat(nn.MaxPool2d(3, 2, ceil_mode=True))
    yield "max_pool_ceil_padded", flat(nn.MaxPool2d(2, 2, 1, ceil_mode=True))
    yield "max_pool_dilated", flat(nn.MaxPool2d(2, 1, dilation=2))
    yield "pool_adaptive_2", flat(nn.AdaptiveAvgPool2d(2))
    yield "pool_lp", around(Transform(lambda x: (x.clamp(min=1e-6) ** 3).mean((2, 3), keepdim=True) ** (1 / 3)))
    yield "pool_mean_flat", S(*stem(), Transform(lambda x: x.mean((2, 3))), nn.Linear(4, 5))
    yield "pool_mean_twice", S(*stem(), Transform(lambda x: x.mean(3).mean(2)), nn.Linear(4, 5))
    yield "pool_max_flat", S(*stem(), Transform(lambda x: x.amax((2, 3))), nn.Linear(4, 5))
    yield "pool_std", S(*stem(), Transform(lambda x: torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)), nn.Linear(8, 5))
    yield "pool_sum", S(*stem(), Transform(lambda x: x.sum((2, 3))), nn.Linear(4, 5))
    yield "squeeze", S(*stem(), nn.AdaptiveAvgPool2d(1), Transform(lambda x: x.squeeze(-1).squeeze(-1)), nn.Linear(4, 5))
    yield "reshape_1", S(*stem(), nn.AdaptiveAvgPool2d(1), Transform(lambda x: x.view(x.size(0), -1)), nn.Linear(4, 5))
    yield "reshape_all", S(*stem(), Transform(lambda x: x.reshape(-1, 64)), nn.Linear(64, 5))

    yield "resize_nearest", flat(nn.Upsample(scale_factor=2, mode="nearest"))
    yield "resize_bilinear", flat(nn.Upsample(scale_factor=2, mode="bilinear"))
    yield "resize_corners", flat(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
    yield "resize_bicubic", flat(nn.Upsample(scale_factor=2, mode="bicubic"))
    yield "resize_size", flat(Transform(lambda x: F.interpolate(x, (7, 5), mode="bilinear")))
    yield "resize_size_nearest", flat(Transform(lambda x: F.interpolate(x, (7, 5), mode="nearest")))
    yield "resize_down", S(Transform(lambda x: F.interpolate(x, (5, 5), mode="bilinear")), *stem(), *head())
    yield "resize_like", around(Function(lambda m, x: x + F.interpolate(m.a(x), x.shape[2:], mode="nearest"), a=nn.Conv2d(4, 4, 3, 2, 1)))

    yield "linear_no_bias", S(*stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False))
    yield "linear_tokens", Tokens(nn.Linear(6, 6))
    yield "matmul_square", S(*stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Function(lambda m, x: x @ m.w.weight, w=nn.Linear(4, 4)))
    yield "scale_vector", S(*stem(), *head(4, 4), Function(lambda m, x: x * m.w.weight[0] + m.w.weight[1], w=nn.Linear(4, 2)))
    yield "scale_rows", flat(Function(lambda m, x: x * m.w.weight[0], w=nn.Linear(4, 1)))
    yield "bias_rows", flat(Function(lambda m, x: x + m.w.weight[0], w=nn.Linear(4, 1)))
    yield "reverse_sub", flat(Transform(lambda x: 1 - x))
    yield "reverse_div", flat(Transform(lambda x: 1 / (x + 1)))
    yield "reverse_div_vector", flat(Function(lambda m, x: m.w.weight[0].view(1, 4, 1, 1) / (x + 1), w=nn.Linear(4, 1)))
    yield "maximum_constant", flat(Transform(lambda x: torch.maximum(x, torch.full((1,), 0.15))))
    yield "where_positive", flat(Transform(lambda x: torch.where(x > 0.1, x, x * 0.5)))
    yield "cast_floor", flat(Transform(lambda x: (x * 10).to(torch.int32).to(torch.float32)))
    yield "floor", flat(Transform(lambda x: (x * 10).floor()))
    yield "negative_slice", flat(Transform(lambda x: x[..., 1:3]))
    yield "strided_slice", flat(Transform(lambda x: x[:, :, ::2, ::2]))
    yield "flip", flat(Transform(lambda x: x.flip(3)))
    yield "roll", flat(Transform(lambda x: x.roll((1, 1), (2, 3))))
    yield "unsqueeze", S(*stem(), *head(), Transform(lambda x: x.unsqueeze(1).unsqueeze(-1)))
    yield "stack", flat(Transform(lambda x: torch.stack([x, x * 2], 1).flatten(1, 2)), nn.Conv2d(8, 4, 1))
    yield "einsum", Function(lambda m, x: torch.einsum("nchw,ck->nk", x, m.w.weight), w=nn.Linear(5, 3))
    yield "lstm_rows", Function(lambda m, x: m.r(m.p(x).flatten(2).permute(2, 0, 1))[0][-1], p=nn.Conv2d(3, 4, 4, 4), r=nn.LSTM(4, 4))
    yield "gru_rows", Function(lambda m, x: m.r(m.p(x).flatten(2).permute(2, 0, 1))[0][-1], p=nn.Conv2d(3, 4, 4, 4), r=nn.GRU(4, 4))
    yield "gather", flat(Transform(lambda x: x[:, [2, 0, 3, 1]]))
    yield "variance_gate", around(Transform(lambda x: x / (x.var((2, 3), keepdim=True) + 0.1)))
    yield "cosine_heads", S(*stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Function(lambda m, x: F.linear(F.normalize(x), F.normalize(m.w.weight)), w=nn.Linear(4, 5)))


# Also as older and newer files say it.
OPSETS = {"se_mean": [11, 9], "layernorm_vector": [11, 17], "vit_block": [11, 17], "normalise_4d": [11], "l2_normalised": [11], "pool_mean_flat": [11], "pool_sum": [11],
          "squeeze": [11], "resize_bilinear": [11, 9], "softmax_channels": [11], "log_softmax": [11], "act_relu6": [11, 9], "act_clamp_min": [11, 9], "conv_one_sided": [9],
          "multihead": [11], "avg_pool_both": [11, 9], "groupnorm_2": [11], "split_halves": [9], "chunk_glu": [11], "unsqueeze": [11], "act_hardswish": [11], "act_gelu": [11]}


def by_hand():
    """Networks that other exporters write, or newer ones: name, operators, constants, version and what they mean."""

    def node(operator, inputs, outputs, **attributes):
        return onnx.helper.make_node(operator, inputs.split(), outputs.split(), **attributes)

    def flatten(source):
        return node("Flatten", source, "embedding", axis=1)

    rng = np.random.default_rng(1)
    square = rng.normal(size=(3, 3)).astype(np.float32)
    row = rng.normal(size=8).astype(np.float32)
    eight = rng.normal(size=(8, 3, 1, 1)).astype(np.float32)
    kernel = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    ints = lambda *values: np.array(values, np.int64)
    pooled = [node("GlobalAveragePool", "image", "map"), node("Flatten", "map", "row", axis=1)]
    means = lambda x: x.mean((2, 3))
    widen, wide = [node("Conv", "image eight", "wide", kernel_shape=[1, 1])], lambda x: F.conv2d(x, torch.from_numpy(eight))

    def padded_average(x, counts):
        return F.avg_pool2d(x, 3, 2, 1, count_include_pad=counts)

    yield "gemm", [*pooled, node("Gemm", "row w", "embedding")], {"w": square}, 11, lambda x: means(x) @ torch.from_numpy(square)
    yield ("gemm_alpha_beta", [*pooled, node("Gemm", "row w b", "embedding", alpha=0.5, beta=3.0, transB=1)], {"w": square, "b": row[:3]}, 11,
           lambda x: means(x) @ torch.from_numpy(square).T * 0.5 + 3 * torch.from_numpy(row[:3]))
    yield ("softmax_old", [node("Softmax", "image", "shares", axis=1), flatten("shares")], {}, 11,
           lambda x: x.flatten(1).softmax(1))
    yield "softmax_new", [node("Softmax", "image", "shares"), flatten("shares")], {}, 13, lambda x: x.softmax(-1).flatten(1)
    yield ("split_uneven", [node("Split", "image sizes", "a b", axis=1), node("Concat", "b a", "both", axis=1), flatten("both")],
           {"sizes": ints(1, 2)}, 13, lambda x: torch.cat([x[:, 1:], x[:, :1]], 1).flatten(1))
    yield "reduce_mean_new", [node("ReduceMean", "image axes", "embedding", keepdims=0)], {"axes": ints(2, 3)}, 18, means
    yield "reduce_max_new", [node("ReduceMax", "image axes", "embedding", keepdims=0)], {"axes": ints(-1, -2)}, 18, lambda x: x.amax((2, 3))
    yield ("reduce_nothing", [node("ReduceSum", "image", "same", noop_with_empty_axes=1), flatten("same")], {}, 13,
           lambda x: x.flatten(1))
    yield ("average_mixed",
           [node("AveragePool", "image", "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
            node("AveragePool", "image", "b", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Concat", "a b", "both", axis=1), flatten("both")], {}, 11,
           lambda x: torch.cat([padded_average(x, True), padded_average(x, False)], 1).flatten(1))
    for counts in (0, 1):
        yield (f"average_counted_{counts}",
               [node("AveragePool", "image", "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=counts),
                flatten("a")], {}, 11, lambda x, counts=counts: padded_average(x, counts == 1).flatten(1))
    yield ("max_same_lower", [node("MaxPool", "image", "a", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"), flatten("a")], {}, 11,
           lambda x: F.max_pool2d(F.pad(x, (1, 0, 1, 0)), 3, 2).flatten(1))
    yield ("max_same_upper", [node("MaxPool", "image", "a", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), flatten("a")], {}, 11,
           lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2).flatten(1))
    for side, padding in ("lower", (1, 0, 1, 0)), ("upper", (0, 1, 0, 1)):
        yield (f"conv_same_{side}", [node("Conv", "image w", "a", kernel_shape=[3, 3], strides=[2, 2], auto_pad=f"SAME_{side.upper()}"), flatten("a")],
               {"w": kernel}, 11, lambda x, padding=padding: F.conv2d(F.pad(x, padding), torch.from_numpy(kernel), stride=2).flatten(1))
    yield ("batchnorm_training", [node("BatchNormalization", "image a b m v", "map m2 v2", training_mode=1), flatten("map")],
           {"a": row[:3], "b": row[3:6], "m": row[:3], "v": np.abs(row[:3])}, 15,
           lambda x: F.instance_norm(x, weight=torch.from_numpy(row[:3]), bias=torch.from_numpy(row[3:6])).flatten(1))
    yield ("resize_default", [node("Resize", "image roi scales", "a"), flatten("a")],
           {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 0.7, 0.7], np.float32)}, 11,
           lambda x: x[:, :, [0, 1, 3, 4, 6]][..., [0, 1, 3, 4, 6]].flatten(1))
    yield ("resize_linear", [node("Resize", "image roi scales", "a", mode="linear"), flatten("a")],
           {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 0.5, 0.5], np.float32)}, 11,
           lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear").flatten(1))
    yield "cast_uint8", [node("Mul", "image ten", "a"), node("Cast", "a", "b", to=2), node("Cast", "b", "c", to=1), flatten("c")], {
        "ten": np.array(10, np.float32)}, 11, lambda x: (x * 10).floor().flatten(1)
    yield ("spatial_constant", [*widen, node("Mul", "wide m", "a"), flatten("a")], {"eight": eight, "m": rng.normal(size=(1, 1, 8, 8)).astype(np.float32)}, 11,
           None)
    yield "row_constant", [*widen, node("Constant", "", "r", value=numpy_helper.from_array(row)), node("Add", "wide r", "a"), flatten("a")], {
        "eight": eight}, 11, lambda x: (wide(x) + torch.from_numpy(row)).flatten(1)
    yield ("slice_last", [node("Slice", "image starts ends axes", "a"), flatten("a")], {"starts": ints(0), "ends": ints(3), "axes": ints(-1)}, 11,
           lambda x: x[..., :3].flatten(1))
    yield "squeeze_last", [node("GlobalAveragePool", "image", "a"), node("Squeeze", "a", "embedding", axes=[-1, -2])], {}, 11, means
    yield ("squeeze_last_new", [node("GlobalAveragePool", "image", "a"), node("Squeeze", "a axes", "embedding")], {"axes": ints(-1, -2)}, 13,
           means)
    yield "lp_1", [*pooled, node("LpNormalization", "row", "embedding", axis=1, p=1)], {}, 11, lambda x: F.normalize(means(x), p=1)
    yield ("pad_edge", [node("Pad", "image pads", "a", mode="edge"), flatten("a")], {"pads": ints(0, 0, 1, 0, 0, 0, 0, 1)}, 11,
           lambda x: F.pad(x, (0, 1, 1, 0), mode="replicate").flatten(1))
    yield ("pad_negative", [node("Pad", "image pads zero", "a"), flatten("a")],
           {"pads": ints(0, 0, -1, 0, 0, 0, 0, -1), "zero": np.array(0, np.float32)}, 11, lambda x: x[:, :, 1:, :-1].flatten(1))
    for mode in ("DCR", "CRD"):
        yield (f"depth_to_space_{mode.lower()}", [node("Conv", "image twelve", "a", kernel_shape=[1, 1]), node("DepthToSpace", "a", "b", blocksize=2, mode=mode), flatten("b")],
               {"twelve": np.tile(eight, (2, 1, 1, 1))[:12] * np.linspace(1, 2, 12, dtype=np.float32).reshape(12, 1, 1, 1)}, 11, mode)


def compute_by_hand(meaning, constants):
    if isinstance(meaning, str):
        deep = F.conv2d(PICTURES, torch.from_numpy(constants["twelve"]))
        if meaning == "DCR":
            deep = deep.view(COUNT, 4, 3, SIZE, SIZE).transpose(1, 2).reshape(COUNT, 12, SIZE, SIZE)
        return F.pixel_shuffle(deep, 2).flatten(1)
    if meaning is None:
        return (F.conv2d(PICTURES, torch.from_numpy(constants["eight"])) * torch.from_numpy(constants["m"])).flatten(1)
    return torch.cat([meaning(PICTURES[i:i + 1]) for i in range(COUNT)])


def write_by_hand(folder, lines):
    for name, nodes, constants, version, meaning in by_hand():
        expected = compute_by_hand(meaning, constants)
        tensor = lambda name, sizes: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        graph = onnx.helper.make_graph(nodes, name, [tensor("image", ["batch", 3, SIZE, SIZE])], [tensor("embedding", ["batch", expected.size(1)])],
                                       [numpy_helper.from_array(value, key) for key, value in constants.items()])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=7, producer_name="by hand")
        onnx.save(model, str(folder / f"other_{name}.onnx"))
        write_lines(f"other_{name}", expected, lines)


def write_lines(name, expected, lines):
    for number, row in enumerate(expected):
        lines.append(f"{name} {number} " + " ".join(f"{value:.5g}" for value in row[:200].tolist()))


def export(model, opset, path):
    """False if PyTorch has no such operator in this set of operators."""
    axes = {"image": {0: "batch"}, "embedding": {0: "batch"}}
    try:
        torch.onnx.export(model, PICTURES[:2], str(path), input_names=["image"], output_names=["embedding"], dynamic_axes=axes, opset_version=opset)
    except RuntimeError as failure:
        print(f"{path.stem}: not exported: {str(failure).splitlines()[0][:150]}")
        path.unlink(missing_ok=True)
        return False
    file = onnx.load(str(path))
    for node in file.graph.node:
        node.doc_string = ""  # where in this script it comes from
    onnx.save(file, str(path))
    return True


def give_weights(model, seed):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape) * (0.5 if parameter.dim() < 2 else 1.2 / math.sqrt(parameter[0].numel())))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)


@torch.no_grad()
def compute(model):
    """What comes out of each picture, with weights that make no two of them alike."""
    model.eval()
    for seed in range(50):
        give_weights(model, seed)
        expected = torch.cat([model(PICTURES[i:i + 1]) for i in range(COUNT)])
        apart = torch.cdist(expected.flatten(1), expected.flatten(1)) + torch.eye(COUNT)
        if apart.min() > 0.02 * expected.norm(dim=1).mean() and expected.isfinite().all():
            break
    else:
        print("pictures are alike", apart.min(), expected.flatten(1).norm(dim=1).mean())
    for size in (2, 3, 5, 8):
        assert torch.allclose(model(PICTURES[:size]), expected[:size], atol=1e-5, rtol=1e-5)
    return expected.flatten(1)


def main():
    folder = FOLDER / "encoders"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = []
    for called, model in networks():
        expected = compute(model)
        for opset in [None, *OPSETS.get(called, [])]:
            name = called if opset is None else f"{called}_{opset}"
            if export(model, opset or 14, folder / f"{name}.onnx"):
                write_lines(name, expected, lines)
    write_by_hand(folder, lines)
    (FOLDER / "encoders.txt").write_text("\n".join(lines) + "\n")


warnings.filterwarnings("ignore")
main()
