"""The golden model for onnxruntime."""

from __future__ import annotations

from pathlib import Path

import torch

from gorggle_server.avhubert.checkpoints.stored_model import COUNTERS
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.onnx_model import OnnxModel
from gorggle_training.onnx_graphs import write_graphs
from tests.avhubert import golden


def make_onnx_model(network: AVHubertNetwork, folder: Path) -> OnnxModel:
    """Write graphs for a network with the golden vocabulary, and return the model."""
    write_graphs(network.config, folder)
    weights = {
        name: weight.detach().to(torch.float32).numpy()
        for name, weight in network.state_dict().items()
        if not name.endswith(COUNTERS)
    }
    return OnnxModel(folder, weights, network.config, golden.vocabulary(), {})
