#!/usr/bin/env python3
"""Train a small vision transformer on the digits of scikit-learn, as a Hugging Face folder.

usage: make_vision_transformer.py FOLDER [--epochs 60]

Writes FOLDER/vit (config.json, model.safetensors in f32), FOLDER/samples.npz with 32 training images to calibrate on, and
FOLDER/test.npz with the images and labels of those that were not trained on. Images have 8 x 8
pixels and patches two of them, so that attention has 33 keys. Takes minutes. Prints the accuracy, and the mean squared error of codes for the weights of attention
on the 32 images: even steps, powers of two and the shifted logarithm up to the largest weight, then the first two up to the best of
41 limits and the last with whole exponents.
Needs: pip install numpy torch scikit-learn safetensors
"""
import argparse
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

WIDTH, FFN, LAYERS, HEADS, SIDE, LABELS = 64, 128, 4, 4, 8, 10
PATCH = (1, 2)
PATCHES = SIDE // PATCH[0] * (SIDE // PATCH[1])
TRAINED = 1000


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dense = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, FFN), nn.Linear(FFN, WIDTH)

    def forward(self, x):
        n = self.before(x)
        q, k, v = (f(n).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        self.weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        x = x + self.dense((self.weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.after(x))))

    def named(self, prefix):
        attention = prefix + "attention."
        return {
            prefix + "layernorm_before": self.before, prefix + "layernorm_after": self.after,
            attention + "attention.query": self.query, attention + "attention.key": self.key,
            attention + "attention.value": self.value, attention + "output.dense": self.dense,
            prefix + "intermediate.dense": self.up, prefix + "output.dense": self.down,
        }


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.whole = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.5)
        self.places = nn.Parameter(torch.randn(1, PATCHES + 1, WIDTH) * 0.5)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.classifier = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LABELS)

    def forward(self, images):
        rows = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.whole.expand(len(images), -1, -1), rows], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x)[:, 0])

    def tensors(self):
        modules = {"vit.embeddings.patch_embeddings.projection": self.patches, "vit.layernorm": self.norm,
                   "classifier": self.classifier}
        for index, block in enumerate(self.blocks):
            modules.update(block.named(f"vit.encoder.layer.{index}."))
        found = {"vit.embeddings.cls_token": self.whole, "vit.embeddings.position_embeddings": self.places}
        for name, module in modules.items():
            found[name + ".weight"], found[name + ".bias"] = module.weight, module.bias
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def squared_errors(weights, bits):
    """Mean squared errors of codes of some bits: see above."""
    last, largest = 2 ** bits - 1, weights.max()

    def error(rounded):
        return np.mean((rounded - weights) ** 2)

    def even(limit):
        return error(np.minimum(np.round(weights * last / limit), last) * limit / last)

    def powers(limit):
        return error(limit * 2.0 ** -np.clip(np.round(-np.log2(weights / limit)), 0, last))

    def shifted(shift, whole=False):
        low = -np.log2(largest + shift)
        step = (-np.log2(shift) - low) / last
        exponents = low + step * np.clip(np.round((-np.log2(weights + shift) - low) / step), 0, last)
        return error(2.0 ** -(np.round(exponents) if whole else exponents) - shift)

    limits, shifts = largest * np.linspace(0.2, 1.2, 41), largest * 2.0 ** (np.arange(-64, 17) / 4)
    return (even(largest), powers(largest), min(map(shifted, shifts)), min(map(even, limits)), min(map(powers, limits)),
            min(shifted(shift, True) for shift in shifts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    os.makedirs(os.path.join(options.folder, "vit"), exist_ok=True)
    torch.manual_seed(0)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order].astype(np.float32) / 8 - 1)[:, None]
    labels = digits.target[order]
    x, y = torch.tensor(images), torch.tensor(labels)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    steps = options.epochs * (TRAINED // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for epoch in range(options.epochs):
        for part in torch.randperm(TRAINED).split(50):
            # Moved by at most a pixel.
            down, right = np.random.default_rng([epoch, int(part[0])]).integers(-1, 2, 2)
            moved = torch.roll(x[part], (int(down), int(right)), (2, 3))
            loss = functional.cross_entropy(network(moved), y[part], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        logits = network(x[TRAINED:])
    right = (logits.argmax(1) == y[TRAINED:]).float().mean().item()
    print(f"{right:.4f} of {len(labels) - TRAINED} test images right")
    with torch.no_grad():
        network(x[:32])
    for bits in (4, 3):
        rows = [squared_errors(block.weights.double().numpy(), bits) for block in network.blocks]
        print(f"{bits} bits:", " ".join(f"{number:.3g}" for number in np.mean(rows, 0)))
    config = dict(
        architectures=["ViTForImageClassification"], model_type="vit", hidden_size=WIDTH, intermediate_size=FFN,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_channels=1, image_size=SIDE, patch_size=PATCH,
        layer_norm_eps=1e-5, hidden_act="gelu", id2label={str(i): str(i) for i in range(LABELS)})
    with open(os.path.join(options.folder, "vit", "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    save_file(network.tensors(), os.path.join(options.folder, "vit", "model.safetensors"))
    np.savez(os.path.join(options.folder, "samples.npz"), pixel_values=images[:32])
    np.savez(os.path.join(options.folder, "test.npz"), pixel_values=images[TRAINED:], label=labels[TRAINED:],
             expected=logits.numpy())


if __name__ == "__main__":
    main()
