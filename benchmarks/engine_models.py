"""Our models and fairseq's with the same weights, for benchmarks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.command import ROOT
from gorggle_server.avhubert import AVHubertNetwork, ModelConfig, load_model
from gorggle_server.avhubert.optimization import optimize_for_inference
from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS
from tests.parity import reference_toolkit

EMBEDDED = ROOT / "inference_server" / "assets" / "gorggle-mini-1.safetensors"
VOCABULARY_SIZE = 1000
CONFIGS = {
    "base": ModelConfig(12, 768, 3072, 12, 6, 768, 3072, 4, VOCABULARY_SIZE),
    "large": ModelConfig(24, 1024, 4096, 16, 9, 1024, 4096, 8, VOCABULARY_SIZE),
}


@dataclass
class ModelPair:
    """One model in two implementations.

    Attributes:
        ours: optimized for inference.
        frontend: the published visual front-end in plain torch (not part of fairseq).
        encoder, decoder: fairseq's; None if it is not installed or not requested.
        float32: ours in float32, as the baseline of other weight types.
    """

    ours: AVHubertNetwork
    frontend: nn.Module
    encoder: nn.Module | None = None
    decoder: Any = None
    dictionary: Any = None
    float32: AVHubertNetwork | None = None


def build_pair(
    name: str,
    fairseq: Any,
    *,
    int8: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    with_float32: bool = False,
) -> ModelPair:
    """Build a model by name: ``embedded`` with its weights, ``base`` and ``large`` with random ones.

    fairseq's is float32; ours has the requested type.
    """
    network = load_model(EMBEDDED).network if name == "embedded" else _random_network(CONFIGS[name])
    plain_frontend = copy.deepcopy(network.encoder.feature_extractor_video)
    made = ModelPair(network, plain_frontend)
    if fairseq is not None:
        tokens = [*RESERVED_TOKENS, *(f"u{number}" for number in range(network.config.vocabulary_size - 4))]
        made.dictionary = reference_toolkit.dictionary(fairseq, tokens)
        made.encoder = _fairseq_encoder(fairseq, network)
        made.decoder = _fairseq_decoder(fairseq, network, made.dictionary)
    for theirs in (made.frontend, made.encoder, made.decoder):
        if theirs is not None:
            theirs.to(device)
    if with_float32:
        made.float32 = copy.deepcopy(network).to(device)
        optimize_for_inference(made.float32)
    network.to(device, dtype)
    optimize_for_inference(network, int8=int8)
    return made


def _random_network(config: ModelConfig) -> AVHubertNetwork:
    torch.manual_seed(0)
    network = AVHubertNetwork(config).eval().requires_grad_(requires_grad=False)
    # Standard initialization would give nearly uniform scores and ambiguous hypotheses.
    network.decoder.embed_tokens.weight.mul_(4.0)
    network.decoder.embed_tokens.weight[1] = 0
    return network


def _fairseq_encoder(fairseq: Any, network: AVHubertNetwork) -> nn.Module:
    config = network.config
    theirs: nn.Module = reference_toolkit.encoder(
        fairseq,
        encoder_embed_dim=config.encoder_dim,
        encoder_ffn_embed_dim=config.encoder_ffn_dim,
        encoder_attention_heads=config.encoder_heads,
        encoder_layers=config.encoder_layers,
        conv_pos=config.position_kernel_size,
        conv_pos_groups=config.position_groups,
    )
    state = network.encoder.encoder.state_dict()
    theirs.load_state_dict({key: value for key, value in state.items() if "precomputed_kernel" not in key})
    return theirs


def _fairseq_decoder(fairseq: Any, network: AVHubertNetwork, units: Any) -> Any:
    config = network.config
    theirs = reference_toolkit.decoder(
        fairseq,
        units,
        encoder_embed_dim=config.encoder_dim,
        decoder_embed_dim=config.decoder_dim,
        decoder_ffn_embed_dim=config.decoder_ffn_dim,
        decoder_layers=config.decoder_layers,
        decoder_attention_heads=config.decoder_heads,
    )
    theirs.load_state_dict(network.decoder.state_dict(), strict=False)
    return theirs


def make_fairseq_search(fairseq: Any, made: ModelPair, beam: int, limit: int, encoder_out: Tensor) -> Any:
    """Return fairseq's generator over a given encoder output, and its input."""
    from tests.parity.test_fairseq import EncoderDecoder, PrecomputedEncoder

    mask = torch.zeros(encoder_out.shape[:2], dtype=torch.bool, device=encoder_out.device)
    generator = fairseq.sequence_generator.SequenceGenerator(
        [EncoderDecoder(PrecomputedEncoder(encoder_out, mask), made.decoder)],
        made.dictionary,
        beam_size=beam,
        max_len_a=0,
        max_len_b=limit,
        len_penalty=1,
    )
    return generator, {
        "net_input": {"source": torch.zeros_like(mask, dtype=torch.float32), "padding_mask": mask}
    }
