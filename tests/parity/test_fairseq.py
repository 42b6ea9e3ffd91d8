"""Parity with fairseq: same results with the same random weights and inputs."""

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
    return reference_toolkit.import_fairseq()


def make_config(sizes: tuple[int, ...]) -> ModelConfig:
    width, heads, layers, decoder_width, decoder_heads, decoder_layers = sizes
    return ModelConfig(
        layers, width, 2 * width, heads, decoder_layers, decoder_width, 2 * decoder_width, decoder_heads, VOCABULARY
    )  # fmt: skip


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Set random weights large enough for non-uniform attention and scores."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if weight.dim() == 1 else noise * 1.7 * weight.shape[-1] ** -0.5)
    return module.eval()


def make_padding_mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]


def create_decoder_pair(fairseq: Any, sizes: tuple[int, ...], seed: int) -> tuple[Decoder, Any]:
    configuration = make_config(sizes)
    ours = randomize(Decoder(configuration), seed)
    assert isinstance(ours, Decoder)
    with torch.no_grad():
        ours.embed_tokens.weight[1] = 0
    dictionary = reference_toolkit.dictionary(
        fairseq, ["<s>", "<pad>", "</s>", "<unk>", *(f"u{number}" for number in range(VOCABULARY - 4))]
    )
    theirs = reference_toolkit.decoder(
        fairseq,
        dictionary,
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
def test_encoder_output_matches_fairseq(fairseq: Any, sizes: tuple[int, ...], seed: int) -> None:
    configuration = make_config(sizes)
    ours = randomize(TransformerEncoder(configuration), seed)
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
        make_padding_mask(lengths),
    )
    with torch.inference_mode():
        expected, _ = theirs(x.clone(), padding_mask=mask)
        found = ours(x, mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], expected[row, :length], atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sizes", SIZES)
def test_decoder_output_matches_fairseq(fairseq: Any, sizes: tuple[int, ...], seed: int) -> None:
    ours, theirs = create_decoder_pair(fairseq, sizes, seed)
    generator = torch.Generator().manual_seed(seed)
    encoder_out, mask = torch.randn(2, 20, sizes[0], generator=generator), make_padding_mask([20, 9])
    tokens = torch.randint(4, VOCABULARY, (2, 12), generator=generator)
    tokens[:, 0] = 2
    tokens[1, 8:] = 1
    with torch.inference_mode():
        logits, attention = ours(tokens, encoder_out, mask, need_weights=True)
        expected, extra = theirs(tokens, encoder_out=to_fairseq_encoder_output(encoder_out, mask))
    for row, length in enumerate([12, 8]):
        torch.testing.assert_close(logits[row, :length], expected[row, :length], atol=5e-5, rtol=0)
        torch.testing.assert_close(attention[row, :length], extra["attn"][0][row, :length], atol=5e-5, rtol=0)


def to_fairseq_encoder_output(encoder_out: Tensor, mask: Tensor) -> dict[str, list[Tensor]]:
    return {"encoder_out": [encoder_out.transpose(0, 1)], "encoder_padding_mask": [mask]}


class PrecomputedEncoder(nn.Module):
    """A fairseq encoder that returns precomputed output."""

    def __init__(self, encoder_out: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.output = to_fairseq_encoder_output(encoder_out, mask)

    def forward_torchscript(self, _: Any) -> dict[str, list[Tensor]]:
        return self.output

    def reorder_encoder_out(self, output: dict[str, list[Tensor]], order: Tensor) -> dict[str, list[Tensor]]:
        return {
            "encoder_out": [output["encoder_out"][0].index_select(1, order)],
            "encoder_padding_mask": [output["encoder_padding_mask"][0].index_select(0, order)],
        }


class EncoderDecoder(nn.Module):
    """A fairseq model that consists of an encoder and a decoder."""

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
def test_beam_search_matches_fairseq(fairseq: Any, seed: int, beam: int, penalty: float) -> None:
    ours, theirs = create_decoder_pair(fairseq, SIZES[seed % len(SIZES)], seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = [24, 11, 24, 3]
    encoder_out = torch.randn(4, 24, SIZES[seed % len(SIZES)][0], generator=generator)
    mask, limit = make_padding_mask(lengths), 14
    with torch.inference_mode():
        fairseq_generator = fairseq.sequence_generator.SequenceGenerator(
            [EncoderDecoder(PrecomputedEncoder(encoder_out, mask), theirs)],
            theirs.dictionary,
            beam_size=beam,
            max_len_a=0,
            max_len_b=limit,
            len_penalty=penalty,
        )
        expected = fairseq_generator.generate(
            [], {"net_input": {"source": torch.zeros(4, 24), "padding_mask": mask}}
        )
        search = beam_search.BeamSearch(ours, beam=beam, length_penalty=penalty)
        found = beam_search.beam_search(search, encoder_out, mask, limits=[limit] * 4)
    for hypotheses, expected_hypotheses in zip(found, expected, strict=True):
        assert len(hypotheses) == len(expected_hypotheses) == beam
        scores = torch.tensor([hypothesis.score for hypothesis in hypotheses])
        torch.testing.assert_close(
            scores, torch.stack([reference["score"] for reference in expected_hypotheses]), atol=1e-4, rtol=0
        )
        for hypothesis, reference in zip(hypotheses, expected_hypotheses, strict=True):
            assert hypothesis.tokens == reference["tokens"].tolist()
            torch.testing.assert_close(
                torch.tensor(hypothesis.token_scores), reference["positional_scores"], atol=1e-4, rtol=0
            )


def test_some_beam_searches_end_before_the_length_limit(fairseq: Any) -> None:
    # Ensures that the comparison above covers hypotheses that finish early.
    lengths = set()
    for seed in range(6):
        ours, _ = create_decoder_pair(fairseq, SIZES[seed % len(SIZES)], seed)
        encoder_out = torch.randn(
            4, 24, SIZES[seed % len(SIZES)][0], generator=torch.Generator().manual_seed(seed)
        )
        with torch.inference_mode():
            search = beam_search.BeamSearch(ours, beam=5, length_penalty=1.0)
            for hypotheses in beam_search.beam_search(search, encoder_out, None, limits=[14] * 4):
                lengths |= {len(hypothesis.tokens) for hypothesis in hypotheses}
    assert min(lengths) < 8
    assert max(lengths) == 15


def test_tokenization_matches_fairseq(fairseq: Any) -> None:
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


def test_a_checkpoint_with_fairseq_objects_is_read(fairseq: Any, tmp_path: Path) -> None:
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
        "extra_state": {"meters": create_fairseq_meters(fairseq)},
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


def create_fairseq_meters(fairseq: Any) -> list[Any]:
    from fairseq.logging import meters

    averaged = meters.AverageMeter(round=3)
    averaged.update(2.5)
    timed = meters.StopwatchMeter()
    timed.start()
    timed.stop()
    metrics = meters.MetersDict()
    metrics["loss"] = (10, averaged)
    return [averaged, timed, meters.TimeMeter(), metrics]
