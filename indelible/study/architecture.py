"""What a causal language model's size and FLOPs follow from, read from its config.json. Imports no torch.

Exact for the families of `EXACT`, which tests hold against the models of transformers and against the products that
torch counts. Any other family is reckoned as a Llama of its sizes and labelled an estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indelible.errors import UserError
from indelible.study.arm import ModelSpec

# What transformers takes where config.json is silent; a test holds it against the classes themselves.
_GROUPED = {"mistral": 8, "qwen2": 32, "qwen3": 32, "gemma2": 4, "gemma3_text": 4, "smollm3": 4}
_HEAD_DIMS = {"qwen3": 128, "gemma2": 256, "gemma3_text": 256}
_TIED = {"gpt2", "gemma2", "gemma3_text", "smollm3"}
_WIDTHS = ("hidden_size", "n_embd", "d_model", "head_dim", "intermediate_size", "n_inner")
_COUNTS = ("num_attention_heads", "n_head", "num_key_value_heads", "num_hidden_layers", "n_layer", "vocab_size")
_LENGTHS = ("n_positions", "max_position_embeddings")
EXACT = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt_neox", "gpt2", "olmo2", "phi3", "smollm3")


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder, with what stands beside its matrices."""

    vocab_size: int  # rows of the embedding
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # need not be hidden_size / num_heads
    intermediate_size: int
    is_gated: bool  # the MLP has three matrices (gate, up, down) or two
    is_tied: bool  # the head shares the embedding matrix
    layer_vectors: int  # weights of a layer in no matrix: norms and biases
    other: int  # weights outside the layers but for embedding and head: last norm, learned positions
    is_exact: bool  # False: an estimate

    @property
    def layer_matrices(self) -> int:
        """Weights of a layer that stand in matrix products."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)  # Q and O, K and V
        return attention + (3 if self.is_gated else 2) * self.hidden_size * self.intermediate_size

    @property
    def num_parameters(self) -> int:
        """Number of weights; a tied head counts once."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.is_tied else 2)
        return embeddings + self.num_layers * (self.layer_matrices + self.layer_vectors) + self.other

    def forward_flops(self, seq_len: int) -> float:
        """FLOPs of one forward pass a token: two per weight of every matrix product and head, and attention.

        Attention is counted in full, seq_len keys a query, as is usual for MFU, also where a layer looks back through a
        window; the embedding look-up costs nothing.
        """
        matrices = self.num_layers * self.layer_matrices + self.vocab_size * self.hidden_size
        return 2.0 * matrices + 4.0 * self.num_layers * seq_len * self.num_heads * self.head_dim


def architecture_of_spec(model: ModelSpec, vocab_size: int) -> Architecture:
    """The architecture of a model that is drawn from a spec."""
    return Architecture(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.hidden_size // model.num_heads,
        intermediate_size=model.intermediate_size,
        is_gated=True,
        is_tied=model.tie_embeddings,
        layer_vectors=2 * model.hidden_size,
        other=model.hidden_size,
        is_exact=True,
    )


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a given checkpoint.

    Args:
        config: config.json; of a model with several parts that of the text model counts.

    Raises:
        UserError: it has no sizes of a decoder.
    """
    inner = config.get("text_config")
    text: Mapping[str, Any] = inner if isinstance(inner, dict) and inner else config
    _check_sizes(text)
    kind = str(text.get("model_type") or config.get("model_type"))
    hidden = text.get("hidden_size") or text.get("n_embd") or text.get("d_model")
    heads = text.get("num_attention_heads") or text.get("n_head")
    layers = text.get("num_hidden_layers") or text.get("n_layer")
    if not (hidden and heads and layers and text.get("vocab_size")):
        raise UserError(
            f"init: config.json of a {kind} model has no vocab_size, hidden_size, num_attention_heads and "
            "num_hidden_layers; indelible takes causal language models of transformers."
        )
    if hidden < heads and not text.get("head_dim"):
        raise UserError(f"init: config.json has {heads} heads and hidden_size {hidden}; a head would have no width.")
    kv_heads = text.get("num_key_value_heads") or min(_GROUPED.get(kind, heads), heads)
    head_dim = text.get("head_dim") or _HEAD_DIMS.get(kind) or hidden // heads
    width = text.get("intermediate_size") or text.get("n_inner") or 4 * hidden
    sizes = _Sizes(hidden, heads * head_dim, kv_heads * head_dim, head_dim, width)
    return Architecture(
        vocab_size=int(text["vocab_size"]),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=width,
        is_gated=kind not in ("gpt2", "gpt_neox"),
        is_tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", kind in _TIED))),
        layer_vectors=_layer_vectors(kind, text, sizes),
        other=_other(kind, text, hidden),
        is_exact=kind in EXACT and not (config.get("text_config") or text.get("add_cross_attention")),
    )


def _check_sizes(text: Mapping[str, Any]) -> None:
    """Whatever stands in a config.json is counted with only if it is a size."""
    for name in (*_WIDTHS, *_COUNTS, *_LENGTHS):
        value = text.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31):
            raise UserError(f"init: config.json has {name} = {value!r}; expected a number above 0.")
    if not isinstance(found := text.get("tie_word_embeddings", True), bool | None):
        raise UserError(f"init: config.json has tie_word_embeddings = {found!r}; expected true or false.")


@dataclass(frozen=True)
class _Sizes:
    """Widths of what a layer computes."""

    hidden: int
    query: int  # all heads together
    key: int  # and value
    head: int
    mlp: int


def _layer_vectors(kind: str, text: Mapping[str, Any], sizes: _Sizes) -> int:
    """Norms and biases of one layer."""
    hidden, query, key, head, mlp = sizes.hidden, sizes.query, sizes.key, sizes.head, sizes.mlp
    if kind in ("gpt2", "gpt_neox"):  # two norms with biases, biases in both matrices of the MLP
        attention = query + 2 * key + hidden if kind == "gpt2" or text.get("attention_bias", True) else 0
        return 4 * hidden + attention + mlp + hidden
    norms = {"gemma2": 4 * hidden, "gemma3_text": 4 * hidden + 2 * head, "qwen3": 2 * hidden + 2 * head}
    norms["olmo2"] = 2 * hidden + query + key
    biases = 0
    if kind == "qwen2":
        biases = query + 2 * key
    elif text.get("attention_bias") and kind not in ("mistral", "phi3"):
        biases = query + 2 * key + hidden
    if text.get("mlp_bias") and kind in ("llama", "smollm3"):
        biases += 2 * mlp + hidden
    return norms.get(kind, 2 * hidden) + biases


def _other(kind: str, text: Mapping[str, Any], hidden: int) -> int:
    """The last norm, with its bias, and learned positions."""
    if kind == "gpt2":
        return 2 * hidden + hidden * int(text.get("n_positions") or text.get("max_position_embeddings") or 1024)
    return 2 * hidden if kind == "gpt_neox" else hidden
