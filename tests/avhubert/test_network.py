"""The network in training: gradients, dropout and teacher forcing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gorggle_server.avhubert.config import EOS, PAD, ModelConfig
from gorggle_server.avhubert.encoder import ConvolutionalPositions
from gorggle_server.avhubert.network import AVHubertNetwork
from tests.avhubert import golden

# Eight channels: with fewer, convolutions corrupt memory in backward passes; see MIN_FRONTEND_CHANNELS in training.
SMALL = ModelConfig(
    1, 16, 32, 2, 2, 16, 32, 2, 20, frontend_channels=8, position_kernel_size=8, position_groups=4
)


def make_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    video = torch.randn(2, 6, 88, 88, generator=generator)
    audio = torch.randn(2, 6, 104, generator=generator)
    mask = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    tokens = torch.tensor([[EOS, 5, 6, 7], [EOS, 8, 9, PAD]])
    return video, audio, mask, tokens


def compute_logits(
    network: AVHubertNetwork,
    tokens: torch.Tensor,
    video: torch.Tensor | None,
    audio: torch.Tensor | None,
    mask: torch.Tensor,
) -> torch.Tensor:
    return network.decode(network.encode(video, audio, mask), mask, tokens)


def test_every_weight_receives_a_gradient() -> None:
    torch.manual_seed(0)
    network = AVHubertNetwork(SMALL).train()
    video, audio, mask, tokens = make_batch()
    logits = compute_logits(network, tokens, video, audio, mask)
    functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD
    ).backward()
    without_gradient = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert without_gradient == []
    assert all(
        torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None
    )


def test_cross_attention_is_differentiable() -> None:
    torch.manual_seed(0)
    network = AVHubertNetwork(SMALL)
    video, audio, mask, tokens = make_batch()
    _, attention = network.decode_with_attention(network.encode(video, audio, mask), mask, tokens)
    assert attention.shape == (2, 4, 6)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    assert attention[1, :, 4:].abs().max() == 0
    attention[:, :, 2].sum().backward()
    gradient = network.decoder.get_parameter("layers.1.encoder_attn.q_proj.weight").grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    network = AVHubertNetwork(SMALL).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    video, audio, mask, tokens = make_batch()
    losses = []
    for _ in range(25):
        logits = compute_logits(network, tokens, video, audio, mask)
        loss = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_dropout_is_active_only_in_training_mode() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        **{**SMALL.to_dict(), "dropout": 0.5, "attention_dropout": 0.5, "feature_dropout": 0.5}
    )
    network = AVHubertNetwork(config)
    _, audio, mask, tokens = make_batch()
    assert not torch.equal(
        compute_logits(network, tokens, None, audio, mask), compute_logits(network, tokens, None, audio, mask)
    )
    network.eval()
    assert torch.equal(
        compute_logits(network, tokens, None, audio, mask), compute_logits(network, tokens, None, audio, mask)
    )


def test_decoding_with_and_without_attention_weights_agrees() -> None:
    network = golden.network()
    clip = golden.clip("batch2")
    tokens = torch.tensor([[2, 5, 9, 1], [2, 7, 1, 1]])
    with torch.inference_mode():
        encoded = network.encode(clip.video, clip.audio, clip.padding_mask)
        plain = network.decode(encoded, clip.padding_mask, tokens)
        with_attention, _ = network.decode_with_attention(encoded, clip.padding_mask, tokens)
        single = network.decode(
            encoded[1:], clip.padding_mask[1:] if clip.padding_mask is not None else None, tokens[1:, :2]
        )
    torch.testing.assert_close(plain, with_attention, atol=1e-4, rtol=0)
    torch.testing.assert_close(plain[1:, :2], single, atol=1e-4, rtol=0)


def test_encoding_without_input_raises_value_error() -> None:
    with pytest.raises(ValueError, match="video and audio are both None"):
        AVHubertNetwork(SMALL).encode()


def test_embeddings_are_scaled_if_configured() -> None:
    config = ModelConfig(**{**golden.CONFIG.to_dict(), "scale_embeddings": True})
    scaled = AVHubertNetwork(config).eval()
    scaled.load_state_dict(golden.state())
    plain = golden.network()
    with torch.inference_mode():
        # Dividing the embedding by the square root of its width undoes the scaling; the output keeps the original.
        scaled.decoder.embed_tokens.weight.data = plain.decoder.embed_tokens.weight / 8
        encoded = torch.zeros(1, 3, 64)
        tokens = torch.tensor([[2, 5, 9]])
        torch.testing.assert_close(
            scaled.decode(encoded, None, tokens) * 8, plain.decode(encoded, None, tokens)
        )


def test_position_embeddings_in_bfloat16_are_close_to_float32() -> None:
    """The dimensions are those of the embedded model, for which a CPU kernel returned wrong values."""
    torch.manual_seed(0)
    positions = ConvolutionalPositions(dim=192, kernel_size=32, groups=16)
    x = torch.randn(6, 192, 96)
    with torch.no_grad():
        expected = positions(x)
        with torch.autocast("cpu", torch.bfloat16):
            actual = positions(x.bfloat16())
        assert actual.dtype == torch.bfloat16
        assert (actual - expected).abs().mean() < 0.02 * expected.abs().mean()
