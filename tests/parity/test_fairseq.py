"""Modules compared with fairseq's, with the same random weights and inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gorggle_server.avhubert import beam_search, info
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.decoder import Decoder
from gorggle_server.avhubert.encoder import TransformerEncoder
from gorggle_server.avhubert.tokenizer import Vocabulary
from tests.parity import reference_toolkit

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert"
VOCABULARY = 40
SIZES = [
    # Encoder width, heads, layers; decoder width, heads, layers.
    (32, 4, 2, 32, 2, 2),
    (64, 8, 1, 48, 4, 3),
    (48, 3, 3, 64, 8, 1),
]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fairseq() -> Any:
    return reference_toolkit.imported()


def config(sizes: tuple[int, ...]) -> ModelConfig:
    width, heads, layers, decoder_width, decoder_heads, decoder_layers = sizes
    return ModelConfig(
        layers, width, 2 * width, heads, decoder_layers, decoder_width, 2 * decoder_width, decoder_heads, VOCABULARY
    )  # fmt: skip


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Weights large enough for attention and scores to be far from even."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if weight.dim() == 1 else noise * 1.7 * weight.shape[-1] ** -0.5)
    return module.eval()


def padding(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]


def pair_of_decoders(fairseq: Any, sizes: tuple[int, ...], seed: int) -> tuple[Decoder, Any]:
    configuration = config(sizes)
    ours = randomised(Decoder(configuration), seed)
    assert isinstance(ours, Decoder)
    with torch.no_grad():
        ours.embed_tokens.weight[1] = 0
    units = reference_toolkit.dictionary(
        fairseq, ["<s>", "<pad>", "</s>", "<unk>", *(f"u{number}" for number in range(VOCABULARY - 4))]
    )
    theirs = reference_toolkit.decoder(
        fairseq,
        units,
        encoder_embed_dim=configuration.encoder_dim,
        decoder_embed_dim=configuration.decoder_dim,
        decoder_ffn_embed_dim=configuration.decoder_ffn_dim,
        decoder_layers=configuration.decoder_layers,
        decoder_attention_heads=configuration.decoder_heads,
    )
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    # The output projection is the embedding itself.
    assert set(missing) <= {"version", "embed_positions._float_tensor", "output_projection.weight"}
    assert unexpected == []
    return ours, theirs


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_encoder_computes_the_same(fairseq: Any, sizes: tuple[int, ...], seed: int) -> None:
    configuration = config(sizes)
    ours = randomised(TransformerEncoder(configuration), seed)
    theirs = reference_toolkit.encoder(
        fairseq,
        encoder_embed_dim=configuration.encoder_dim,
        encoder_ffn_embed_dim=configuration.encoder_ffn_dim,
        encoder_attention_heads=configuration.encoder_heads,
        encoder_layers=configuration.encoder_layers,
        conv_pos=configuration.position_kernel_size,
        conv_pos_groups=configuration.position_groups,
    )
    theirs.load_state_dict(ours.state_dict())
    lengths = [30, 17, 1]
    x, mask = (
        torch.randn(3, 30, configuration.encoder_dim, generator=torch.Generator().manual_seed(seed)),
        padding(lengths),
    )
    with torch.inference_mode():
        expected, _ = theirs(x.clone(), padding_mask=mask)
        found = ours(x, mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], expected[row, :length], atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_decoder_computes_the_same(fairseq: Any, sizes: tuple[int, ...], seed: int) -> None:
    ours, theirs = pair_of_decoders(fairseq, sizes, seed)
    generator = torch.Generator().manual_seed(seed)
    encoder_out, mask = torch.randn(2, 20, sizes[0], generator=generator), padding([20, 9])
    tokens = torch.randint(4, VOCABULARY, (2, 12), generator=generator)
    tokens[:, 0] = 2
    tokens[1, 8:] = 1
    with torch.inference_mode():
        logits, attention = ours(tokens, encoder_out, mask, need_weights=True)
        expected, extra = theirs(tokens, encoder_out=as_theirs(encoder_out, mask))
    for row, length in enumerate([12, 8]):
        torch.testing.assert_close(logits[row, :length], expected[row, :length], atol=5e-5, rtol=0)
        torch.testing.assert_close(attention[row, :length], extra["attn"][0][row, :length], atol=5e-5, rtol=0)


def as_theirs(encoder_out: Tensor, mask: Tensor) -> dict[str, list[Tensor]]:
    return {"encoder_out": [encoder_out.transpose(0, 1)], "encoder_padding_mask": [mask]}


class Finished(nn.Module):
    """An encoder in the toolkit's sense that has done its work already."""

    def __init__(self, encoder_out: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.found = as_theirs(encoder_out, mask)

    def forward_torchscript(self, _: Any) -> dict[str, list[Tensor]]:
        return self.found

    def reorder_encoder_out(self, found: dict[str, list[Tensor]], order: Tensor) -> dict[str, list[Tensor]]:
        return {
            "encoder_out": [found["encoder_out"][0].index_select(1, order)],
            "encoder_padding_mask": [found["encoder_padding_mask"][0].index_select(0, order)],
        }


class Searched(nn.Module):
    """A model in the toolkit's sense: an encoder and a decoder."""

    def __init__(self, encoder: nn.Module, decoder: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def max_decoder_positions(self) -> int:
        return 2048

    def get_normalized_probs(self, output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        return self.decoder.get_normalized_probs(output, log_probs, sample)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.6])
@pytest.mark.parametrize("beam", [1, 2, 5, 17])
@pytest.mark.parametrize("seed", range(6))
def test_the_beam_search_finds_the_same(fairseq: Any, seed: int, beam: int, penalty: float) -> None:
    ours, theirs = pair_of_decoders(fairseq, SIZES[seed % len(SIZES)], seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = [24, 11, 24, 3]
    encoder_out = torch.randn(4, 24, SIZES[seed % len(SIZES)][0], generator=generator)
    mask, limit = padding(lengths), 14
    with torch.inference_mode():
        generator_of_theirs = fairseq.sequence_generator.SequenceGenerator(
            [Searched(Finished(encoder_out, mask), theirs)],
            theirs.dictionary,
            beam_size=beam,
            max_len_a=0,
            max_len_b=limit,
            len_penalty=penalty,
        )
        expected = generator_of_theirs.generate(
            [], {"net_input": {"source": torch.zeros(4, 24), "padding_mask": mask}}
        )
        running = beam_search.BeamSearch(ours, beam=beam, length_penalty=penalty)
        found = beam_search.beam_search(running, encoder_out, mask, limits=[limit] * 4)
    for hypotheses, theirs_of_clip in zip(found, expected, strict=True):
        assert len(hypotheses) == len(theirs_of_clip) == beam
        scores = torch.tensor([hypothesis.score for hypothesis in hypotheses])
        torch.testing.assert_close(
            scores, torch.stack([one["score"] for one in theirs_of_clip]), atol=1e-4, rtol=0
        )
        for hypothesis, one in zip(hypotheses, theirs_of_clip, strict=True):
            assert hypothesis.tokens == one["tokens"].tolist()
            torch.testing.assert_close(
                torch.tensor(hypothesis.token_scores), one["positional_scores"], atol=1e-4, rtol=0
            )


def test_some_searches_end_before_their_limit(fairseq: Any) -> None:
    # Else the comparison above would say little about sentences that finish early.
    lengths = set()
    for seed in range(6):
        ours, _ = pair_of_decoders(fairseq, SIZES[seed % len(SIZES)], seed)
        encoder_out = torch.randn(
            4, 24, SIZES[seed % len(SIZES)][0], generator=torch.Generator().manual_seed(seed)
        )
        with torch.inference_mode():
            running = beam_search.BeamSearch(ours, beam=5, length_penalty=1.0)
            for of_clip in beam_search.beam_search(running, encoder_out, None, limits=[14] * 4):
                lengths |= {len(hypothesis.tokens) for hypothesis in of_clip}
    assert min(lengths) < 8
    assert max(lengths) == 15


def test_units_are_spelled_the_same(fairseq: Any) -> None:
    theirs = fairseq.data.Dictionary.load(str(GOLDEN / "dict.wrd.txt"))
    bpe = fairseq.data.encoders.sentencepiece_bpe
    tokenizer = bpe.SentencepieceBPE(
        bpe.SentencepieceConfig(sentencepiece_model=str(GOLDEN / "unigram.model"))
    )
    ours = Vocabulary(theirs.symbols, (GOLDEN / "unigram.model").read_bytes())
    for text in ("place blue now", "a w", "bin green with p one soon"):
        ids = theirs.encode_line(tokenizer.encode(text), add_if_not_exist=False, append_eos=True).tolist()
        assert [*ours.encode(text), 2] == ids
        assert ours.decode(ids) == tokenizer.decode(theirs.string(torch.tensor(ids)))


def test_the_toolkits_own_objects_are_read_from_a_checkpoint(fairseq: Any, tmp_path: Path) -> None:
    bpe = fairseq.data.encoders.sentencepiece_bpe
    encoder_fields = {"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16,
                      "encoder_attention_heads": 2, "layer_norm_first": True}  # fmt: skip
    decoder_fields = {"decoder_layers": 1, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 16,
                      "decoder_attention_heads": 2, "decoder_normalize_before": True,
                      "no_scale_embedding": True}  # fmt: skip
    from omegaconf import OmegaConf

    model = OmegaConf.create({**decoder_fields, "w2v_args": {"model": encoder_fields}})
    checkpoint = {
        "cfg": OmegaConf.create({"model": model, "task": {"modalities": ["video"]}}),
        "model": {"encoder.w2v_model.mask_emb": torch.ones(2)},
        "task_state": {
            "target_dictionary": fairseq.data.Dictionary.load(str(GOLDEN / "dict.wrd.txt")),
            "s2s_tokenizer": bpe.SentencepieceBPE(
                bpe.SentencepieceConfig(sentencepiece_model=str(GOLDEN / "unigram.model"))
            ),
        },
        "extra_state": {"meters": fairseq_meters(fairseq)},
    }
    path = tmp_path / "theirs.pt"
    for is_zip in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(checkpoint, path, _use_new_zipfile_serialization=is_zip)
        described = info(path)
        assert described["vocabulary_size"] == 37
        assert described["has_sentencepiece"]
        assert described["config"]["decoder_dim"] == 16
        assert described["modalities"] == ["video"]


def fairseq_meters(fairseq: Any) -> list[Any]:
    from fairseq.logging import meters

    averaged = meters.AverageMeter(round=3)
    averaged.update(2.5)
    timed = meters.StopwatchMeter()
    timed.start()
    timed.stop()
    many = meters.MetersDict()
    many["loss"] = (10, averaged)
    return [averaged, timed, meters.TimeMeter(), many]
