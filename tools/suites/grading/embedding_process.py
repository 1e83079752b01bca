"""The embedding model at work: a JSON list of texts a line on stdin, a JSON list of vectors a line on stdout.

`python -m tunesmith.tools.suites.grading.embedding_process MODEL_FOLDER`; it ends with its stdin. Vectors are the
mean over a text's tokens (256 at most), scaled to length 1, as sentence-transformers makes them for this model.
"""

from __future__ import annotations

import json
import sys

_MAX_TOKENS = 256
"""As its makers use it: they cut off what is behind, too."""


def main() -> None:
    """Answer line by line until stdin ends."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
    model = AutoModel.from_pretrained(sys.argv[1], local_files_only=True, use_safetensors=True).eval()
    for line in sys.stdin:
        batch = tokenizer(json.loads(line), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state  # (texts, tokens, hidden)
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        print(json.dumps(torch.nn.functional.normalize(mean, dim=1).tolist()), flush=True)


if __name__ == "__main__":
    main()
