"""Data: from what a user says of a behaviour to the rows that are trained on and the cases that test them.

The way of a row, file by file:

- What is to be learned: `description` (a user's words, examples and conversations), `proposal` (what a file or a model
  proposes beside them), `examples` and `verify` (held to the examples), `spec` (the whole, checked), `behaviour` (its
  file and folder). `read_words` has a model read the words.
- What an answer is made of: `answer_form`, `answer_shape`, `answer_rules`; its values: `record_values`, `typed_values`
  (computed ones by `tools/core/arithmetic`).
- Rows that are written (`generate`): `draw` decides what a row is about, `writer_requests` asks for it, `synthesis` and
  `lists` make messages of it, `reader` and `reading` read them back, `answers` has answers written and judged.
  `augmentation` makes messages of those: near misses, which only look alike, variants, and other endings.
- What is kept (`critique`): `rows`, `row_checks`, then `balance`, `held_out` and `undecided`; what gives a case away is
  `tools/suites/leakage`'s to say.
- What tests it: `spec_suites`. Rows lie in files as `rows` has them.

Words of this room:

- attribute: something in which messages or answers differ; a label is one of a few values.
- record: the values of one answer, or of one line of a list, each under its path (`items[0].price`).
- draw: the records of a row, decided by code before its message is written; surface: a value as the message says it.
- profile: of a record the labels that its answer shows, and what is missing.
- shot: an example, or a sentence of one, as a model is shown it; style: how a message is to be written.
- distractor: a sentence of which nothing is noted; near miss: a message that looks alike and wants an ordinary answer.
- ordinary row: a near miss or a rehearsal prompt with the base's own answer; a person's row: imported, or an example.
- margin: log-odds, in nats, of what was read against the next likeliest.
- blind case: one that nothing was made from; withheld: taken out of training to be a case.
"""
