"""How good answers are beside true texts, by the words and letters that both have."""

from __future__ import annotations

from collections.abc import Sequence


def translation_scores(truth: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF of N answers, both on [0, 1].

    BLEU (Papineni et al., ACL 2002) is that of sacreBLEU (Post, WMT 2018), of up to four words, or of letters where the
    true texts have no spaces; chrF (Popović, WMT 2015) of up to six letters.
    """
    from torch import Tensor
    from torchmetrics.functional.text import chrf_score, sacre_bleu_score

    pieces = "13a" if any(" " in text.strip() for text in truth) else "char"
    references = [[text] for text in truth]
    letters = chrf_score(found, references, n_word_order=0)
    assert isinstance(letters, Tensor)  # and no list of those of each text
    return {
        "bleu": float(sacre_bleu_score(found, references, tokenize=pieces)),  # type: ignore[arg-type]
        "chrf": float(letters),
    }
