"""The complete network, used in training and by ``Model``."""

from __future__ import annotations

from torch import Tensor, nn

from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.decoder import Decoder
from gorggle_server.avhubert.encoder import AudioVisualEncoder


class AVHubertNetwork(nn.Module):
    """Encoder and decoder of one AV-HuBERT model.

    Parameter names are fairseq's, except that the prefix ``encoder.w2v_model.`` is ``encoder.`` here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioVisualEncoder(config)
        self.decoder = Decoder(config)

    def encode(
        self,
        video: Tensor | None = None,
        audio: Tensor | None = None,
        padding_mask: Tensor | None = None,
        *,
        has_video: Tensor | None = None,
        has_audio: Tensor | None = None,
    ) -> Tensor:
        """Encode (B, T, 88, 88) and (B, T, 104) to (B, T, D): see ``AudioVisualEncoder.forward``."""
        encoded: Tensor = self.encoder(video, audio, padding_mask, has_video=has_video, has_audio=has_audio)
        return encoded

    def decode(self, encoder_out: Tensor, padding_mask: Tensor | None, prev_output_tokens: Tensor) -> Tensor:
        """Return logits (B, L, V) with teacher forcing; ``prev_output_tokens`` (B, L) starts with ``</s>``."""
        logits: Tensor = self.decoder(prev_output_tokens, encoder_out, padding_mask)[0]
        return logits

    def decode_with_attention(
        self, encoder_out: Tensor, padding_mask: Tensor | None, prev_output_tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, L, V) and the alignment heads' cross-attention (B, L, T), both with gradient."""
        logits, weights = self.decoder(prev_output_tokens, encoder_out, padding_mask, need_weights=True)
        return logits, weights
