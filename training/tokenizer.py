"""Output tokens: a SentencePiece model in which every word of the GRID grammar is one token."""

from __future__ import annotations

import io
import string

import numpy as np
import sentencepiece

from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, Vocabulary
from gorggle_training.sentences import Corpus, Split, random_sentence

VOCABULARY_SIZE = 400
TRAINING_SENTENCES = 6000  # per corpus


def train_tokenizer() -> Vocabulary:
    """Learn the tokens from sentences of both corpora by byte-pair encoding.

    It makes tokens of the grammar's frequent words, including single letters; a unigram model would do so only for words
    that are parts of others.
    """
    rng = np.random.default_rng(0)
    texts = [
        " ".join(random_sentence(Split.TRAIN, rng, corpus)).lower()
        for corpus in Corpus
        for _ in range(TRAINING_SENTENCES)
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, string.ascii_lowercase]),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(index) for index in range(1, processor.get_piece_size())]
    return Vocabulary([*RESERVED_TOKENS, *pieces], model.getvalue())
