"""From a sentence to a typed question or a typed act, by code: what can be read from the words needs no model."""
